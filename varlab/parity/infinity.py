"""Golden runs of Infinity through the engine: every stage from text to image, probes and cache included.

The run is forced along the golden's bits, so that one flipped bit stays one flipped bit; the bits that
the engine itself would have drawn at each stage are held against the golden's.
"""

import numpy as np
import torch
from torch import Tensor

from varlab.models.layers import block_causal_attend
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity_capture import Outcome, generate
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.report import Report


@torch.inference_mode()
def check(golden: Golden) -> Report:
    """Hidden states and logits relative to each array's largest value, bits exact but for near ties."""
    comparison, rebuilt = Comparison(golden), setup(golden)
    forced = {k: labels for k in rebuilt.stages if (labels := _path(golden, rebuilt, k)) is not None}
    outcome = generate(rebuilt, forced)
    compare_inputs(comparison, rebuilt)
    _compare_text(comparison, outcome)
    for k in rebuilt.stages:
        _compare_logits(comparison, outcome, k)
        _compare_bits(comparison, outcome, k)
        _compare_canvas(comparison, outcome, k)
    _compare_last_stage(comparison, outcome)
    _compare_blocks(comparison, outcome)
    _compare_image(comparison, outcome)
    _compare_teacher(comparison, outcome)
    comparison.note(_freely(golden, rebuilt, forced))
    return comparison.finish()


def _path(golden: Golden, rebuilt: Setup, k: int) -> Tensor | None:
    """Labels [B, n, d] that the golden run went on with at a stage; None where the file does not say."""
    model, grid = rebuilt.model, rebuilt.model.latent_grid(rebuilt.model.schedule.grids[k])
    used = golden.arrays.get(f"bits_used_{k}")
    if used is not None and used.shape == (rebuilt.batch, 1, *grid, model.tokenizer.config.bits):
        return model.labels_of(torch.from_numpy(used[:, 0]))
    if k in rebuilt.leaked:
        return model.labels_of(rebuilt.leaked[k])
    sampled = golden.arrays.get(f"bits_sampled_{k}")
    fits = sampled is not None and sampled.shape == (
        rebuilt.batch,
        model.schedule.lengths[k],
        model.transformer.config.bits,
    )
    return torch.from_numpy(sampled > 0) if sampled is not None and fits else None


def compare_inputs(comparison: Comparison, rebuilt: Setup) -> None:
    """What a run is given: text features, prescribed bits, the image behind them, rotary positions."""
    comparison.relative("text_features", rebuilt.text.features, "hidden_rel")
    comparison.equal("cu_seqlens", _offsets(rebuilt.text.lengths))
    if rebuilt.negative is not None:
        comparison.relative("neg_text_features", rebuilt.negative.features, "hidden_rel")
        comparison.equal("neg_cu_seqlens", _offsets(rebuilt.negative.lengths))
    comparison.relative("gt_image", rebuilt.image, "hidden_rel")
    for k, bits in rebuilt.leaked.items():
        comparison.equal(f"gt_bits_{k}", bits[:, None])
    table = torch.cat(rebuilt.model.rotary)
    comparison.relative("rope_cos_sin", table.movedim(-1, 0), "hidden_rel")


def _compare_text(comparison: Comparison, outcome: Outcome) -> None:
    """Text of all rows after the norm and as cross-attention reads it, ragged; the pooled vector and its modulation."""
    text, rows = outcome.state.conditioning.text, outcome.setup.all_text
    comparison.relative("text_normed", outcome.setup.model.transformer.text_norm(rows.features), "hidden_rel")
    ragged = torch.cat([row[:length] for row, length in zip(text.tokens, rows.lengths, strict=True)])
    comparison.relative("ca_kv_compact", ragged, "hidden_rel")
    comparison.relative("cond_BD", text.pooled, "hidden_rel")
    comparison.relative("shared_ada_B16C", text.shared, "hidden_rel")
    comparison.relative("first_block0_in", outcome.capture.entering[0], "hidden_rel")


def _compare_logits(comparison: Comparison, outcome: Outcome, k: int) -> None:
    comparison.relative(f"logits_cond_{k}", outcome.capture.cond[k], "logits_rel")
    comparison.relative(f"logits_uncond_{k}", outcome.capture.uncond[k], "logits_rel")
    comparison.relative(f"logits_final_{k}", outcome.capture.final[k], "logits_rel")


def _compare_bits(comparison: Comparison, outcome: Outcome, k: int) -> None:
    """The engine's own argmax, and what it would go on with on the latent grid (leaked or un-patchified)."""
    model, labels = outcome.setup.model, outcome.capture.labels[k]
    margin, noise = _margin(comparison.golden, k, tuple(labels.shape))

    def on_grid(values: Tensor) -> Tensor:
        return model.code_map(k, values).movedim(1, -1)[:, None]

    settled = torch.from_numpy(comparison.labels(f"bits_sampled_{k}", labels, margin, noise))
    leaked, used = outcome.setup.leaked.get(k), on_grid(model.codes(k, settled)) > 0
    if leaked is not None:
        comparison.equal(f"bits_used_{k}", leaked[:, None])
    elif comparison.wants(f"bits_sampled_{k}"):  # near ties are settled already
        comparison.equal(f"bits_used_{k}", used)
    else:
        margin = None if margin is None else on_grid(torch.from_numpy(margin)).numpy()
        comparison.labels(f"bits_used_{k}", used, margin, noise)


def _margin(golden: Golden, k: int, shape: tuple[int, ...]) -> tuple[np.ndarray | None, float]:
    """The golden's |z1 - z0| of every bit, None where it cannot be known, and the size that counts as noise."""
    final = golden.arrays.get(f"logits_final_{k}")
    if final is None or final.size != 2 * np.prod(shape):
        return None, 0.0
    pairs = final.reshape(*shape, 2)
    return np.abs(pairs[..., 1] - pairs[..., 0]), golden.tolerance("logits_rel") * float(np.abs(final).max())


def _compare_canvas(comparison: Comparison, outcome: Outcome, k: int) -> None:
    model, canvas = outcome.setup.model, outcome.capture.canvas[k]
    comparison.relative(f"codes_{k}", outcome.capture.codes[k], "hidden_rel")
    comparison.relative(f"summed_{k}", canvas, "hidden_rel")
    if k + 1 < len(model.schedule):
        comparison.relative(f"next_input_{k}", model.next_input(k + 1, canvas), "hidden_rel")


def _compare_last_stage(comparison: Comparison, outcome: Outcome) -> None:
    """Tensors of the last stage, of which a golden may keep some rows; branch outputs before their gates."""
    capture, rows = outcome.capture, comparison.golden.config.get("keep_rows")

    def kept(x: Tensor) -> Tensor:
        return x if rows is None else x[rows]

    gamma1, gamma2, *_ = outcome.state.conditioning.modulation[0]
    branches = capture.last_branches
    comparison.relative("last_block0_in", kept(capture.entering[-1]), "hidden_rel")
    comparison.relative("last_block0_sa_out", kept(branches["attention"] / gamma1), "hidden_rel")
    comparison.relative("last_block0_ca_out", kept(branches["cross"]), "hidden_rel")
    comparison.relative("last_block0_ffn_out", kept(branches["ffn"] / gamma2), "hidden_rel")
    for i, x in enumerate(capture.last_blocks):
        comparison.relative(f"last_block_out_{i}", kept(x), "hidden_rel")


def _compare_blocks(comparison: Comparison, outcome: Outcome) -> None:
    """The cache of block 0 after the run, and mean and spread of every block's output at every stage."""
    kv = outcome.state.kv
    for name, cache in (("kcache_block0", kv.keys[0]), ("vcache_block0", kv.values[0])):
        comparison.relative(name, None if cache is None else cache[:, :, : kv.lengths[0]], "hidden_rel")
    # The first two columns are stage and block, exact anyway; they must not widen the allowance of the others.
    comparison.relative("block_stats", np.array(outcome.capture.statistics), "hidden_rel", slice(2, None))


def _compare_image(comparison: Comparison, outcome: Outcome) -> None:
    comparison.relative("summed_final", outcome.generation.canvas, "hidden_rel")
    comparison.absolute("decoded", outcome.generation.image * 2 - 1, "decoded_abs")
    comparison.absolute("image_uint8_bgr", outcome.image, "uint8_abs")


def _compare_teacher(comparison: Comparison, outcome: Outcome) -> None:
    """All stages at once behind a block-causal mask, as in training, on the run's own inputs; conditional rows only."""
    if not comparison.wants("teacher_logits"):
        return
    model, canvas = outcome.setup.model, outcome.capture.canvas
    codes = [model.next_input(k + 1, canvas[k]) for k in outcome.setup.stages[:-1]]
    attend = block_causal_attend(tuple(model.schedule.lengths))
    logits = model.transformer(outcome.setup.text, codes, torch.cat(model.rotary), attend)
    comparison.relative("teacher_logits", logits[: len(comparison.golden.arrays["teacher_logits"])], "logits_rel")


def _freely(golden: Golden, rebuilt: Setup, forced: dict[int, Tensor]) -> str:
    """The note on a run that nothing but the leaked bits holds to the golden's path."""
    free = generate(rebuilt, {k: rebuilt.model.labels_of(bits) for k, bits in rebuilt.leaked.items()})
    differ = [k for k in forced if k not in rebuilt.leaked and not torch.equal(free.capture.labels[k], forced[k])]
    bits = f"bits first differ at stage {differ[0]} (counted from 0)" if differ else "all bits reproduced"
    image = golden.arrays.get("image_uint8_bgr")
    if image is None or image.shape != free.image.shape:
        return f"unforced run: {bits}"
    worst = np.abs(free.image.numpy().astype(int) - image)
    return f"unforced run: {bits}, image bytes differ by at most {worst.max()} ({(worst > 0).mean():.2%} of them)"


def _offsets(lengths: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])

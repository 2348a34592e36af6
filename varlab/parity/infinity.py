"""Golden runs of Infinity through the engine: every stage from text to image, probes and cache included.

The run is forced along the golden's bits, so that one flipped bit stays one flipped bit; the bits that
the engine itself would have drawn at each stage are held against the golden's.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from varlab.models.layers import block_causal_attend
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.run import Outcome, generate, margin_of, unforced


def compare(comparison: Comparison) -> None:
    """Hidden states and logits relative to each array's largest value, bits exact but for near ties."""
    golden, rebuilt = comparison.golden, setup(comparison.golden)
    forced = {k: labels for k in rebuilt.stages if (labels := path(golden, rebuilt, k)) is not None}
    outcome = generate(rebuilt, forced, stages=rebuilt.stages[-1:])
    compare_inputs(comparison, rebuilt)
    _compare_text(comparison, outcome)
    for k in rebuilt.stages:
        compare_logits(comparison, outcome, k)
        compare_bits(comparison, outcome, k)
        _compare_canvas(comparison, outcome, k)
    _compare_last_stage(comparison, outcome)
    _compare_blocks(comparison, outcome)
    compare_image(comparison, outcome)
    _compare_teacher(comparison, outcome)
    comparison.note(_unforced(golden, rebuilt, forced))


def path(golden: Golden, rebuilt: Setup, k: int, prefixes: Sequence[str] = ("",)) -> Tensor | None:
    """Labels [B, n, d] that the golden run went on with at a stage: the used bits under the first of the ``prefixes``
    that has them, else the prescribed ones, else the sampled ones; None where the file does not say."""
    model = rebuilt.model
    for prefix in prefixes:
        if (used := golden.tensor(f"{prefix}bits_used_{k}", bits_shape(rebuilt, k))) is not None:
            return model.labels_of(used[:, 0])
    if k in rebuilt.leaked:
        return model.labels_of(rebuilt.leaked[k])
    sampled = golden.tensor(f"bits_sampled_{k}", (rebuilt.batch, rebuilt.lengths[k], model.transformer.config.bits))
    return None if sampled is None else sampled > 0


def bits_shape(rebuilt: Setup, k: int) -> tuple[int, ...]:
    """[B, 1, h, w, b] of a stage's bits on the latent grid."""
    model = rebuilt.model
    return (rebuilt.batch, 1, *model.latent_grid(model.schedule.grids[k]), model.tokenizer.config.bits)


def prepared(golden: Golden, rebuilt: Setup) -> Golden:
    """The golden of an accelerator with its packed bits unpacked; hidden states take the tolerance of the logits where
    none is stated."""
    arrays, tolerances = dict(golden.arrays), dict(golden.tolerances)
    for stage in golden.matching(r"(?:.*[._])?bits_used_(\d+)"):
        if int(stage[1]) in rebuilt.stages:
            arrays[stage[0]] = unpacked(arrays[stage[0]], bits_shape(rebuilt, int(stage[1])))
    if "logits_rel" in tolerances:
        tolerances.setdefault("hidden_rel", tolerances["logits_rel"])
    return replace(golden, arrays=arrays, tolerances=tolerances)


def unpacked(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of ``shape`` from the bytes that hold its flattened bits; anything else is left as it is."""
    count = int(np.prod(shape))
    if array.dtype != np.uint8 or array.shape != (-(-count // 8),):
        return array
    return np.unpackbits(array)[:count].reshape(shape).astype(np.int8)


def compare_inputs(comparison: Comparison, rebuilt: Setup) -> None:
    """What a run is given: text features, prescribed bits, the image behind them, rotary positions."""
    text, negative = rebuilt.text, rebuilt.negative
    comparison.relative("text_features", text.features, "hidden_rel")
    comparison.equal("cu_seqlens", _offsets(text.lengths))
    if negative is not None:
        comparison.relative("neg_text_features", negative.features, "hidden_rel")
        comparison.equal("neg_cu_seqlens", _offsets(negative.lengths))
    comparison.relative("gt_image", rebuilt.image, "hidden_rel")
    for k, bits in rebuilt.leaked.items():
        comparison.equal(f"gt_bits_{k}", bits[:, None])
    comparison.relative("rope_cos_sin", torch.cat(rebuilt.model.rotary).movedim(-1, 0), "hidden_rel")


def _compare_text(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    """Text of all rows after the norm and as cross-attention reads it, ragged; the pooled vector and its modulation."""
    text, rows = outcome.state.conditioning.text, outcome.setup.all_text
    values = {
        "text_normed": outcome.setup.model.transformer.text_norm(rows.features),
        "ca_kv_compact": torch.cat([row[:length] for row, length in zip(text.tokens, rows.lengths, strict=True)]),
        "cond_BD": text.pooled,
        "shared_ada_B16C": text.shared,
        "first_block0_in": outcome.capture.entering[0],
    }
    comparison.relatives("hidden_rel", values)


def compare_logits(comparison: Comparison, outcome: Outcome[Setup], k: int, prefix: str = "", stride: int = 1) -> None:
    """Raw logits of both guidance rows and the guided ones, of every ``stride``-th token."""
    capture = outcome.capture
    rows = {"cond": capture.cond[k], "uncond": capture.uncond[k], "final": capture.final[k]}
    thinned = {f"{prefix}logits_{row}_{k}": None if z is None else z[:, ::stride] for row, z in rows.items()}
    comparison.relatives("logits_rel", thinned)


def compare_bits(
    comparison: Comparison,
    outcome: Outcome[Setup],
    k: int,
    prefix: str = "",
    stride: int = 1,
    least: float | None = None,
) -> None:
    """The engine's own argmax, and what it would go on with on the latent grid (leaked or un-patchified).

    ``least`` is the smallest margin of the stage that the golden states, for tokens whose logits it does not hold.
    """
    model, labels = outcome.setup.model, outcome.capture.labels[k]
    sampled, used = f"{prefix}bits_sampled_{k}", f"{prefix}bits_used_{k}"
    margin, noise = _margin(comparison.golden, outcome.capture.final[k], f"{prefix}logits_final_{k}", stride, least)

    def on_grid(values: Tensor) -> Tensor:
        return model.code_map(k, values).movedim(1, -1)[:, None]

    settled = torch.from_numpy(comparison.labels(sampled, labels, margin, noise))
    own, leaked = on_grid(model.codes(k, settled)) > 0, outcome.setup.leaked.get(k)
    if leaked is not None:
        comparison.equal(used, leaked[:, None])
    elif comparison.wants(sampled):  # near ties are settled already
        comparison.equal(used, own)
    else:
        comparison.labels(used, own, on_grid(margin), noise)


def _margin(golden: Golden, final: Tensor, name: str, stride: int, least: float | None) -> tuple[Tensor, float]:
    """|z1 - z0| of every bit [B, n, d] by the golden, and the size that counts as noise."""

    def between(logits: Tensor) -> Tensor:
        pairs = logits.unflatten(-1, (-1, 2))
        return (pairs[..., 1] - pairs[..., 0]).abs()

    stored = golden.tensor(name, final[:, ::stride].shape)
    margin = margin_of(between(final), None if stored is None else between(stored), least, slice(None, None, stride))
    largest = float((final if stored is None else stored).abs().max())
    return margin, golden.tolerance("logits_rel") * largest


def _compare_canvas(comparison: Comparison, outcome: Outcome[Setup], k: int) -> None:
    model, canvas = outcome.setup.model, outcome.capture.canvas[k]
    comparison.relatives("hidden_rel", {f"codes_{k}": outcome.capture.codes[k], f"summed_{k}": canvas})
    if k + 1 < len(model.schedule):
        comparison.relative(f"next_input_{k}", model.next_input(k + 1, canvas), "hidden_rel")


def _compare_last_stage(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    """Tensors of the last stage, of which a golden may keep some rows; sublayer outputs before their gates."""
    capture, rows = outcome.capture, comparison.golden.config.get("keep_rows")

    def kept(x: Tensor) -> Tensor:
        return x if rows is None else x[rows]

    gamma1, gamma2, *_ = outcome.state.conditioning.modulation[0]
    sublayers = capture.sublayers[-1]
    values = {
        "in": capture.entering[-1],
        "sa_out": sublayers["attention"] / gamma1,
        "ca_out": sublayers["cross"],
        "ffn_out": sublayers["ffn"] / gamma2,
    }
    comparison.relatives("hidden_rel", {f"last_block0_{name}": kept(x) for name, x in values.items()})
    comparison.relatives("hidden_rel", {f"last_block_out_{i}": kept(x) for i, x in enumerate(capture.blocks[-1])})


def _compare_blocks(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    """The cache of block 0 after the run, and mean and spread of every block's output at every stage."""
    kv = outcome.state.kv
    for name, cache in (("kcache_block0", kv.keys[0]), ("vcache_block0", kv.values[0])):
        comparison.relative(name, None if cache is None else cache[:, :, : kv.lengths[0]], "hidden_rel")
    # The first two columns are stage and block, exact anyway; they must not widen the allowance of the others.
    comparison.relative("block_stats", np.array(outcome.capture.statistics), "hidden_rel", slice(2, None))


def compare_image(
    comparison: Comparison, outcome: Outcome[Setup], prefix: str = "", decoded: str = "decoded", image: str = "uint8"
) -> None:
    """``decoded`` and ``image`` begin the names of their absolute tolerances."""
    comparison.relative(f"{prefix}summed_final", outcome.generation.canvas, "hidden_rel")
    comparison.absolute(f"{prefix}decoded", outcome.generation.image * 2 - 1, f"{decoded}_abs")
    comparison.absolute(f"{prefix}image_uint8_bgr", outcome.image, f"{image}_abs")


def _compare_teacher(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    """All stages at once behind a block-causal mask, as in training, on the run's own inputs; conditional rows only."""
    if not comparison.wants("teacher_logits"):
        return
    model, canvas = outcome.setup.model, outcome.capture.canvas
    codes = [model.next_input(k + 1, canvas[k]) for k in outcome.setup.stages[:-1]]
    attend = block_causal_attend(tuple(model.schedule.lengths))
    logits = model.transformer(outcome.setup.text, codes, torch.cat(model.rotary), attend)
    comparison.relative("teacher_logits", logits[: len(comparison.golden.arrays["teacher_logits"])], "logits_rel")


def _unforced(golden: Golden, rebuilt: Setup, forced: dict[int, Tensor]) -> str:
    """The note on a run that nothing but the leaked bits holds to the golden's path."""
    free = generate(rebuilt, {k: rebuilt.model.labels_of(bits) for k, bits in rebuilt.leaked.items()})
    note = unforced("bits", free, {k: path for k, path in forced.items() if k not in rebuilt.leaked})
    image = golden.tensor("image_uint8_bgr", free.image.shape)
    if image is None:
        return note
    worst = np.abs(free.image.numpy().astype(int) - image.numpy())
    return f"{note}, image bytes differ by at most {worst.max()} ({(worst > 0).mean():.2%} of them)"


def _offsets(lengths: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])

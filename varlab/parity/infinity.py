"""Golden runs of Infinity through the engine: every stage from text to image, probes and cache included.

The run is forced along the golden's bits; the bits that the engine itself would have drawn at each stage are held
against the golden's.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from varlab.models.layers import block_causal_attend
from varlab.parity.comparison import Arrays, Comparison, held_to, largest
from varlab.parity.golden import Golden
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.run import Outcome, generate, margin_of, unforced


@held_to(
    equal="cu_seqlens neg_cu_seqlens gt_bits_* bits_used_*",
    logits_rel="logits_* teacher_logits",
    decoded_abs="decoded",
    uint8_abs="image_uint8_bgr",
    hidden_rel="*",
)
def compare(comparison: Comparison) -> None:
    """Bits exact but for near ties."""
    rebuilt = setup(comparison.golden)
    forced = rebuilt.forced(comparison.golden)
    outcome = generate(rebuilt, forced, stages=rebuilt.stages[-1:])
    comparison.hold(inputs(rebuilt) | _text(outcome))
    for k in rebuilt.stages:
        compare_stage(comparison, outcome, k)
    comparison.hold(_blocks(outcome, comparison.golden.config.get("keep_rows")))
    if comparison.wants("block_stats"):
        # The first two columns are stage and block, exact anyway; they must not widen the allowance of the others.
        size = largest(np.atleast_1d(comparison.golden.arrays["block_stats"])[..., 2:])
        allowed = comparison.golden.tolerance("hidden_rel") * size
        comparison.near("block_stats", np.array(outcome.capture.statistics), allowed)
    comparison.hold(image(outcome))
    _compare_teacher(comparison, outcome)
    comparison.note(_unforced(comparison.golden, rebuilt, forced))


def prepared(golden: Golden, rebuilt: Setup) -> Golden:
    """The golden of an accelerator with its packed bits unpacked; hidden states take the tolerance of the logits where
    none is stated."""
    arrays, tolerances = dict(golden.arrays), dict(golden.tolerances)
    for stage in golden.matching(r"(?:.*[._])?bits_used_(\d+)"):
        if int(stage[1]) in rebuilt.stages:
            arrays[stage[0]] = unpacked(arrays[stage[0]], rebuilt.bits_shape(int(stage[1])))
    if "logits_rel" in tolerances:
        tolerances.setdefault("hidden_rel", tolerances["logits_rel"])
    return replace(golden, arrays=arrays, tolerances=tolerances)


def unpacked(array: np.ndarray, shape: tuple[int, ...], rows: int = 1) -> np.ndarray:
    """An array of ``shape`` from the bytes that hold its bits, flattened, or row by row where there are several
    ``rows``; anything else is left as it is."""
    count = int(np.prod(shape)) // rows
    lines = np.atleast_2d(array)
    if array.dtype != np.uint8 or lines.shape != (rows, -(-count // 8)):
        return array
    return np.unpackbits(lines, axis=1)[:, :count].reshape(shape).astype(np.int8)


def inputs(rebuilt: Setup) -> Arrays:
    """What a run is given: text features, prescribed bits, the image behind them, rotary positions."""
    values: Arrays = {}
    for prefix, text in (("", rebuilt.text), ("neg_", rebuilt.negative)):
        if text is not None:
            offsets = np.concatenate([[0], np.cumsum(text.lengths)])
            values |= {f"{prefix}text_features": text.features, f"{prefix}cu_seqlens": offsets}
    values["gt_image"] = rebuilt.image
    values |= {f"gt_bits_{k}": bits[:, None] for k, bits in rebuilt.leaked.items()}
    return values | {"rope_cos_sin": torch.cat(rebuilt.model.rotary).movedim(-1, 0)}


def _text(outcome: Outcome[Setup]) -> Arrays:
    """Text of all rows after the norm and as cross-attention reads it, ragged; the pooled vector and its modulation."""
    text, rows = outcome.state.conditioning.text, outcome.setup.all_text
    return {
        "text_normed": outcome.setup.model.transformer.text_norm(rows.features),
        "ca_kv_compact": torch.cat([row[:length] for row, length in zip(text.tokens, rows.lengths, strict=True)]),
        "cond_BD": text.pooled,
        "shared_ada_B16C": text.shared,
        "first_block0_in": outcome.capture.entering[0],
    }


def compare_stage(
    comparison: Comparison,
    outcome: Outcome[Setup],
    k: int,
    prefix: str = "",
    stride: int = 1,
    least: float | None = None,
) -> None:
    """Logits of every ``stride``-th token, the engine's own argmax, the bits that it would go on with on the latent
    grid (leaked or un-patchified), and what comes of the golden's.

    ``least`` is the smallest margin of the stage that the golden states, for tokens whose logits it does not hold.
    """
    model, capture, golden = outcome.setup.model, outcome.capture, comparison.golden
    names = [f"{prefix}logits_{row}_{k}" for row in ("cond", "uncond", "final")]
    comparison.hold(capture.logits(k, names, stride))
    sampled, used, final = f"{prefix}bits_sampled_{k}", f"{prefix}bits_used_{k}", capture.final[k]
    stored = golden.tensor(names[-1], final[:, ::stride].shape)
    margin = margin_of(final, stored, least, slice(None, None, stride), _between)
    noise = golden.tolerance("logits_rel") * float((final if stored is None else stored).abs().max())

    def on_grid(values: Tensor) -> Tensor:
        return model.code_map(k, values).movedim(1, -1)[:, None]

    settled = torch.from_numpy(comparison.labels(sampled, capture.labels[k], margin, noise))
    own, leaked = on_grid(model.codes(k, settled)) > 0, outcome.setup.leaked.get(k)
    if leaked is not None:
        comparison.hold({used: leaked[:, None]})
    elif comparison.wants(sampled):  # near ties are settled already
        comparison.hold({used: own})
    else:
        comparison.labels(used, own, on_grid(margin), noise)
    canvas = capture.canvas[k]
    comparison.hold({f"{prefix}codes_{k}": capture.codes[k], f"{prefix}summed_{k}": canvas})
    if k + 1 < len(model.schedule):
        comparison.hold({f"{prefix}next_input_{k}": model.next_input(k + 1, canvas)})


def _between(logits: Tensor) -> Tensor:
    """|z1 - z0| of every bit [B, n, d]."""
    pairs = logits.unflatten(-1, (-1, 2))
    return (pairs[..., 1] - pairs[..., 0]).abs()


def _blocks(outcome: Outcome[Setup], rows: list[int] | None) -> Arrays:
    """Tensors of the last stage, of which a golden may keep some rows, sublayer outputs before their gates; and the
    cache of block 0 after the run."""
    gamma1, gamma2, *_ = outcome.state.conditioning.modulation[0]
    capture, sublayers, kv = outcome.capture, outcome.capture.sublayers[-1], outcome.state.kv
    values = {
        "block0_in": capture.entering[-1],
        "block0_sa_out": sublayers["attention"] / gamma1,
        "block0_ca_out": sublayers["cross"],
        "block0_ffn_out": sublayers["ffn"] / gamma2,
    }
    values |= {f"block_out_{i}": x for i, x in enumerate(capture.blocks[-1])}
    caches = {"kcache_block0": kv.keys[0], "vcache_block0": kv.values[0]}
    return {f"last_{name}": x if rows is None else x[rows] for name, x in values.items()} | {
        name: None if cache is None else cache[:, :, : kv.lengths[0]] for name, cache in caches.items()
    }


def image(outcome: Outcome[Setup], prefix: str = "") -> Arrays:
    """Final canvas, decoded pixels in [-1, 1], bytes."""
    values = outcome.generation.canvas, outcome.generation.image * 2 - 1, outcome.image
    names = "summed_final", "decoded", "image_uint8_bgr"
    return {prefix + name: value for name, value in zip(names, values, strict=True)}


def _compare_teacher(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    """All stages at once behind a block-causal mask, as in training, on the run's own inputs; conditional rows only."""
    if not comparison.wants("teacher_logits"):
        return
    model, canvas = outcome.setup.model, outcome.capture.canvas
    codes = [model.next_input(k + 1, canvas[k]) for k in outcome.setup.stages[:-1]]
    attend = block_causal_attend(tuple(model.schedule.lengths))
    logits = model.transformer(outcome.setup.text, codes, torch.cat(model.rotary), attend)
    comparison.hold({"teacher_logits": logits[: len(comparison.golden.arrays["teacher_logits"])]})


def _unforced(golden: Golden, rebuilt: Setup, forced: dict[int, Tensor]) -> str:
    """The note on a run that nothing but the leaked bits holds to the golden's path."""
    free = generate(rebuilt, {k: rebuilt.model.labels_of(bits) for k, bits in rebuilt.leaked.items()})
    note = unforced("bits", free, {k: path for k, path in forced.items() if k not in rebuilt.leaked})
    stored = golden.tensor("image_uint8_bgr", free.image.shape)
    if stored is None:
        return note
    worst = np.abs(free.image.numpy().astype(int) - stored.numpy())
    return f"{note}, image bytes differ by at most {worst.max()} ({(worst > 0).mean():.2%} of them)"

"""Golden runs of FastVAR on HART: kept tokens of every sub-layer, restored outputs, cache lengths, residuals, images.

As in ``fastvar``: our settings count stages from the end, a token at a cut that the golden itself calls too close is
moved to its side, and the run follows the golden's labels, those prescribed for the first stages among them.
"""

import re
from dataclasses import replace
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from varlab.parity import weights
from varlab.parity.comparison import Arrays, Comparison, held_to
from varlab.parity.fastvar import Inside, Judged
from varlab.parity.golden import Golden
from varlab.parity.hart import INPUTS, Outcome, compare_inputs, generate, settle_residual
from varlab.parity.hart_setup import Setup, setup
from varlab.parity.run import CacheWatch, margin_of

RELEASED = {48: 0.5, 64: 0.75}  # grid width -> share of tokens that skip each sub-layer of all blocks
NAMES = {"attention": "attn", "ffn": "ffn"}
CUT = 1e-5  # a relative gap below this at a cut is no choice
ASSUMED = {"logits_rel": CUT, "hidden_rel": CUT, "blocks_abs": 1e-4, "logits_cfg_abs": 1e-3}  # where none is stated


@held_to(
    equal=f"{INPUTS} idx_* kv_len_per_stage_block",
    given="state_keys meta_json",
    hidden_rel="score_*",
    logits_abs="logits_*",
    blocks_abs="sos_uncond_cond lvl_embed_table block_out_* cache* diff_cond_sub8",
    uint8_abs="image",
    latents_abs="*",
)
def compare(comparison: Comparison) -> None:
    """Kept masks and labels exact but for near ties."""
    arrays = {  # labels are stored without a sign, which torch does not count with
        name: array.astype(np.int64) if re.fullmatch(r"idx_\d+", name) else array
        for name, array in comparison.golden.arrays.items()
    }
    tolerances = ASSUMED | comparison.golden.tolerances
    golden = comparison.golden = replace(comparison.golden, arrays=arrays, tolerances=tolerances)
    rebuilt = setup(golden)
    compare_inputs(comparison, rebuilt)
    seed, size = golden.require("seed"), rebuilt.model.transformer.config.vocabulary
    lengths = rebuilt.lengths[: int(golden.config.get("leak", 0))]
    leaked = {k: weights.indices(f"leak_ids_{k}", seed, (rebuilt.batch, n), size) for k, n in enumerate(lengths)}
    stored = {k: golden.tensor(f"idx_{k}", (rebuilt.batch, n)) for k, n in enumerate(rebuilt.lengths)}
    forced = leaked | {k: labels for k, labels in stored.items() if labels is not None}
    inside, watch = Inside(golden, NAMES, rows=2 * rebuilt.batch), CacheWatch()
    ratios = _ratios(rebuilt)
    judged = [Judged(comparison, ratios, drop=0, first=0, names=NAMES)] if ratios else []
    outcome = generate(rebuilt, forced, methods=[*judged, watch], probes=[inside])
    for k in rebuilt.stages:
        _compare_stage(comparison, outcome, k, leaked)
    comparison.hold(inside.arrays)
    for method in judged:
        method.compare_gaps()
    comparison.hold({"kv_len_per_stage_block": watch.tokens})
    _compare_end(comparison, outcome)


def _ratios(rebuilt: Setup) -> tuple[float, ...]:
    """The released shares of the last stages; the official code prunes plain blocks and a last stage of one pass."""
    if rebuilt.model.transformer.config.modulation != "none":
        return ()
    shares = [RELEASED.get(grid[1], 0.0) for grid in rebuilt.model.schedule.grids]
    if rebuilt.settings.passes > 1:
        shares[-1] = 0.0
    return tuple(reversed(list(takewhile(bool, reversed(shares)))))


def _compare_stage(comparison: Comparison, outcome: Outcome, k: int, leaked: dict[int, Tensor]) -> None:
    """Logits of every so many tokens, labels, and the canvas."""
    capture, golden = outcome.capture, comparison.golden
    final, name = capture.final[k], f"logits_cfg_{k}"
    stride = round(outcome.setup.lengths[k] / golden.arrays[name].shape[1]) if golden.stored(name) else 1
    comparison.hold(capture.logits(k, [f"logits_cond_{k}", f"logits_uncond_{k}", name], stride))
    if k in leaked:
        comparison.hold({f"idx_{k}": leaked[k]})
        return
    margins = golden.config.get("min_argmax_margin_per_stage", [])
    least, at = margins[k] if k < len(margins) else None, slice(None, None, stride)
    margin = margin_of(final, golden.tensor(name, final[:, at].shape), least, at)
    comparison.labels(f"idx_{k}", capture.labels[k], margin, golden.tolerance("logits_abs"))
    if k < len(outcome.setup.stages) - 1:
        comparison.hold({f"fhat_{k}": capture.canvas[k]})


def _residual(golden: Golden, outcome: Outcome) -> Tensor:
    """The golden's residual [B, h*w, Z]; where it keeps none, what its final canvas, which adds it as it is, says."""
    ours, canvas = outcome.residual, outcome.generation.canvas
    stored = golden.tensor("diff_out", ours.flatten(0, 1).shape)
    if stored is not None:
        return stored.view_as(ours)
    final = golden.tensor("f_hat_final", canvas.shape)
    return ours if final is None else ours + (final - canvas).flatten(2).mT


def _compare_end(comparison: Comparison, outcome: Outcome) -> None:
    residual, condition = outcome.residual, outcome.calls["condition"]
    correction = settle_residual(comparison, outcome, _residual(comparison.golden, outcome))
    canvas, image = outcome.corrected(correction)
    values: Arrays = {"diff_cond_sub8": condition[0][1].flatten(0, 1)[::8]} if condition else {}
    values |= {
        "diff_cfg": np.array(float(outcome.capture.scale[-1] - 1)),
        "diff_out": (residual + correction).flatten(0, 1),
        "f_hat_final": canvas,
        "image_f32_sub4": image[..., ::4, ::4],
        "image": (image * 255).to(torch.uint8),
    }
    comparison.hold(values)

"""Golden runs of FastVAR on HART: kept tokens of every sub-layer, restored outputs, cache lengths, residuals, images.

As in ``fastvar``: our settings count stages from the end, a token at a cut that the golden itself calls too close is
moved to its side, and the run follows the golden's labels, those prescribed for the first stages among them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from varlab.engine.hooks import Accelerator
from varlab.parity import weights
from varlab.parity.comparison import Array, Comparison
from varlab.parity.fastvar import Inside, Judged, compare_gaps, stored_outputs
from varlab.parity.golden import Golden
from varlab.parity.hart import Outcome, compare_inputs, generate, settle_residual
from varlab.parity.hart_setup import Setup, setup
from varlab.parity.run import CacheWatch, gap, margin_of

RELEASED = {48: 0.5, 64: 0.75}  # grid width -> share of tokens that skip each sub-layer of all blocks
NAMES = {"attention": "attn", "ffn": "ffn"}
CUT = 1e-5  # a relative gap below this at a cut is no choice


def compare(comparison: Comparison) -> None:
    """Kept masks and labels exact but for near ties, cache lengths exact, everything else to a tolerance."""
    tolerances = {"logits_rel": CUT, "hidden_rel": CUT, "blocks_abs": 1e-4, "logits_cfg_abs": 1e-3}
    golden = comparison.golden = replace(
        comparison.golden,
        arrays={name: _labels(name, array) for name, array in comparison.golden.arrays.items()},
        tolerances=tolerances | comparison.golden.tolerances,
    )
    rebuilt = setup(golden)
    compare_inputs(comparison, rebuilt)
    leaked, ratios, outputs = _leaked(golden, rebuilt), _ratios(rebuilt), stored_outputs(golden, NAMES)
    inside = Inside({place for place, _ in outputs.values()}, rows=2 * rebuilt.batch, names=NAMES)
    method, watch = Judged(comparison, ratios, drop=0, first=0, names=NAMES) if ratios else None, CacheWatch()
    methods: Sequence[Accelerator] = [watch] if method is None else [method, watch]
    outcome = generate(rebuilt, _forced(golden, rebuilt, leaked), methods=methods, probes=[inside])
    for k in rebuilt.stages:
        _compare_stage(comparison, outcome, k, leaked)
    comparison.absolutes("blocks_abs", inside.at(outputs))
    if method is not None:
        compare_gaps(comparison, method)
    comparison.equal("kv_len_per_stage_block", watch.tokens)
    _compare_end(comparison, outcome)


def _labels(name: str, array: np.ndarray) -> np.ndarray:
    """Labels are stored without a sign, which torch does not count with."""
    return array.astype(np.int64) if re.fullmatch(r"idx_\d+", name) else array


def _ratios(rebuilt: Setup) -> tuple[float, ...]:
    """The released shares of the last stages; the official code prunes plain blocks and a last stage of one pass."""
    if rebuilt.model.transformer.config.modulation != "none":
        return ()
    shares = [RELEASED.get(grid[1], 0.0) for grid in rebuilt.model.schedule.grids]
    if rebuilt.settings.passes > 1:
        shares[-1] = 0.0
    return tuple(reversed(list(takewhile(bool, reversed(shares)))))


def _leaked(golden: Golden, rebuilt: Setup) -> dict[int, Tensor]:
    """Labels [B, n] prescribed for the first stages."""
    seed, size = golden.require("seed"), rebuilt.model.transformer.config.vocabulary
    lengths = rebuilt.lengths[: int(golden.config.get("leak", 0))]
    return {k: weights.indices(f"leak_ids_{k}", seed, (rebuilt.batch, n), size) for k, n in enumerate(lengths)}


def _forced(golden: Golden, rebuilt: Setup, leaked: dict[int, Tensor]) -> dict[int, Tensor]:
    """Labels [B, n] that the golden went on with: its own, else the prescribed ones."""
    stored = {k: golden.tensor(f"idx_{k}", (rebuilt.batch, n)) for k, n in enumerate(rebuilt.lengths)}
    return leaked | {k: labels for k, labels in stored.items() if labels is not None}


def _compare_stage(comparison: Comparison, outcome: Outcome, k: int, leaked: dict[int, Tensor]) -> None:
    """Logits of every so many tokens, labels, and the canvas."""
    capture, golden = outcome.capture, comparison.golden
    final, name = capture.final[k], f"logits_cfg_{k}"
    stride = round(outcome.setup.lengths[k] / golden.arrays[name].shape[1]) if golden.stored(name) else 1
    rows = {"cond": capture.cond[k], "uncond": capture.uncond[k], "cfg": final}
    thinned = {f"logits_{row}_{k}": None if z is None else z[:, ::stride] for row, z in rows.items()}
    comparison.absolutes("logits_abs", thinned)
    if k in leaked:
        comparison.equal(f"idx_{k}", leaked[k])
        return
    margins = golden.config.get("min_argmax_margin_per_stage", [])
    stored = golden.tensor(name, final[:, ::stride].shape)
    known, least = None if stored is None else gap(stored), margins[k] if k < len(margins) else None
    margin = margin_of(gap(final), known, least, slice(None, None, stride))
    comparison.labels(f"idx_{k}", capture.labels[k], margin, golden.tolerance("logits_abs"))
    if k < len(outcome.setup.stages) - 1:
        comparison.absolute(f"fhat_{k}", capture.canvas[k], "latents_abs")


def _compare_end(comparison: Comparison, outcome: Outcome) -> None:
    last, residual = len(outcome.setup.stages) - 1, outcome.residual
    condition = outcome.calls.seen["condition"]
    if condition:
        comparison.absolute("diff_cond_sub8", condition[0][1].flatten(0, 1)[::8], "blocks_abs")
    stored = comparison.golden.tensor("diff_out", residual.flatten(0, 1).shape)
    correction = settle_residual(comparison, outcome, residual if stored is None else stored.view_as(residual))
    canvas, image = outcome.corrected(correction)
    values: dict[str, Array] = {
        "diff_cfg": np.array(float(outcome.capture.scale[last] - 1)),
        "diff_out": (residual + correction).flatten(0, 1),
        "f_hat_final": canvas,
        "image_f32_sub4": image[..., ::4, ::4],
    }
    comparison.absolutes("latents_abs", values)
    comparison.absolute("image", (image * 255).to(torch.uint8), "uint8_abs")

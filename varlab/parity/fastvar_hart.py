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
from varlab.models.hart import HartTransformer
from varlab.parity import weights
from varlab.parity.accelerated import CacheWatch
from varlab.parity.comparison import Comparison
from varlab.parity.fastvar import Inside, Judged, Place, compare_gaps
from varlab.parity.golden import Golden
from varlab.parity.hart import Outcome, compare_inputs, generate, settle_residual, top_margin
from varlab.parity.hart_setup import Setup, setup
from varlab.parity.report import Report

RELEASED = {48: 0.5, 64: 0.75}  # grid width -> share of tokens that skip each sub-layer of all blocks
NAMES = {"attention": "attn", "ffn": "ffn"}
CUT = 1e-5  # a relative gap below this at a cut is no choice


@torch.inference_mode()
def check(golden: Golden) -> Report:
    """Kept masks and labels exact but for near ties, cache lengths exact, everything else to a tolerance."""
    golden = replace(
        golden,
        arrays={name: _labels(name, array) for name, array in golden.arrays.items()},
        tolerances={"logits_rel": CUT, "hidden_rel": CUT, "blocks_abs": 1e-4, "logits_cfg_abs": 1e-3}
        | golden.tolerances,
    )
    comparison, rebuilt = Comparison(golden), setup(golden)
    compare_inputs(comparison, rebuilt)
    leaked = _leaked(golden, rebuilt)
    ratios = _ratios(rebuilt)
    watch, outputs = CacheWatch(), _outputs(golden)
    inside = Inside({place for place, _ in outputs.values()}, rows=2 * rebuilt.batch, names=NAMES)
    method = Judged(comparison, ratios, drop=0, first=0, names=NAMES) if ratios else None
    methods: Sequence[Accelerator] = [watch] if method is None else [method, watch]
    outcome = generate(rebuilt, _forced(golden, rebuilt, leaked), accelerators=methods, probes=[inside])
    for k in rebuilt.stages:
        _compare_stage(comparison, outcome, k, leaked)
    for name, (place, stride) in outputs.items():
        found = inside.found.get(place)
        comparison.absolute(name, None if found is None else found[:, ::stride], "blocks_abs")
    if method is not None:
        compare_gaps(comparison, method)
    _compare_end(comparison, outcome, watch)
    return comparison.finish()


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
    config: HartTransformer = rebuilt.model.transformer
    seed, size = golden.require("seed"), config.config.vocabulary
    lengths = rebuilt.model.schedule.lengths[: int(golden.config.get("leak", 0))]
    drawn = [np.abs(weights.normal(f"leak_ids_{k}", seed, (rebuilt.batch, n))) for k, n in enumerate(lengths)]
    return {k: torch.from_numpy((values * 1e6).astype(np.int64) % size) for k, values in enumerate(drawn)}


def _forced(golden: Golden, rebuilt: Setup, leaked: dict[int, Tensor]) -> dict[int, Tensor]:
    """Labels [B, n, 1] that the golden went on with: its own, else the prescribed ones."""
    forced = {k: labels[..., None] for k, labels in leaked.items()}
    for k in rebuilt.stages:
        stored = golden.arrays.get(f"idx_{k}")
        if stored is not None and stored.shape == (rebuilt.batch, rebuilt.model.schedule.lengths[k]):
            forced[k] = torch.from_numpy(stored)[..., None]
    return forced


def _outputs(golden: Golden) -> dict[str, tuple[Place, int]]:
    """Names of the block and branch outputs that the file holds, with the stride of the tokens that it keeps."""
    places = {}
    for name, array in golden.arrays.items():
        block = re.fullmatch(r"block_out_(\d+)_(\d+)_sub", name)
        branch = re.fullmatch(r"cache(\d+)_block(\d+)_(attn|ffn)_sub(\d+)", name)
        if block:
            width = int(block[1])
            places[name] = Place(width, int(block[2])), round(width * width / array.shape[1])
        elif branch:
            places[name] = Place(int(branch[1]), int(branch[2]), branch[3]), int(branch[4])
    return places


def _compare_stage(comparison: Comparison, outcome: Outcome, k: int, leaked: dict[int, Tensor]) -> None:
    """Logits of every so many tokens, labels, and the canvas."""
    capture, golden = outcome.capture, comparison.golden
    length, name = outcome.setup.model.schedule.lengths[k], f"logits_cfg_{k}"
    stride = round(length / golden.arrays[name].shape[1]) if golden.stored(name) else 1
    for kind, values in (("cond", capture.cond[k]), ("uncond", capture.uncond[k]), ("cfg", capture.final[k])):
        comparison.absolute(f"logits_{kind}_{k}", None if values is None else values[:, ::stride], "logits_abs")
    if k in leaked:
        comparison.equal(f"idx_{k}", leaked[k])
        return
    margins = golden.config.get("min_argmax_margin_per_stage", [])
    margin = _margin(capture.final[k], golden.arrays.get(name), stride, margins[k] if k < len(margins) else None)
    comparison.labels(f"idx_{k}", capture.labels[k], margin, golden.tolerance("logits_abs"))
    if k < len(outcome.setup.model.schedule) - 1:
        comparison.absolute(f"fhat_{k}", capture.canvas[k], "latents_abs")


def _margin(final: Tensor, stored: np.ndarray | None, stride: int, least: float | None) -> np.ndarray:
    """Distance between the two largest logits [B, n]: the golden's where it holds them; elsewhere ours says where a
    near tie lies that the golden's own smallest margin of the stage admits, and without one nothing is excused."""
    two = final.topk(2).values
    ours = two[..., 0] - two[..., 1]
    margin = (torch.full_like(ours, torch.inf) if least is None else ours.clamp(min=least)).numpy()
    known = top_margin(stored, torch.from_numpy(margin[:, ::stride]))
    if known is not None:
        margin[:, ::stride] = known
    return margin


def _compare_end(comparison: Comparison, outcome: Outcome, watch: CacheWatch) -> None:
    last = len(outcome.setup.model.schedule) - 1
    comparison.equal("kv_len_per_stage_block", np.array([[n for _, _, n, _ in blocks] for blocks in watch.shapes]))
    condition = outcome.calls.seen["condition"]
    if condition:
        comparison.absolute("diff_cond_sub8", condition[0][1].flatten(0, 1)[::8], "blocks_abs")
    comparison.absolute("diff_cfg", np.array(outcome.capture.extra[last]), "latents_abs")
    stored = comparison.golden.arrays.get("diff_out")
    known = stored is not None and stored.shape == tuple(outcome.residual.flatten(0, 1).shape)
    expected = torch.from_numpy(stored).view_as(outcome.residual) if known else outcome.residual
    correction = settle_residual(comparison, outcome, expected)
    comparison.absolute("diff_out", (outcome.residual + correction).flatten(0, 1), "latents_abs")
    canvas, image = outcome.corrected(correction)
    comparison.absolute("f_hat_final", canvas, "latents_abs")
    comparison.absolute("image", (image * 255).to(torch.uint8), "uint8_abs")
    comparison.absolute("image_f32_sub4", image[..., ::4, ::4], "latents_abs")

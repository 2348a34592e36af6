"""Golden tables of Infinity: bit probabilities after top-k and top-p, rotary positions and schedules."""

import json

import torch

from varlab.models.infinity_model import bit_probability
from varlab.models.rotary import rotary_indices, rotary_table
from varlab.parity.comparison import Comparison
from varlab.schedules import INFINITY_GRIDS, STAGES, Schedule, infinity

HEAD_WIDTH = 128  # of the released models, at which the tables were written
TABLE_STEP = 128  # the official rotary table is padded to a multiple of this


def compare_sampling(comparison: Comparison) -> None:
    """Probabilities of both bits for each (top_k, top_p); drawn indices depend on torch's generator."""
    golden, logits = comparison.golden, torch.from_numpy(comparison.golden.array("logits"))
    comparison.known("logits")
    for name, top_k, whole, rest in ((f[0], *f.groups()) for f in golden.matching(r"probs_k(\d+)_p(\d)(\d*)")):
        one = bit_probability(logits, int(top_k), float(f"{whole}.{rest}"))
        comparison.absolute(name, torch.stack([1 - one, one], -1), "abs")
    drawn = [found[0] for found in golden.matching("idx_.*") if comparison.wants(found[0])]
    if drawn:
        comparison.note(f"informative, not compared (they depend on torch.multinomial): {', '.join(drawn)}")


def compare_rope(comparison: Comparison) -> None:
    """Rotary indices exact, tables to an absolute tolerance, schedules equal, for every aspect-ratio template."""
    golden = comparison.golden
    for ratio in INFINITY_GRIDS:
        if any(golden.stored(f"{axis}_{ratio}") for axis in ("y", "x", "cos_stage_sum", "sin_stage_sum")):
            _compare_template(comparison, infinity("1M", ratio), ratio)
    if comparison.wants("square_rows") and comparison.wants("square_cos_sin_rows"):
        rows = torch.from_numpy(golden.arrays["square_rows"])
        table = rotary_table(infinity("1M", 1.0), HEAD_WIDTH)
        comparison.absolute("square_cos_sin_rows", table[rows].permute(2, 0, 1), "abs")
    _compare_schedules(comparison)


def _compare_template(comparison: Comparison, schedule: Schedule, ratio: float) -> None:
    """Row indices y and column indices x of each stage, and the sums of its cosines and sines."""
    stages = rotary_indices(schedule).split(schedule.lengths)
    grids = [stage.unflatten(0, grid) for stage, grid in zip(stages, schedule.grids, strict=True)]
    comparison.equal(f"y_{ratio}", torch.cat([grid[:, 0, 0] for grid in grids]))
    comparison.equal(f"x_{ratio}", torch.cat([grid[0, :, 1] for grid in grids]))
    tables = rotary_table(schedule, HEAD_WIDTH).double().split(schedule.lengths)
    sums = torch.stack([table.sum((0, 1)) for table in tables])
    comparison.absolute(f"cos_stage_sum_{ratio}", sums[:, 0], "abs")
    comparison.absolute(f"sin_stage_sum_{ratio}", sums[:, 1], "abs")


def _compare_schedules(comparison: Comparison) -> None:
    """Grids of each pixel budget, and the tokens of the whole table, as one array of integers a template."""
    if not comparison.wants("schedules_json"):
        return
    for ratio, table in json.loads(str(comparison.golden.arrays["schedules_json"])).items():
        schedule = infinity("1M", float(ratio))
        length = -(-schedule.tokens // TABLE_STEP) * TABLE_STEP
        ours: dict[str, object] = {"table_len": length, "tokens": schedule.tokens}
        ours |= {pixels: [[1, *grid] for grid in infinity(pixels, float(ratio)).grids] for pixels in STAGES}
        wrong = [name for name in table if table[name] != ours.get(name)]
        comparison.verify_all(f"schedules_json_{ratio}", wrong)

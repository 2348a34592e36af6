"""Golden tables of Infinity: bit probabilities after top-k and top-p, rotary positions and schedules."""

import json

import torch

from varlab.models.infinity_model import bit_probability
from varlab.models.rotary import rotary_indices, rotary_table
from varlab.parity.comparison import Comparison, held_to
from varlab.schedules import INFINITY_GRIDS, STAGES, infinity

HEAD_WIDTH = 128  # of the released models, at which the tables were written
TABLE_STEP = 128  # the official rotary table is padded to a multiple of this


@held_to(given="logits idx_*", abs="probs_*")
def compare_sampling(comparison: Comparison) -> None:
    """Probabilities of both bits for each (top_k, top_p); drawn indices depend on torch's generator."""
    golden, logits = comparison.golden, torch.from_numpy(comparison.golden.array("logits"))
    for found in golden.matching(r"probs_k(\d+)_p(\d)(\d*)"):
        one = bit_probability(logits, int(found[1]), float(f"{found[2]}.{found[3]}"))
        comparison.hold({found[0]: torch.stack([1 - one, one], -1)})
    drawn = [found[0] for found in golden.matching("idx_.*") if golden.stored(found[0])]
    if drawn:
        comparison.note(f"informative, not compared (they depend on torch.multinomial): {', '.join(drawn)}")


@held_to(equal="x_* y_*", given="square_rows schedules_json", abs="cos_* sin_* square_cos_sin_rows")
def compare_rope(comparison: Comparison) -> None:
    """Rotary indices, tables and schedules of every aspect-ratio template."""
    golden = comparison.golden
    for ratio in INFINITY_GRIDS:
        if any(golden.stored(f"{axis}_{ratio}") for axis in ("y", "x", "cos_stage_sum", "sin_stage_sum")):
            _compare_template(comparison, ratio)
    if golden.stored("square_rows"):
        rows, table = golden.arrays["square_rows"], rotary_table(infinity("1M", 1.0), HEAD_WIDTH)
        comparison.hold({"square_cos_sin_rows": table[torch.from_numpy(rows)].permute(2, 0, 1)})
    if golden.stored("schedules_json"):
        for ratio, stated in json.loads(str(golden.arrays["schedules_json"])).items():
            ours = _schedules(float(ratio))
            wrong = [name for name in stated if stated[name] != ours.get(name)]
            comparison.verify_all(f"schedules_json_{ratio}", wrong)


def _compare_template(comparison: Comparison, ratio: float) -> None:
    """Row indices y and column indices x of each stage, and the sums of its cosines and sines."""
    schedule = infinity("1M", ratio)
    stages = rotary_indices(schedule).split(schedule.lengths)
    grids = [stage.unflatten(0, grid) for stage, grid in zip(stages, schedule.grids, strict=True)]
    tables = rotary_table(schedule, HEAD_WIDTH).double().split(schedule.lengths)
    sums = torch.stack([table.sum((0, 1)) for table in tables])
    values = {
        "y": torch.cat([grid[:, 0, 0] for grid in grids]),
        "x": torch.cat([grid[0, :, 1] for grid in grids]),
        "cos_stage_sum": sums[:, 0],
        "sin_stage_sum": sums[:, 1],
    }
    comparison.hold({f"{name}_{ratio}": value for name, value in values.items()})


def _schedules(ratio: float) -> dict[str, object]:
    """Grids of each pixel budget, and the tokens of the whole table."""
    tokens = infinity("1M", ratio).tokens
    ours: dict[str, object] = {"table_len": -(-tokens // TABLE_STEP) * TABLE_STEP, "tokens": tokens}
    return ours | {pixels: [[1, *grid] for grid in infinity(pixels, ratio).grids] for pixels in STAGES}

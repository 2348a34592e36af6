"""FreqExit's early exit: a stage runs so many blocks, then the one shared head reads the hidden state.

The exits are fixed by hand, the same for all images and both guidance rows; a block that a stage leaves out gets no
keys of that stage, and nothing is handed on in their place. Source: FreqExit (NeurIPS 2025) and its released sampler.
The training that makes early hidden states readable is another matter: on any weights this is the untrained exit.
"""

import re
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

from varlab.accelerators.exit_account import account
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.engine.plan import StagePlan
from varlab.engine.stage import Stage
from varlab.errors import VarlabError, quoted
from varlab.models.var_model import VAR
from varlab.specs import option

Row = Literal["full", "a", "b", "c", "d", "14", "8", "late", "falling", "steep"]
ROW_DEPTH, ROW_STAGES = 20, 10
ROWS: dict[str, str] = {  # exits of VAR-d20 with ten stages
    "full": "20",
    "a": "16",
    "b": "16x5/12x5",
    "c": "12",
    "d": "10",
    "14": "14",  # of the released script
    "8": "8",  # of the paper's ablation
    "late": "20x5/16x5",
    "falling": "16/12x4/10x5",
    "steep": "16/12/10x8",
}


def read_exits(text: str, stages: int) -> tuple[int, ...]:
    """Blocks of each stage from "16", "16/16/12" or, in the paper's shorthand, "16x5/12x5"."""
    values: list[int] = []
    for part in str(text).split("/"):
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", part.strip())
        if match is None:
            raise VarlabError(
                f"freqexit: {quoted(part)} in exits={text} is neither a number of blocks nor such as 16x5."
            )
        values += [int(match[1])] * int(match[2] or 1)
    if len(values) == 1:
        return tuple(values * stages)
    if len(values) != stages:
        raise VarlabError(
            f"freqexit: exits={text} lists {len(values)} stages; the schedule has {stages}. Give one number for all, "
            f"or {stages}, such as {values[0]}x{stages - 1}/{values[-1]}."
        )
    return tuple(values)


def row_exits(row: str, depth: int, stages: int) -> tuple[int, ...]:
    """A published row on another model: the same share of its blocks at the same share of its stages."""
    published = read_exits(ROWS[row], ROW_STAGES)
    places = [min(k * ROW_STAGES // stages, ROW_STAGES - 1) for k in range(stages)]
    return tuple(max(1, round(published[place] * depth / ROW_DEPTH)) for place in places)


def check_exits(exits: tuple[int, ...], depth: int, name: str) -> None:
    """Refuse what no model can run; warn where deep blocks will miss the keys of earlier stages."""
    for stage, count in enumerate(exits, start=1):
        if not 1 <= count <= depth:
            raise VarlabError(f"freqexit: stage {stage} is to run {count} blocks; {name} has {depth}, at least 1 runs.")
    rising = [k for k in range(1, len(exits)) if exits[k] > exits[k - 1]]
    if rising:
        warnings.warn(
            f"freqexit: the exits rise at stage {rising[0] + 1}: blocks above {exits[rising[0] - 1]} attend only to "
            "the stages that ran them.",
            stacklevel=2,
        )


@dataclass(eq=False)
class FreqExit(Accelerator):
    """Takes ``exits`` or ``row``, one of them; fewer blocks are faster and coarser."""

    name = "freqexit"
    blind = True

    exits: str | None = option(None, "blocks of each stage: one number, or a list such as 16x5/12x5")
    row: Row | None = option(None, "published row of VAR-d20, scaled to the model's depth and stages")

    def __post_init__(self) -> None:
        if (self.exits is None) == (self.row is None):
            raise VarlabError(f"freqexit takes exits or row, one of them. Rows: {', '.join(get_args(Row))}.")
        if self.row is not None and self.row not in ROWS:
            raise VarlabError(f"freqexit: row {quoted(self.row)} is none of {', '.join(ROWS)}.")
        self.depths: tuple[int, ...] = ()

    def start(self, context: Context) -> None:
        stages, depth = len(context.model.schedule), context.model.depth
        if self.row is not None:
            self.depths = row_exits(self.row, depth, stages)
        else:
            self.depths = read_exits(str(self.exits), stages)
        check_exits(self.depths, depth, context.model.name)
        self.account = account(context.model, self.depths, context.settings) if isinstance(context.model, VAR) else None

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan(depth=self.depths[stage.index])

    def report(self) -> dict[str, object]:
        """Blocks of each stage and in all; of VAR also the blocks that a token passes on average, and the GFLOPs of one
        guided image as the ledger counts them and as the paper's table does."""
        report: dict[str, object] = {"exits": list(self.depths), "block_calls": sum(self.depths)}
        if self.account is not None:
            report["weighted_depth"] = self.account.weighted_depth
            report["transformer_gflops"] = self.account.transformer_gflops
            report["paper_gflops"] = self.account.paper_gflops
        return report

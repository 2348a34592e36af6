"""What hooks are told: the stage, and the place within it."""

from dataclasses import dataclass, field

from torch import Tensor

from varlab.engine.plan import StagePlan
from varlab.models.guidance import Guidance
from varlab.schedules import Grid, Schedule


@dataclass(frozen=True)
class Stage:
    """One step of the schedule for a group of images. ``index`` counts from 0, ``from_end`` from the last (0).

    ``passes`` [B, h*w] says in which pass a token is computed where a stage takes several: it sees no later pass.
    """

    index: int
    schedule: Schedule
    samples: tuple[int, ...]
    plan: StagePlan
    guidance: Guidance
    guided: bool  # rows are [conditional..., unconditional...]; else conditional only
    passes: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def grid(self) -> Grid:
        return self.schedule.grids[self.index]

    @property
    def from_end(self) -> int:
        return len(self.schedule) - 1 - self.index

    @property
    def batch(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Site:
    """A place in the network: a block, or one of its sublayers by the family's name."""

    stage: Stage
    block: int
    sublayer: str | None = None

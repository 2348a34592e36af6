"""Baselines: the plain ways to save work that any method must beat."""

from dataclasses import dataclass

from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.specs import option


def check_last(name: str, last: int) -> None:
    if last < 0:
        raise VarlabError(f"{name}: last counts final stages and must not be negative, got {last}.")


def check_most(name: str, last: int, most: int, model: str) -> None:
    """Refuse more final stages than a model has for a method."""
    if last > most:
        raise VarlabError(f"{name}: last={last} is more than the {most} final stages of {model} that it can change.")


@dataclass(eq=False)
class Truncate(Accelerator):
    """Leaves out the ``last`` final stages; the canvas is decoded as it is. 0 is the dense run."""

    name = "truncate"
    blind = True
    last: int = option(help="final stages left out; more is faster and coarser")

    def __post_init__(self) -> None:
        check_last(self.name, self.last)

    def start(self, context: Context) -> None:
        stages = len(context.model.schedule)
        if self.last >= stages:
            raise VarlabError(f"truncate:last={self.last} leaves no stage of {stages}.")

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan(action="stop") if stage.from_end < self.last else RUN


@dataclass(eq=False)
class CfgOff(Accelerator):
    """Drops the unconditional branch for the ``last`` final stages: guidance 1, half the rows."""

    name = "cfg-off"
    blind = True
    last: int = option(help="final stages without guidance; more is faster and less like the dense image")

    def __post_init__(self) -> None:
        check_last(self.name, self.last)

    def start(self, context: Context) -> None:
        check_most(self.name, self.last, len(context.model.schedule), context.model.name)

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan(rows="cond") if stage.from_end < self.last else RUN

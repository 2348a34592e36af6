"""SkipVAR: decides from two high-frequency features of small previews which late work an image can do without.

After stage K-3 of K the canvas and the one a stage older are decoded on the fifth stage's grid; a first model says how
many final stages to drop, and where it says none a second one says on how many to replace the unconditional branch by
the conditional one. Follows the released code (arXiv 2506.08908), with stages counted from the end, so that other
schedules than its 13 stages work, and with one decision an image, so that a batch may split.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.baselines import check_last
from varlab.accelerators.decisions import FEATURES, DecisionModel, load
from varlab.accelerators.pickles import load_official
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.engine.images import Images
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.measures.edges import skipvar_hf_diff, skipvar_hf_ratio
from varlab.schedules import Grid
from varlab.specs import option
from varlab.weights.embedded import data_folder

LATE = 3  # final stages that a decision may change
LEAST = 8  # stages of a schedule: five before the preview's grid, and three to decide on


def features(new: Tensor, old: Tensor) -> Tensor:
    """(HF_Diff, HF_Ratio) [B, 2] of previews [B, 3, h, w] in [-1, 1], after the decision stage and one before."""
    return torch.stack([skipvar_hf_diff(new, old), skipvar_hf_ratio(new)], -1)


def decisions_file(name: str) -> Path:
    """Of the decision models beside the weights of the mini ``name``."""
    return data_folder() / name / "skipvar.json"


def decisions_at(path: Path | str | None, name: str) -> Path:
    """A JSON file or a folder of official models; for None the file beside the weights of the mini ``name``."""
    return Path(path) if path else decisions_file(name)


def read_decisions(path: Path | str | None, name: str, target: float) -> DecisionModel:
    """Where ``decisions_at`` finds them."""
    place = decisions_at(path, name)
    return load_official(place, target) if place.is_dir() else load(place, target)


class _Late(Accelerator):
    """Drops, or runs without the unconditional branch, some of the final stages of each image."""

    def strategy(self, image: int) -> tuple[int, int]:
        """(stages dropped, stages before them without the unconditional branch)."""
        raise NotImplementedError

    def plan(self, stage: Stage) -> StagePlan | list[StagePlan]:
        if stage.from_end >= LATE:
            return RUN
        plans = [self._plan(stage, *self.strategy(image)) for image in stage.samples]
        return plans[0] if all(plan is plans[0] for plan in plans) else plans

    def _plan(self, stage: Stage, dropped: int, replaced: int) -> StagePlan:
        if stage.from_end < dropped:
            return STOP
        return COND if stage.from_end < dropped + replaced else RUN


STOP, COND = StagePlan(action="stop"), StagePlan(rows="cond")


@dataclass(eq=False)
class SkipVAR(_Late):
    """Decides for each image by a model fitted to its features; the two decodes and the features are charged.

    ``model`` may also be a ``DecisionModel``, which no spec can hold.
    """

    name = "skipvar"
    needs = ("decision model",)

    target: float = option(0.86, "SSIM to the dense image that the decision model aimed at; lower is faster")
    model: str | DecisionModel | None = option(
        None, "its JSON file or a folder of the official ones; none for the file beside the weights of a mini"
    )
    grid: int = option(5, "stage, from 1, whose grid the previews have")

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise VarlabError(f"skipvar: grid counts stages from 1, got {self.grid}.")

    def files(self, model: str) -> tuple[Path, ...]:
        return () if isinstance(self.model, DecisionModel) else (decisions_at(self.model, model),)

    def start(self, context: Context) -> None:
        stages = len(context.model.schedule)
        if stages < max(LEAST, self.grid):
            raise VarlabError(
                f"skipvar decides late: it needs at least {LEAST} stages, {context.model.name} has {stages}."
            )
        if isinstance(self.model, DecisionModel):
            self.decisions = self.model
        else:
            self.decisions = read_decisions(self.model, context.model.name, self.target)
        self.decisions.check(context.model.family, stages, context.model.weights)
        self.context = context
        self.old: Tensor | None = None
        self.images: tuple[int, ...] = ()
        self.chosen: dict[int, tuple[int, int]] = {}
        self.seen: dict[int, tuple[float, float]] = {}

    def fork(self, samples: Tensor) -> Accelerator:
        twin = super().fork(samples)
        assert isinstance(twin, SkipVAR)
        twin.old = None if self.old is None else self.old[samples]
        twin.images = tuple(self.images[i] for i in samples.tolist()) if self.images else ()
        return twin

    def end_stage(self, stage: Stage, images: Images) -> None:
        if stage.from_end == LATE + 1:
            self.old = images.canvas
        if stage.from_end != LATE or self.old is None:
            return
        measured = features(self.preview(images.canvas, stage), self.preview(self.old, stage)).cpu()
        strategies = self.decisions.strategies(measured)
        for image, values, strategy in zip(stage.samples, measured.tolist(), strategies, strict=True):
            self.seen[image], self.chosen[image] = (values[0], values[1]), strategy
        self.old, self.images = None, stage.samples

    def preview(self, canvas: Tensor, stage: Stage) -> Tensor:
        """The picture that features are taken of [B, 3, h, w] in [-1, 1]."""
        latent: Grid = self.context.model.latent_grid(self.context.model.schedule.grids[self.grid - 1])
        return self.context.preview(canvas, latent, stage, charge=True) * 2 - 1

    def strategy(self, image: int) -> tuple[int, int]:
        return self.chosen.get(image, (0, 0))

    def report(self) -> dict[str, Any]:
        """The two features, the stages dropped and those without the unconditional branch; how probable either model
        finds each number of stages. Nothing where no image got to a decision."""
        if not self.images:
            return {}
        measured = torch.tensor([self.seen[image] for image in self.images])
        chosen = np.array([self.chosen[image] for image in self.images])
        columns = [*measured.numpy().T, *chosen.T]
        report: dict[str, Any] = {
            name: ((), values, "") for name, values in zip((*FEATURES, "drop", "replace"), columns, strict=True)
        }
        for name, model in (("drop", self.decisions.skip), ("replace", self.decisions.uncond)):
            report[f"{name}_probability"] = (("stages",), model.probabilities(measured, LATE + 1), "")
        fitted = {"weights": self.decisions.weights, "stages": self.decisions.stages, **self.decisions.facts}
        fitted |= {"skip": asdict(self.decisions.skip), "uncond": asdict(self.decisions.uncond)}
        return report | {"target": self.target, "decision_model": fitted}


@dataclass(eq=False)
class SkipVARHybrid(_Late):
    """A fixed schedule for every image.

    The paper's "hybrid (w/o DM)" is not published in full; replacing one stage and dropping two gives its speed-up.
    """

    name = "skipvar-hybrid"

    drop: int = option(2, "final stages left out")
    replace: int = option(1, "stages before them without the unconditional branch")

    def __post_init__(self) -> None:
        check_last(self.name, min(self.drop, self.replace))
        if self.drop + self.replace > LATE:
            raise VarlabError(
                f"skipvar-hybrid: drop + replace may be at most {LATE}, got {self.drop} + {self.replace}."
            )

    def strategy(self, image: int) -> tuple[int, int]:
        return self.drop, self.replace

    def outline(self, stage: Stage) -> StagePlan:
        return self._plan(stage, self.drop, self.replace)

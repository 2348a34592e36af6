"""A complete accelerator to start from: keeps the tokens around which the canvas is roughest."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from varlab.accelerators import Entry
from varlab.accelerators.anchors import resize
from varlab.accelerators.pruning import TokenPruning
from varlab.engine.hooks import Accelerator
from varlab.engine.stage import Stage

if TYPE_CHECKING:
    from varlab.engine.loop import Run
    from varlab.engine.state import State


class Roughness(TokenPruning):
    """Keeps where neighbouring codes of the canvas differ most; its options are those of all token pruning."""

    name = "roughness"

    def start(self, run: "Run") -> None:
        super().start(run)
        self.canvas: Tensor | None = None  # no state may survive from the batch before

    def end_stage(self, stage: Stage, state: "State") -> None:
        super().end_stage(stage, state)  # notes which tokens were computed
        self.canvas = state.canvas

    def fork(self, samples: Tensor) -> Accelerator:
        twin = super().fork(samples)
        assert isinstance(twin, Roughness)
        twin.canvas = None if self.canvas is None else self.canvas[samples]
        return twin

    def scores(self, stage: Stage) -> Tensor:
        if self.canvas is None:  # the very first stage: nothing is known yet
            return torch.zeros(1, stage.grid[0] * stage.grid[1], device=self.run.model.device)
        rough = torch.zeros_like(self.canvas[:, 0])
        rough[:, 1:] += self.canvas.diff(dim=2).square().sum(1)
        rough[:, :, 1:] += self.canvas.diff(dim=3).square().sum(1)
        self.run.charge(stage, 6 * self.canvas.numel())
        height, width = self.canvas.shape[-2:]
        return resize(rough.flatten(1), (height, width), stage.grid, "area")


ENTRY = Entry(Roughness, neutral="roughness:keep=1", engaging="roughness:keep=0.3,last=2")

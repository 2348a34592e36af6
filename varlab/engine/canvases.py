"""A probe that keeps every canvas, for the dense runs that methods look at."""

from torch import Tensor

from varlab.engine.hooks import Probe
from varlab.engine.stage import Stage


class CanvasKeeper(Probe):
    """Only for runs without accelerators, where no batch is split."""

    name = "canvases"

    def __init__(self) -> None:
        self.canvases: list[Tensor] = []

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        if not self.canvases:
            self.canvases.append(before)
        self.canvases.append(canvas)

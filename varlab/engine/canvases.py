"""A probe that keeps every canvas, for the dense runs that methods look at."""

from collections.abc import Callable, Sequence

from torch import Tensor

from varlab.engine.dense import Dense
from varlab.engine.hooks import Probe
from varlab.engine.stage import Stage


class CanvasStore(Probe):
    """Only for runs without accelerators, where no batch is split."""

    name = "canvases"

    def __init__(self) -> None:
        self.canvases: list[Tensor] = []

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        if not self.canvases:
            self.canvases.append(before)
        self.canvases.append(canvas)

    def dense(self, samples: Sequence[int], decode: Callable[[Tensor], Tensor], image: Tensor) -> Dense:
        """The run that it listened to, once this is its image."""
        return Dense(tuple(samples), self.canvases, decode, {len(self.canvases) - 1: image})

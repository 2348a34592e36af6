"""What hooks and the helpers of the loop know of a run: what is fixed for a batch, its account, work that is shared."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from varlab.engine.dense import Dense
from varlab.engine.ledger import Ledger
from varlab.engine.memory import Buffers
from varlab.engine.norms import norms
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.randomness import Noise
from varlab.engine.stage import Stage
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.schedules import Grid


@dataclass
class Context:
    """``dense``: the dense run of the same images, where a method needs one. ``buffers``: for small tensors that a hook
    keeps of every block."""

    model: NextScaleModel
    settings: Settings
    noise: Noise
    ledger: Ledger
    dense: Dense | None = None

    def __post_init__(self) -> None:
        self.buffers = Buffers(self.model.device)
        self._previewed: tuple[Tensor, Grid, Tensor] | None = None
        self._lengths = WeakTensorKeyDictionary()

    def stage(self, k: int, samples: tuple[int, ...], guided: bool, plan: StagePlan = RUN) -> Stage:
        """A stage as hooks are told of it."""
        guidance = self.model.guidance(k, self.settings, guided, plan.scale)
        return Stage(k, self.model.schedule, samples, plan, guidance, guided)

    def preview(self, canvas: Tensor, grid: Grid, stage: Stage, charge: bool = False) -> Tensor:
        """Images [B, 3, h, w] of the canvas resized to a latent grid; hooks that ask for the same one share it.

        An accelerator that decides by it says ``charge``: the decode then counts as its overhead.
        """
        if charge:
            self.charge(stage, self.model.decode_cost(grid).total * stage.batch)
        if self._previewed is None or self._previewed[0] is not canvas or self._previewed[1] != grid:
            self._previewed = (canvas, grid, self.model.decode(self.model.resize(canvas, grid)))
        return self._previewed[2]

    def lengths(self, x: Tensor) -> Tensor:
        """Norms over channels of tokens [R, n, C] -> [R, n]; hooks that ask for the same tensor share them."""
        if x not in self._lengths:
            self._lengths[x] = torch.linalg.vector_norm(x, dim=-1)
        return self._lengths[x]

    def all_lengths(self, tokens: Sequence[Tensor]) -> Sequence[Tensor]:
        """``lengths`` of several tensors of one shape."""
        new = list({id(x): x for x in tokens if x not in self._lengths}.values())
        self._lengths.update(zip(new, norms(new, self.buffers), strict=True))
        return [self.lengths(x) for x in tokens]

    def charge(self, stage: Stage, flops: int) -> None:
        """Work that an accelerator spends on scores, fills and decisions."""
        self.ledger.stages[stage.index].overhead_flops += flops

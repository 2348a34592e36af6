"""What hooks and the helpers of the loop know of a run: what is fixed for a batch, its account, work that is shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from varlab.engine.dense import Dense
from varlab.engine.ledger import Ledger
from varlab.engine.memory import Buffers
from varlab.engine.norms import norms, small, together
from varlab.engine.overflow import Overflow
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.previews import Previews
from varlab.engine.randomness import Noise
from varlab.engine.stage import Stage
from varlab.machine import DTYPES
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
        self.previews = Previews(self.model)
        self.overflow = Overflow() if DTYPES.get(self.model.precision) == torch.float16 else None
        self._lengths: dict[int, tuple[ReferenceType[Tensor], Tensor]] = {}  # by id, while the tensor lives

    def stage(self, k: int, samples: tuple[int, ...], guided: bool, plan: StagePlan = RUN) -> Stage:
        """A stage as hooks are told of it."""
        guidance = self.model.guidance(k, self.settings, guided, plan.scale)
        return Stage(k, self.model.schedule, samples, plan, guidance, guided)

    def preview(self, canvas: Tensor, grid: Grid, stage: Stage, charge: bool = False) -> Tensor:
        """Images [B, 3, h, w] of the canvas resized to a latent grid, now; hooks that ask for the same one share it.

        An accelerator that decides by it says ``charge``: the decode then counts as its overhead.
        """
        if charge:
            self.charge(stage, self.model.decode_cost(grid).total * stage.batch)
        return self.previews.now(canvas, grid)

    def lengths(self, tokens: Sequence[Tensor]) -> Tensor:
        """Norms over channels of tokens [R, n, C] each, of one shape -> [m, R, n]; hooks that ask for the same tensor
        share them."""
        known = self._lengths
        if new := list({id(x): x for x in tokens if id(x) not in known}.values()):
            parts = [together(new)] if small(new[0]) else [x[None] for x in new]
            found = [length for part in parts for length in norms(part, self.buffers)]
            for x, length in zip(new, found, strict=True):
                known[id(x)] = ref(x, partial(_forget, known, id(x))), length
        return together([known[id(x)][1] for x in tokens])

    def charge(self, stage: Stage, flops: int) -> None:
        """Work that an accelerator spends on scores, fills and decisions."""
        self.ledger.stages[stage.index].overhead_flops += flops


def _forget(known: dict[int, tuple[ReferenceType[Tensor], Tensor]], key: int, _: object) -> None:
    known.pop(key, None)

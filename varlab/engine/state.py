"""A group of images with the methods that change how it runs, and what comes of them."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from varlab.engine.hooks import Accelerator
from varlab.engine.images import Images
from varlab.engine.ledger import Ledger
from varlab.engine.memory import upload
from varlab.engine.plan import StagePlan, stays_guided


@dataclass
class State(Images):
    """A group of images on their way through the stages, and their methods."""

    accelerators: list[Accelerator] = field(default_factory=list)

    def fork(self, index: list[int]) -> "State":
        """The state of some of the images, on its own from here on."""
        samples = upload(torch.tensor(index), self.canvas.device)
        rows = torch.cat([samples, samples + self.batch]) if self.guided else samples
        return replace(
            self,
            samples=tuple(self.samples[i] for i in index),
            conditioning=self.conditioning.rows(rows),
            canvas=self.canvas[samples],
            kv=self.kv.rows(rows),
            accelerators=[a.fork(samples) for a in self.accelerators],
            attended=dict(self.attended),
        )

    def with_methods(self, accelerators: list[Accelerator]) -> "State":
        """These images once more from here, with other methods. Both write into the same buffers of keys and values:
        run one to its end before the other goes on."""
        return replace(self, kv=self.kv.rows(slice(None)), accelerators=accelerators, attended=dict(self.attended))

    def set_rows(self, plan: StagePlan, k: int) -> None:
        """Drop the unconditional rows if asked to. One way: their keys would be stale if they came back."""
        if stays_guided(plan, k, self.guided) != self.guided:
            rows = torch.arange(self.batch, device=self.canvas.device)
            self.conditioning, self.guided = self.conditioning.rows(rows), False
            self.kv = self.kv.rows(slice(self.batch))


@dataclass
class Generation:
    """``image`` [B, 3, H, W] in [0, 1] and ``canvas`` in the order of the samples; the groups' last states."""

    image: Tensor
    canvas: Tensor
    ledger: Ledger
    states: list[State]

    @property
    def reports(self) -> dict[tuple[int, ...], dict[str, dict[str, Any]]]:
        """Images of a group -> method -> what it reports (keep ratios, decisions)."""
        return {state.samples: {a.name: a.report() for a in state.accelerators} for state in self.states}

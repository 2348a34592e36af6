"""A dense run kept for methods that may look at it: oracles, whose own cost is never counted as a saving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from varlab.engine.memory import upload


@dataclass(frozen=True)
class Dense:
    """``canvases``: before the first stage and after each [stages + 1][B, b, H, W]; decoded when they are looked at."""

    samples: tuple[int, ...]
    canvases: Sequence[Tensor]
    decode: Callable[[Tensor], Tensor]
    images: dict[int, Tensor] = field(default_factory=dict)  # those that are decoded, by the stages that they ran

    def after(self, stages: int, samples: Sequence[int]) -> Tensor:
        """Pictures [n, 3, H, W] of these images after so many stages."""
        if stages not in self.images:
            self.images[stages] = self.decode(self.canvases[stages])
        order = upload(torch.tensor([self.samples.index(image) for image in samples]), self.canvases[0].device)
        return self.images[stages][order]

    def decoded(self) -> "Dense":
        """All decoded, so that nobody's time holds a decode."""
        for stages in range(len(self.canvases)):
            self.after(stages, self.samples)
        return self

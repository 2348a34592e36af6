"""A dense run kept for methods that may look at it: oracles, whose own cost is never counted as a saving."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from varlab.engine.memory import upload


@dataclass(frozen=True)
class Dense:
    """``canvases``: before the first stage and after each [stages + 1][B, b, H, W]; ``images`` the same, decoded."""

    samples: tuple[int, ...]
    canvases: list[Tensor]
    images: list[Tensor]

    @property
    def image(self) -> Tensor:
        return self.images[-1]

    def after(self, stages: int, samples: Sequence[int]) -> Tensor:
        """Pictures [n, 3, H, W] of these images after so many stages."""
        order = upload(torch.tensor([self.samples.index(image) for image in samples]), self.image.device)
        return self.images[stages][order]

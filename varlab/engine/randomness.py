"""Random numbers keyed by seed, image and stage, drawn for the full grid.

So a seed means the same image for any batch size, split or accelerator.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Noise(Protocol):
    """Uniform numbers in [0, 1) [B, *shape] for the images ``samples`` at a stage; ``kind`` separates uses."""

    def uniform(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """The numbers of these images at a stage, the same whichever images are asked for together."""
        ...


class SeededNoise:
    """The default: one counter-based stream for each (seed, image, stage, kind)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniform(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """[len(samples), *shape] on the CPU, so that every device draws the same."""
        tag = int.from_bytes(kind.encode(), "little")
        return torch.stack([torch.from_numpy(self._draw((self.seed, image, stage, tag), shape)) for image in samples])

    @staticmethod
    def _draw(key: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        bits = np.random.Philox(np.random.SeedSequence(key))
        return np.random.Generator(bits).random(shape, dtype=np.float32)

"""Random numbers keyed by seed, image and stage, drawn for the full grid.

So a seed means the same image for any batch size, split or accelerator.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Noise(Protocol):
    """Random numbers [B, *shape] for the images ``samples`` at a stage; ``kind`` separates uses.

    The numbers of an image are the same whichever images are asked for together.
    """

    def uniform(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """In [0, 1)."""
        ...

    def normal(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """Of mean 0 and variance 1."""
        ...

    def exponential(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """Of mean 1."""
        ...


class SeededNoise:
    """The default: one counter-based stream for each (seed, image, stage, kind)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniform(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """[len(samples), *shape] on the CPU, so that every device draws the same."""
        return self._stack(kind, stage, samples, lambda generator: generator.random(shape, dtype=np.float32))

    def normal(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return self._stack(kind, stage, samples, lambda generator: generator.standard_normal(shape, dtype=np.float32))

    def exponential(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return self._stack(
            kind, stage, samples, lambda generator: generator.standard_exponential(shape, dtype=np.float32)
        )

    def _stack(
        self, kind: str, stage: int, samples: Sequence[int], draw: Callable[[np.random.Generator], np.ndarray]
    ) -> Tensor:
        tag = int.from_bytes(kind.encode(), "little")
        keys = [(self.seed, image, stage, tag) for image in samples]
        generators = [np.random.Generator(np.random.Philox(np.random.SeedSequence(key))) for key in keys]
        return torch.stack([torch.from_numpy(draw(generator)) for generator in generators])

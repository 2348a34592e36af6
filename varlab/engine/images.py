"""The tensors of a group of images on their way through the stages."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from varlab.engine.kv import KVStore


@dataclass
class Images:
    """What the stages have made of a group of images so far; ``samples`` are their numbers.

    R rows are [conditional..., unconditional...] while ``guided``, else the conditional ones alone.
    """

    samples: tuple[int, ...]
    conditioning: Any
    canvas: Tensor
    kv: KVStore
    guided: bool
    stages_run: int = 0
    attended: dict[int, int] = field(default_factory=dict)  # block -> the last stage whose keys it holds

    @property
    def batch(self) -> int:
        return len(self.samples)

    @property
    def rows(self) -> int:
        return self.batch * (2 if self.guided else 1)

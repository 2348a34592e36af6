"""Dense images, drawn once for all who compare with them: a file a batch, named by all that decides its bits."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from varlab.machine import device_name
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.runs.origins import contents
from varlab.runs.store import Store, packed, unpacked

VERSION = 1  # raised when the engine draws other bits: images of before are drawn again


@dataclass(frozen=True)
class DenseImages:
    """``place``: a folder, or any URL of fsspec; it serves sweeps, comparisons and benchmarks at once."""

    store: Store

    @classmethod
    def at(cls, place: Path | str | None) -> "DenseImages | None":
        return None if place is None else cls(Store.at(place))

    def read(self, batch: "Batch") -> Tensor | None:
        """Images [B, 3, H, W] in [0, 1], in fp32 on the CPU; None where they are not there, or damaged."""
        found = unpacked(self.store.read(batch.name))
        return None if found is None else torch.from_numpy(found)

    def write(self, batch: "Batch", images: Tensor) -> None:
        self.store.write(batch.name, packed(images.cpu().numpy()))


@dataclass(frozen=True)
class Batch:
    """Images ``first`` to ``first + len(texts)`` of a seed, drawn at once: the last bits depend on the batch."""

    model: NextScaleModel
    settings: Settings
    seed: int
    first: int
    texts: Sequence[str]

    @property
    def name(self) -> str:
        model = self.model
        facts = [
            VERSION, model.name, str(model.weights), getattr(model.weights, "content", {}), model.precision,
            model.execution, device_name(model.device), torch.get_num_threads(), model.schedule.grids,
            asdict(self.settings), self.seed, self.first, list(self.texts),
        ]  # fmt: skip
        if more := contents(model):
            facts.append(more)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:20] + ".npy"

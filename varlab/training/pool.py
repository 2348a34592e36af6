"""A pool of scenes rendered once: memory-mapped images and their captions, shared by all workers."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.errors import VarlabError
from varlab.scenes import SCENE_VERSION

CHUNK = 2000
Make = Callable[[int, int], tuple[np.ndarray, list[str]]]  # (n, first) -> images, captions


class ScenePool:
    """``images`` uint8 [n, size, size, 3] on disk and ``captions``. Batches are drawn by (seed, step, rank)."""

    def __init__(self, folder: Path) -> None:
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.captions: list[str] = json.loads((folder / "captions.json").read_text())

    def __len__(self) -> int:
        return len(self.captions)

    def indices(self, batch: int, seed: int, step: int, rank: int) -> np.ndarray:
        """Uniform draws with replacement: a pure function of its arguments."""
        return np.random.default_rng((seed, step, rank)).integers(0, len(self), batch)

    def batch_of_images(self, batch: int, seed: int, step: int, rank: int) -> Tensor:
        return torch.from_numpy(self.images[np.sort(self.indices(batch, seed, step, rank))])


def build_pool(
    folder: Path,
    n: int,
    seed: int,
    size: int,
    make: Make,
    scene_version: str = SCENE_VERSION,
    categories: Mapping[str, float] | None = None,
) -> ScenePool:
    """Render the pool if it is not there; a finished one of other settings is refused."""
    meta: dict[str, Any] = {"n": n, "seed": seed, "size": size, "scene_version": scene_version}
    if categories is not None:
        meta["categories"] = dict(categories)
    record = folder / "pool.json"
    if record.exists():
        found = json.loads(record.read_text())
        if found != meta:
            raise VarlabError(f"{folder} holds another scene pool: {found}, asked for {meta}. Give another run folder.")
        return ScenePool(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (n, size, size, 3))
    captions: list[str] = []
    for first in range(0, n, CHUNK):
        count = min(CHUNK, n - first)
        part, texts = make(count, first)
        images[first : first + count] = part
        captions += texts
    images.flush()
    (folder / "captions.json").write_text(json.dumps(captions))
    record.write_text(json.dumps(meta))
    return ScenePool(folder)

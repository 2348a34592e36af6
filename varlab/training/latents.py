"""The pool as latents: encoded once, shared by all workers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from varlab.training.loop import write_atomically
from varlab.training.pool import ScenePool
from varlab.training.precision import autocast
from varlab.training.tokenizer import to_signed


def encode_pool(
    pool: ScenePool, encode: Callable[[Tensor], Tensor], path: Path, device: str = "cpu", batch: int = 100
) -> np.ndarray:
    """Latents before quantisation of the whole pool, fp16 [n, c, h, w], kept beside the run."""

    def write(part: Path) -> None:
        shape = (len(pool), *encode_batch(pool, encode, 0, 1, device).shape[1:])
        with part.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(pool), batch):
                file.write(encode_batch(pool, encode, start, batch, device).tobytes())

    if not path.exists():
        write_atomically(path, write)
    return np.load(path, mmap_mode="r")


@torch.inference_mode()
def encode_batch(
    pool: ScenePool, encode: Callable[[Tensor], Tensor], start: int, count: int, device: str
) -> np.ndarray:
    images = torch.from_numpy(np.array(pool.images[start : start + count])).to(device)
    with autocast(device):
        return encode(to_signed(images)).half().cpu().numpy()

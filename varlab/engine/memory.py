"""Memory of a run on its device: pages that the process keeps, room for what stays, copies that nobody waits for."""

import ctypes
import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from varlab.machine import give_back_pages

LARGE = 1 << 28  # bytes freed at once above which clearing their pages anew takes less than what it saves
PIECE = 1 << 20  # elements that it asks for at once
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


@cache
def keep_freed_pages() -> None:
    """On Linux, let the process keep the memory of freed tensors for the next ones, up to 256 MiB each.

    By default glibc asks the system anew for every tensor above 32 MiB, and clearing those pages costs more time than
    most operations on them. The process then holds its peak until it ends. Elsewhere nothing is changed.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 28)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return


def release_pages(freed: int, device: torch.device) -> None:
    """Let the system have the pages of so many bytes that were just freed in parts too small for what comes next."""
    if device.type == "cpu" and freed > LARGE:
        give_back_pages()


class Buffers:
    """Room for small tensors that outlive the large ones around them, cut from pieces of ``PIECE`` elements.

    On a CPU each would otherwise take a bite out of the place of a freed large tensor, where the next one then no
    longer fits: with a few figures kept of every block, a run would end up with twice the memory that it needs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.free: dict[torch.dtype, Tensor] = {}

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor that nobody has written yet; one that fills much of a piece has its own."""
        count, free = math.prod(shape), self.free.get(dtype)
        if count > PIECE // 8:
            return torch.empty(tuple(shape), dtype=dtype, device=self.device)
        if free is None or free.numel() < count:
            free = torch.empty(PIECE, dtype=dtype, device=self.device)
        self.free[dtype] = free[count:]
        return free[:count].view(tuple(shape))


def upload(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device of a run; one of the CPU comes without waiting for what the device still computes."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)

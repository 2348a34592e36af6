"""What a run sets on its device: pages that the process keeps, fp32 products; copies that nobody waits for."""

import ctypes
from functools import cache

import torch
from torch import Tensor

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def prepare_device(device: torch.device, precision: str) -> None:
    """On a GPU, a model in fp32 computes in fp32, convolutions too; what a model in bf16 still holds in fp32 may go
    through tensor cores, whose TF32 has more bits than bf16."""
    if device.type == "cpu":
        keep_freed_pages()
    elif device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "bf16"


@cache
def keep_freed_pages() -> None:
    """On Linux, let the process keep the memory of freed tensors for the next ones, up to 1 GiB each.

    By default glibc asks the system anew for every tensor above 32 MiB, and clearing those pages costs more time than
    most operations on them. The process then holds its peak until it ends. Elsewhere nothing is changed.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return


def upload(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device of a run, without waiting for what the device still computes."""
    if device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)

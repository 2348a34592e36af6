"""Tensors to bytes: the hash that names weights, and a safetensors file written one tensor at a time."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from varlab.writing import beside

Report = Callable[[int, int], None]  # bytes done, bytes in all


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of a sha256 over names, types, shapes and bytes, in order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}


def write_safetensors(
    target: Path, tensors: Mapping[str, tuple[Tensor, torch.dtype]], metadata: Mapping[str, str], report: Report
) -> None:
    """Write tensors cast to the given types, one at a time, to a file that appears only when it is whole.

    An own writer, because ``safetensors.torch.save_file`` takes all tensors at once, in their final type: the
    cast copy of a whole model would be in memory. Here it is that of one tensor. ``report`` counts bytes.
    Raises VarlabError when the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (tensor, dtype) in tensors.items():
        start, end = end, end + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with beside(target) as part, part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (tensor, dtype) in tensors.items():
            file.write(tensor.detach().cpu().to(dtype).contiguous().view(-1).view(torch.uint8).numpy().data)
            report(header[name]["data_offsets"][1], end)

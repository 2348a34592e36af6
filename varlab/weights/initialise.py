"""Random weights: repeatable by seed and name, at a scale that keeps activations of order one."""

import hashlib
import math

import torch
from torch import nn

from varlab.weights.fitting import constants, dtype_of


def _spread(name: str, shape: torch.Size) -> tuple[float, float]:
    """Mean and standard deviation that keep activations of order one."""
    if name.endswith("scale_mul_1H11"):
        return math.log(4.0), 0.0
    if name.endswith("ema_vocab_hit_SV"):
        return 0.0, 0.0
    if len(shape) == 1:
        return (1.0, 0.0) if name.endswith("weight") else (0.0, 0.0)  # the gain of a norm, or a bias
    inputs = shape[-1] if not name.endswith("weight") else math.prod(shape[1:])
    return 0.0, inputs**-0.5


def randomise(module: nn.Module, seed: int = 0, precision: str = "fp32", device: str = "cpu") -> None:
    """Fill a module built on the meta device with random weights, each tensor at once in its final type.

    A tensor depends on the seed and its name alone, on every device, and bf16 weights are the fp32 ones rounded.
    Takes the memory of the module and a megabyte; about 10 s per billion weights on one core.
    """
    buffer, values, known = torch.empty(1 << 18), {}, constants(module)
    for name, tensor in module.state_dict().items():
        fixed = known.get(name)
        mean, deviation = _spread(name, tensor.shape)
        value = torch.full(tensor.shape, mean, dtype=dtype_of(name, tensor.dtype, precision), device=device)
        if fixed is not None:
            value.copy_(fixed)
        elif deviation:
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            for part in value.view(-1).split(len(buffer)):
                part.copy_(buffer.normal_(0, deviation, generator=generator)[: len(part)])
        values[name] = value
    module.load_state_dict(values, assign=True)

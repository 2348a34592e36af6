"""Published peak rates of GPUs, for predictions: dense products, without structured sparsity. None of them measured.

Sources: NVIDIA's data sheets of H200 and H100 SXM, A100 SXM 80 GB, L40 and T4, its Ada (GeForce RTX 4090) and Ampere
GA102 (GeForce RTX 3090) architecture papers; of GeForce cards the rates with sums in fp32.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from varlab.errors import VarlabError, unknown

TERA, GIGA = 1e12, 1e9
BOTH = ("bf16", "fp16")


@dataclass(frozen=True)
class Device:
    """``rates``: FLOP/s of matrix products by precision; ``bandwidth``: bytes/s of its memory, of ``memory`` bytes;
    ``tf32``: FLOP/s of what a model in half precision holds in fp32, by tensor cores where they take it."""

    name: str
    rates: Mapping[str, float]
    bandwidth: float
    memory: float
    tf32: float


def _gpu(
    name: str, half: float, fp32: float, tf32: float, bandwidth: float, memory: float, kinds: tuple[str, ...] = BOTH
) -> Device:
    """In TFLOP/s, GB/s and bytes. ``kinds`` of half precision that it has units for."""
    rates = {**dict.fromkeys(kinds, half * TERA), "fp32": fp32 * TERA}
    return Device(name, rates, bandwidth * GIGA, memory, tf32 * TERA)


DEVICES = {
    "h200": _gpu("NVIDIA H200 SXM", 989, 67, 494.5, 4800, 141e9),
    "h100": _gpu("NVIDIA H100 SXM", 989, 67, 494.5, 3350, 80e9),
    "a100-80": _gpu("NVIDIA A100 80 GB", 312, 19.5, 156, 2039, 80e9),
    "4090": _gpu("GeForce RTX 4090", 165.2, 82.6, 82.6, 1008, 24 * 2**30),
    "l40": _gpu("NVIDIA L40", 181, 90.5, 90.5, 864, 48 * 2**30),
    "3090": _gpu("GeForce RTX 3090", 71, 35.6, 35.6, 936, 24 * 2**30),
    "t4": _gpu("NVIDIA T4", 65, 8.1, 8.1, 320, 16 * 2**30, ("fp16",)),
}
SIZE = re.compile(r"(\d+(?:\.\d+)?)GiB")


def absent(name: str) -> bool:
    """Whether this names a device of the table or a bare size of memory, and not one of torch."""
    return name in DEVICES or SIZE.fullmatch(name) is not None


def described(name: str) -> tuple[Device | None, float]:
    """The device, None for a bare size such as 24GiB, and its bytes of memory. Raises VarlabError for other names."""
    if (size := SIZE.fullmatch(name)) is not None:
        return None, float(size[1]) * 2**30
    if name not in DEVICES:
        raise unknown("device", name, [*DEVICES, "24GiB", "cpu", "cuda"])
    return DEVICES[name], DEVICES[name].memory


def rate_of(device: Device, precision: str) -> float:
    if precision not in device.rates:
        raise VarlabError(f"{device.name} has no fast {precision}: take one of {', '.join(device.rates)}.")
    return device.rates[precision]

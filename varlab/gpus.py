"""Published peak rates of GPUs, for predictions: dense products, without structured sparsity. None of them measured.

Sources: NVIDIA's data sheets of H200 and H100 SXM, A100 SXM 80 GB, L40 and T4, its Ada (GeForce RTX 4090) and Ampere
GA102 (GeForce RTX 3090) architecture papers; of GeForce cards the rates with sums in fp32.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from varlab.errors import VarlabError, unknown

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Device:
    """``rates``: FLOP/s of matrix products by precision; ``bandwidth``: bytes/s of its memory, of ``memory`` bytes;
    ``tf32``: FLOP/s of what a model in half precision holds in fp32, by tensor cores where they take it."""

    name: str
    rates: Mapping[str, float]
    bandwidth: float
    memory: float
    tf32: float


DEVICES = {
    "h200": Device(
        "NVIDIA H200 SXM", {"bf16": 989 * TERA, "fp16": 989 * TERA, "fp32": 67 * TERA}, 4.8 * TERA, 141e9, 494.5 * TERA
    ),
    "h100": Device(
        "NVIDIA H100 SXM", {"bf16": 989 * TERA, "fp16": 989 * TERA, "fp32": 67 * TERA}, 3.35 * TERA, 80e9, 494.5 * TERA
    ),
    "a100-80": Device(
        "NVIDIA A100 80 GB",
        {"bf16": 312 * TERA, "fp16": 312 * TERA, "fp32": 19.5 * TERA},
        2.039 * TERA,
        80e9,
        156 * TERA,
    ),
    "4090": Device(
        "GeForce RTX 4090",
        {"bf16": 165.2 * TERA, "fp16": 165.2 * TERA, "fp32": 82.6 * TERA},
        1.008 * TERA,
        24 * 2**30,
        82.6 * TERA,
    ),
    "l40": Device(
        "NVIDIA L40", {"bf16": 181 * TERA, "fp16": 181 * TERA, "fp32": 90.5 * TERA}, 864 * GIGA, 48 * 2**30, 90.5 * TERA
    ),
    "3090": Device(
        "GeForce RTX 3090",
        {"bf16": 71 * TERA, "fp16": 71 * TERA, "fp32": 35.6 * TERA},
        936 * GIGA,
        24 * 2**30,
        35.6 * TERA,
    ),
    "t4": Device("NVIDIA T4", {"fp16": 65 * TERA, "fp32": 8.1 * TERA}, 320 * GIGA, 16 * 2**30, 8.1 * TERA),
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

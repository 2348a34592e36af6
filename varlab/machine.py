"""What the device at hand can do, measured here and now: matrix products, attention, memory; and its clocks."""

import ctypes
import gc
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.context import fixed_context
from varlab.errors import VarlabError, quoted

DIFFUSION = "-diffusion"  # after bf16 or fp16: HART's diffusion head is in that type too
DTYPES = {  # of products, by precision
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "bf16-weights": torch.float32,
    "int8": torch.float32,
    f"bf16{DIFFUSION}": torch.bfloat16,
    f"fp16{DIFFUSION}": torch.float16,
}


@dataclass(frozen=True)
class Rates:
    """``matmul`` and ``attention`` in FLOP/s (two a multiply-add), ``bandwidth`` in bytes/s read and written."""

    matmul: float
    attention: float
    bandwidth: float

    def seconds(self, linear: float, attention: float, moved: float = 0.0) -> tuple[float, float]:
        """The least time for so many operations, and for moving so many bytes."""
        return linear / self.matmul + attention / self.attention, moved / self.bandwidth


def usable(name: str) -> torch.device:
    """The device of a name. Raises VarlabError for one that torch does not know or cannot use here."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        missing = isinstance(error, NotImplementedError)  # whose first line lists all that torch was built for
        cause = "this torch or this machine has none" if missing else str(error).splitlines()[0]
        raise VarlabError(f"device {quoted(name)} cannot be used: {cause}. Take cpu.") from error
    return torch.device(name)


def now(device: torch.device) -> float:
    """Seconds on the wall, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


@contextmanager
def named_gaps(device: torch.device) -> Iterator[None]:
    """What torch cannot compute on Apple's GPU ends in a VarlabError that names the operation."""
    try:
        yield
    except (NotImplementedError, TypeError) as error:
        if device.type != "mps" or "MPS" not in str(error):
            raise
        found = re.search(r"aten::[\w.]+", str(error))
        what = f"has no {found.group()}" if found else f"cannot do this ({str(error).splitlines()[0]})"
        raise VarlabError(f"torch {what} on mps: take cpu, or set PYTORCH_ENABLE_MPS_FALLBACK=1.") from error


def fastest(call: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Seconds of a call in the best of some rounds; a first one warms up. On a GPU a round is many calls, since waiting
    for the device takes as long as a short one."""
    found, calls = [], 1 if device.type == "cpu" else 20
    for _ in range(repeats + 1):
        start = now(device)
        for _ in range(calls):
            call()
        found.append((now(device) - start) / calls)
    return min(found[1:])


@torch.inference_mode()
@fixed_context()
def rates(
    device: torch.device,
    precision: str,
    width: int = 1024,
    head_width: int = 128,
    tokens: int = 2048,
    rows: int = 2,
    keys: int = 4096,
) -> Rates:
    """Rates at shapes of a late stage: width x 4 width products, dense attention of ``tokens`` to ``keys``."""
    dtype, heads = DTYPES[precision], max(1, width // head_width)
    generator = torch.Generator(device).manual_seed(0)  # the caller's own numbers stay undrawn

    def filled(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator).to(dtype)

    x, weight, bias = filled(rows, tokens, width), filled(4 * width, width), filled(4 * width)
    product = fastest(lambda: F.linear(x, weight, bias), device)
    q, k = filled(rows, heads, tokens, head_width), filled(rows, heads, keys, head_width)
    attended = fastest(lambda: F.scaled_dot_product_attention(q, k, k, scale=1.0), device)
    source = torch.ones((1 << 30 if device.type == "cuda" else 1 << 26) // 4, device=device)
    target = torch.empty_like(source)
    copied = fastest(lambda: target.copy_(source), device)
    return Rates(
        matmul=2 * rows * tokens * 4 * width**2 / product,
        attention=4 * rows * tokens * keys * heads * head_width / attended,
        bandwidth=2 * source.numel() * source.element_size() / copied,
    )


def clocks(device: torch.device) -> dict[str, float]:
    """Clock in MHz and power in watts, as far as the system tells; {} where it does not."""
    if device.type == "cuda":
        command = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits"]
        command.append(f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}")
        try:
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
            return dict(zip(("MHz", "watts"), map(float, line.split(",")), strict=True))
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
            return {}
    found = [float(line.split(":")[1]) for line in _cpuinfo().splitlines() if line.startswith("cpu MHz")]
    return {"MHz": sum(found) / len(found)} if found else {}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"mps ({torch.backends.mps.get_name()})"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            return f"cpu ({line.split(':', 1)[1].strip()})"
    return f"cpu ({platform.machine()})"


def device_facts(device: torch.device) -> dict[str, str | float]:
    """What a device is: name, memory in GiB, the versions around it, clock and power now; of a CPU its clock alone."""
    if device.type != "cuda":
        return {"device": device.type, **clocks(device)}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": str(torch.version.cuda),
        **clocks(device),
    }


def has_bf16_units(device: torch.device) -> bool:
    """Whether bf16 products run on matrix units: tensor cores, or AMX; those of AVX-512 are vectors."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in _cpuinfo().split()


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16 products, if only those of AVX-512 or of ARM. Elsewhere torch takes
    number by number: 5 to 60 times the time of fp32."""
    return has_bf16_units(device) or (
        device.type == "cpu" and not {"avx512_bf16", "bf16"}.isdisjoint(_cpuinfo().split())
    )


def half(device: torch.device) -> str:
    """The half precision that a device has units for: fp16 on a GPU that only emulates bf16, such as a T4 or V100, and
    on Apple's."""
    emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "fp16" if emulated or device.type == "mps" else "bf16"


def _cpuinfo() -> str:
    """What Linux tells of the processor; empty elsewhere."""
    return Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""


def reset_peak(device: torch.device) -> bool:
    """Forget earlier peaks: of torch's allocator on a GPU, of the process on Linux. Whether that worked.

    A process keeps the pages of freed tensors, which would count as the next run's: they are given back before, and the
    next run asks for them anew, which takes it time.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if not give_back_pages():
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@contextmanager
def settled_garbage() -> Iterator[None]:
    """What lives now is left out when garbage is looked for: a fifth of a second each time, with all that we import.
    An earlier freeze is left in place."""
    frozen = gc.get_freeze_count() > 0
    if not frozen:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def give_back_pages() -> bool:
    """Return the pages of freed tensors to the system. Whether that can be: glibc alone has a way."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return False
    return True


def peak_mib(device: torch.device, forgot: bool) -> float:
    """MiB at most since ``reset_peak``, model included; NaN where the system does not say.

    forgot: what ``reset_peak`` answered. An earlier peak that it could not forget is not this run's, so that is NaN.
    """
    if not forgot:
        return float("nan")
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else float("nan")

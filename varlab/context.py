"""The state of torch that a computation here runs in, whatever the caller's is, which comes back afterwards.

Autocast, a default type or device, a choice of kernels and the like reach every operation below them: without this an
"fp32" image would depend on what happens to be switched on around the call.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily

_FLAGS: tuple[tuple[Any, str, bool], ...] = (
    (torch.backends.mkldnn, "enabled", True),
    (torch.backends.cudnn, "enabled", True),
    (torch.backends.cudnn, "benchmark", False),
    (torch.backends.cudnn, "deterministic", False),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", True),
    (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False),  # sums may pass 65504
)
_KERNELS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.OVERRIDEABLE,
]


@contextmanager
def fixed_context(tf32: bool = False) -> Iterator[None]:
    """No autocast, float32 and the CPU by default, torch's own choice of kernels; the caller's state comes back.

    The mode of gradients, the number of threads and the generators of random numbers are left alone: whoever computes
    here sets the first, records the second and brings the third.

    Parameters
    ----------
    tf32
        On a GPU, whether products and convolutions of float32 tensors may go through tensor cores, as a model in bf16
        or fp16 allows: faster, 10 bits of mantissa.
    """
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        for _ in range(torch._C._len_torch_function_stack()):  # a default device is one of these modes; another over it
            stack.enter_context(_pop_mode_temporarily())  # would keep torch from its fused encoder layer
        if not torch.backends.mha.get_fastpath_enabled():
            stack.callback(torch.backends.mha.set_fastpath_enabled, False)
            torch.backends.mha.set_fastpath_enabled(True)
        if torch.are_deterministic_algorithms_enabled():
            warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
            stack.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
            torch.use_deterministic_algorithms(False)
        for module, name, wanted in _FLAGS:
            _hold(stack, module, name, wanted)
        stack.enter_context(_full_products())
        if torch.cuda.is_available():
            _hold(stack, torch.backends.cuda.matmul, "allow_tf32", tf32)
            _hold(stack, torch.backends.cudnn, "allow_tf32", tf32)
        stack.enter_context(sdpa_kernel(_KERNELS))
        yield


_FILLS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


class _Unfilled(TorchFunctionMode):
    """Numbers that are drawn or divided on the meta device import torch's compiler, a second for no number: nothing
    is done where the shape stays."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FILLS:
            return kwargs["tensor"]
        if func is torch.randn:
            return torch.empty(*args, **(kwargs or {}))
        return args[0] if func in (Tensor.normal_, Tensor.div) else func(*args, **(kwargs or {}))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules built here lie on the meta device: names and shapes without memory, and nobody's random numbers used."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _Unfilled():
        yield


def _hold(stack: ExitStack, module: Any, name: str, wanted: Any) -> None:
    """A flag of torch at a value until the stack is left."""
    found = getattr(module, name)
    if found != wanted:
        stack.callback(setattr, module, name, found)
        setattr(module, name, wanted)


@contextmanager
def _full_products() -> Iterator[None]:
    """Products and convolutions of float32 in float32 on a CPU, where its library could round them to bf16 too."""
    mkldnn: Any = torch.backends.mkldnn
    parts = [mkldnn.matmul, mkldnn.conv]
    word = torch.get_float32_matmul_precision()
    found = [part.fp32_precision for part in parts]
    if word == "highest" and set(found) <= {"none", "ieee"}:
        yield
        return
    cuda = torch.backends.cuda.matmul.fp32_precision
    torch.set_float32_matmul_precision("highest")
    for part in parts:
        part.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(word)
        for part, precision in zip([torch.backends.cuda.matmul, *parts], [cuda, *found], strict=True):
            part.fp32_precision = precision

"""Weights kept in bf16 for arithmetic in fp32: half the memory where a processor multiplies bf16 slowly.

A block's weights are widened just before use, into one buffer that all of them share: no copy is kept. Widening
is exact, so a product is that of fp32 with weights that were rounded to bf16.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from varlab.models.packed import PackedLinear
from varlab.models.quantised import INT8, is_quantised

BF16_WEIGHTS = "bf16-weights"  # the precision of such a model

Spaces = dict[torch.device, tuple[Tensor, Tensor]]


class Widened(nn.Module):
    """One weight: asked for as ``linear.weight``, it comes in fp32 and is good until the next one is asked for.
    ``spaces``: of each device whose weight lies in its buffer, and the buffer, as large as the largest weight."""

    def __init__(self, spaces: Spaces) -> None:
        super().__init__()
        self.spaces = spaces

    def forward(self, kept: Tensor) -> Tensor:
        owner, buffer = self.spaces.get(kept.device, (None, None))
        if buffer is None or buffer.numel() < kept.numel():
            self.spaces.pop(kept.device, None)  # given back before the larger one is made
            owner = buffer = None
            with torch.inference_mode(False):
                buffer = torch.empty(kept.numel(), dtype=torch.float32, device=kept.device)
        wide = buffer[: kept.numel()].view(kept.shape)
        if owner is not kept:
            wide.copy_(kept)
            self.spaces[kept.device] = kept, buffer
        return wide


def widen(module: nn.Module) -> None:
    """Let the linear layers that hold bf16 compute in fp32. For inference: nobody may train or change the weights."""
    spaces: Spaces = {}
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and layer.weight.dtype == torch.bfloat16:
            parametrize.register_parametrization(layer, "weight", Widened(spaces), unsafe=True)  # another dtype


def precision_of(layer: nn.Linear | PackedLinear) -> str:
    """fp32, bf16, fp16, ``BF16_WEIGHTS`` or ``INT8``."""
    if isinstance(layer, PackedLinear):
        return "bf16"
    if parametrize.is_parametrized(layer, "weight"):
        return BF16_WEIGHTS
    if is_quantised(layer.weight):
        return INT8
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(layer.weight.dtype, "fp32")

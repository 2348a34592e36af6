"""Muon, whose matrices of one shape go through their products together."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from varlab.training.precision import product_type

TOGETHER = 1 << 19  # numbers that a core's cache holds while some thirty operations pass over them


class Muon(torch.optim.Muon):
    """torch's Muon with "match_rms_adamw", which takes matrix by matrix: the same states, and the same bits where the
    device has instructions for bf16 products; elsewhere its products are in fp32."""

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, same in shapes.items():
                count = max(1, TOGETHER // shape.numel())
                for first in range(0, len(same), count):
                    self._together(same[first : first + count], group)

    def _together(self, params: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])
        steps = orthogonal(torch.stack(ahead), group["ns_coefficients"], group["ns_steps"], group["eps"])
        size = 0.2 * max(params[0].shape) ** 0.5
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, steps.unbind(), alpha=-group["lr"] * size)


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton and Schulz's iteration towards the nearest orthogonal matrices: [m, r, c] -> [m, r, c], in the type that
    training multiplies in."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(product_type(str(matrices.device)))
    x = (x.mT if tall else x).contiguous()
    x /= x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

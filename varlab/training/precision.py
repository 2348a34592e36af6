"""In which type training multiplies: bf16 where the device has instructions for it, else fp32. Weights stay in fp32."""

from functools import cache

import torch

from varlab.machine import multiplies_bf16


@cache
def product_type(device: str) -> torch.dtype:
    return torch.bfloat16 if multiplies_bf16(torch.device(device)) else torch.float32


def autocast(device: str) -> torch.autocast:
    """Everything in it multiplies in ``product_type``."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=product_type(device) == torch.bfloat16)

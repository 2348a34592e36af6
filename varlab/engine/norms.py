"""Norms over channels, the one thing that probes take while a run goes on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from varlab.engine.memory import Buffers

SMALL = 1 << 16  # elements of a stage's tokens below which a call costs more than its arithmetic


def small(x: Tensor) -> bool:
    """Whether tokens [R, n, C] are so few that those of several blocks are better reduced together."""
    return x.numel() <= SMALL


def together(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape [...] each as one [m, ...]; a single one as it is, not copied."""
    return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0][None]


def norms(tokens: Tensor, buffers: Buffers) -> Tensor:
    """Norms over channels of tokens [m, R, n, C] -> [m, R, n]; those of large ones, which outlive them, in these
    buffers."""
    if len(tokens) > 1 and small(tokens[0]):
        return torch.linalg.vector_norm(tokens, dim=-1)
    return torch.linalg.vector_norm(tokens, dim=-1, out=buffers.empty(tokens.shape[:-1], tokens.dtype))

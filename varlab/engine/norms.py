"""Norms over channels, the one thing that probes take while a run goes on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from varlab.engine.memory import Buffers

SMALL = 1 << 19  # elements of a stage's tokens below which a call costs more than its arithmetic


def small(x: Tensor) -> bool:
    """Whether tokens [R, n, C] are so few that those of several blocks are better reduced together."""
    return x.numel() <= SMALL


def norms(tokens: Sequence[Tensor], buffers: Buffers) -> Sequence[Tensor]:
    """Norms over channels of tokens [R, n, C] each -> [R, n] each, in these buffers; of small ones in one call."""
    if len(tokens) > 1 and small(tokens[0]):
        return torch.linalg.vector_norm(torch.stack(list(tokens)), dim=-1).unbind()
    return [torch.linalg.vector_norm(x, dim=-1, out=buffers.empty(x.shape[:-1], x.dtype)) for x in tokens]

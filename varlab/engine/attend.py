"""Attention over the KV store, where the unconditional rows may hold equal keys that are looked at once."""

import math

import torch
from torch import Tensor

from varlab.models.layers import attention

Group = tuple[int, int, int]  # rows, tokens, keys of what is computed alike


def attend_rows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, alike: int) -> Tensor:
    """Attention of q [R, H, n, c] on k, v [R, H, N, c] with bias [R, 1, 1 or n, N].

    ``alike`` > 1: the second half of the rows begins with so many equal keys and values. It sees the last of them,
    its logit raised by their logarithm, in the type of the keys: the same sum in fewer products.
    """
    if alike < 2:
        return attention(q, k, v, bias, scale=scale)
    half, first = q.shape[0] // 2, alike - 1
    cond = attention(q[:half], k[:half], v[:half], None if bias is None else bias[:half], scale=scale)
    count = q.new_zeros(1, 1, 1, k.shape[2] - first)
    count[..., 0] = math.log(alike)
    raised = count if bias is None else bias[half:, ..., first:] + count
    return torch.cat([cond, attention(q[half:], k[half:, :, first:], v[half:, :, first:], raised, scale=scale)])


def groups(batch: int, guided: bool, tokens: int, keys: int, prefix: int, alike: int) -> list[Group]:
    """Rows that compute the same: all, or the two branches where ``alike`` keys of the second one are one."""
    if not guided or alike < 2:
        return [(batch * (2 if guided else 1), tokens, keys)]
    own = tokens - (alike - 1) if prefix else tokens
    return [(batch, tokens, keys), (batch, own, max(keys - (alike - 1), 0))]

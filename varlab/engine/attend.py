"""Attention over the KV store, where the unconditional rows may hold equal keys of which few are looked at."""

import math

import torch
from torch import Tensor

from varlab.models.base import EqualPrefix
from varlab.models.layers import attention

Group = tuple[int, int, int]  # rows, tokens, keys of what is computed alike


def attend_rows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, equal: EqualPrefix) -> Tensor:
    """Attention of q [R, H, n, c] on k, v [R, H, N, c] with bias [R, 1, 1 or n, N].

    The second half of the rows may begin with equal keys and values: it sees the last few of these, each with its
    logit raised by the logarithm of how many it stands for, in the type of the keys. The same sum in fewer products.
    """
    if not equal.spared:
        return attention(q, k, v, bias, scale=scale)
    half, first = q.shape[0] // 2, equal.spared
    cond = attention(q[:half], k[:half], v[:half], None if bias is None else bias[:half], scale=scale)
    count = q.new_zeros(1, 1, 1, k.shape[2] - first)
    count[..., : equal.seen] = math.log(equal.equal / equal.seen)
    raised = count if bias is None else bias[half:, ..., first:] + count
    return torch.cat([cond, attention(q[half:], k[half:, :, first:], v[half:, :, first:], raised, scale=scale)])


def groups(batch: int, guided: bool, tokens: int, keys: int, prefix: int, equal: EqualPrefix) -> list[Group]:
    """Rows that compute the same: all, or the two branches where equal keys of the second one are spared.

    The stage with the prefix computes one of the equal tokens, which sees itself alone; later ones see ``equal.seen``.
    """
    if not guided or not equal.spared:
        return [(batch * (2 if guided else 1), tokens, keys)]
    once = equal.equal - 1 if prefix else 0
    return [(batch, tokens, keys), (batch, tokens - once, max(keys - (once or equal.spared), 0))]

"""Layers that the next-scale families share."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.models.packed import typed

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [R, H, n, c] -> [R, H, n, c]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """What follows computes in the types that it is given, in training too; the meta device knows no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def layer_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm without gain and bias over the last dimension, in fp32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Adaptive LayerNorm: LN(x) * (1 + scale) + shift, in fp32."""
    return torch.addcmul(shift, layer_norm(x), 1 + scale)


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """x times factor; where no gradient is asked for x itself is overwritten, so it must be nobody else's."""
    return x * factor if x.requires_grad or torch.compiler.is_compiling() else x.mul_(factor)


class HeadNorm(nn.Module):
    """The condition's scale and shift before the head, under the released name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + self.eps)
        return (h * self.weight.float()).to(x.dtype)


PIECE = 1 << 17  # elements that stay in a core's cache while a few operations pass over them


def gelu_(x: Tensor) -> Tensor:
    """GELU in its tanh form, in fp32; where no gradient is asked for the argument itself is overwritten.

    (1 + tanh(u)) / 2 is the logistic function of 2u, and torch's CPU kernel for the tanh form is several times slower
    than this, its compiled form too. bf16 has so few numbers that looking the result up is faster still.
    """
    if x.device.type == "cpu" and torch.compiler.is_compiling():
        z = x.float()
        return (z * (z * (z.square() * _CUBIC + _LINEAR)).sigmoid()).to(x.dtype)
    if x.device.type != "cpu" or x.requires_grad or not x.is_contiguous():
        return F.gelu(x, approximate="tanh")
    if x.dtype == torch.bfloat16 and x.numel() > PIECE:
        for piece in x.view(-1).split(PIECE):
            piece.copy_(_of_bf16().index_select(0, piece.view(torch.uint16).int()))
        return x
    for piece in x.view(-1).split(PIECE):
        z = piece.float()
        u = z.square().mul_(_CUBIC).add_(_LINEAR).mul_(z)
        torch.mul(u.sigmoid_(), z, out=u)
        piece.copy_(u)
    return x


@cache
def _of_bf16() -> Tensor:
    """GELU of every number in bf16, by its bits [65536]."""
    with torch.inference_mode(False):
        return gelu_(torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16))


_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR


class FeedForward(nn.Module):
    """fc2(gelu_tanh(fc1(x)))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu_(self.fc1(typed(self.fc1, x))))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[R, n, H*c] -> [R, H, n, c]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[R, H, n, c] -> [R, n, H*c]."""
    return x.transpose(1, 2).flatten(-2)


def chosen(tokens: Tensor, index: Tensor | None) -> Tensor:
    """Tokens [B, n, C] at positions shared by the rows [m], or own ones of each guidance row [R, m]; None is all."""
    if index is None:
        return tokens
    if index.ndim == 1:
        return tokens[:, index]
    return tokens.gather(1, index[: tokens.shape[0], :, None].expand(-1, -1, tokens.shape[-1]))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(scale * q k^T) v; scale defaults to c ** -0.5. The mask is boolean or a bias."""
    if not (q.requires_grad and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    # The backward of the fused CPU kernel is several times slower.
    return _Attention.apply(q, k, v, mask, q.shape[-1] ** -0.5 if scale is None else scale)  # type: ignore[no-any-return, no-untyped-call]


class _Attention(torch.autograd.Function):
    """``attention`` with gradients laid out in memory as q, k and v are: those that autograd finds for the keys are
    transposed, and what comes before the keys reads them slowly."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        q = q * scale
        scores = q @ k.mT
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores = scores + mask
        weights = scores.softmax(-1).to(v.dtype)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return weights @ v

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, weights = ctx.saved_tensors
        gradient = gradient.to(v.dtype)  # that of autocast's product may have another
        exact = torch.promote_types(v.dtype, torch.float32)
        of_weights, shares = (gradient @ v.mT).to(exact), weights.to(exact)
        of_scores = shares * (of_weights - (of_weights * shares).sum(-1, keepdim=True))
        of_scores = of_scores.to(v.dtype)
        of_q, of_k = of_scores.to(k.dtype) @ k, of_scores.to(q.dtype).mT @ q
        return of_q * ctx.scale, of_k, weights.mT @ gradient, None, None


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotary positions with interleaved pairs: x [..., n, H, c] fp32; table [n, c/2, 2] or [R, n, c/2, 2] holds cosine
    and sine. Where no gradient is asked for the argument itself is overwritten.
    """
    table = table.unsqueeze(-3)
    if torch.compiler.is_compiling():  # the compiler has no complex kernels
        (a, b), (cosine, sine) = x.unflatten(-1, (-1, 2)).unbind(-1), table.unbind(-1)
        return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(-2)
    pairs, turn = torch.view_as_complex(x.unflatten(-1, (-1, 2))), torch.view_as_complex(table)
    turned = pairs * turn if x.requires_grad else pairs.mul_(turn)
    return torch.view_as_real(turned).flatten(-2)


def rotate_split(x: Tensor, table: Tensor) -> Tensor:
    """``rotate`` for channels whose first halves of the pairs all stand before the second ones, which a compiler turns
    several times faster."""
    (a, b), (cosine, sine) = x.chunk(2, -1), table.unsqueeze(-3).unbind(-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)


def split_pairs(rows: Tensor, heads: int) -> Tensor:
    """Rows [3C, ...] of queries, keys and values, with a head's even rows of the first two before its odd ones, as
    ``rotate_split`` reads what they give."""
    both, v = rows.split([2 * len(rows) // 3, len(rows) // 3])
    return torch.cat([both.unflatten(0, (2 * heads, -1, 2)).transpose(1, 2).flatten(0, 2), v])


TOGETHER = 100  # neighbouring stages of so many tokens in all share a call


@cache
def block_causal_attend(lengths: tuple[int, ...], scale: float = 1.0) -> Attend:
    """Attention for the training forward: a token sees its own stage and all earlier ones.

    ``lengths``: tokens of each stage; ``scale`` multiplies the scores. Neighbouring small stages share a masked call.
    No call sees what comes after its last stage, and a stage alone needs no mask, so few scores are computed to be
    thrown away.
    """
    calls = _calls(lengths)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = []
        for start, end, bias in calls:
            mask = None if bias is None else bias.to(q)
            parts.append(attention(q[:, :, start:end], k[:, :, :end], v[:, :, :end], mask, scale=scale))
        return torch.cat(parts, 2) if len(parts) > 1 else parts[0]

    return attend


def _calls(lengths: tuple[int, ...]) -> list[tuple[int, int, Tensor | None]]:
    """The first query of each call, the end of its queries and keys, and its bias: adding is faster than filling in."""
    stage, found = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)), []
    bounds = [0, *accumulate(lengths)]
    first = 0
    for k in range(len(lengths)):
        if k + 1 == len(lengths) or bounds[k + 2] - bounds[first] > TOGETHER:
            start, end = bounds[first], bounds[k + 1]
            bias = torch.where(stage[start:end, None] >= stage[:end], 0.0, -torch.inf) if k > first else None
            found.append((start, end, bias))
            first = k + 1
    return found

"""Layers that the next-scale families share."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import accumulate, pairwise

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
    than this. bf16 has so few numbers that looking the result up is faster still.
    """
    if x.device.type != "cpu" or x.requires_grad or torch.compiler.is_compiling() or not x.is_contiguous():
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
    # The backward of the fused CPU kernel is several times slower than these three lines.
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.mT
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1).to(v.dtype) @ v


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


COARSE = 32  # stages of up to so many tokens share a call


@cache
def block_causal_attend(lengths: tuple[int, ...], scale: float = 1.0) -> Attend:
    """Attention for the training forward: a token sees its own stage and all earlier ones.

    ``lengths``: tokens of each stage; ``scale`` multiplies the scores. The coarse stages share one masked call; a later
    stage sees all that ends where it ends, so it needs no mask, and scores that a mask would throw away are never
    computed.
    """
    coarse = sum(1 for n in lengths if n <= COARSE)
    bounds = [0, *accumulate(lengths)]
    first = bounds[coarse]
    stage = torch.repeat_interleave(torch.arange(coarse), torch.tensor(lengths[:coarse], dtype=torch.long))
    bias = torch.where(stage[:, None] >= stage[None], 0.0, -torch.inf)  # adding is faster than filling in

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [attention(q[:, :, :first], k[:, :, :first], v[:, :, :first], bias.to(q), scale=scale)]
        for start, end in pairwise(bounds[coarse:]):
            parts.append(attention(q[:, :, start:end], k[:, :, :end], v[:, :, :end], scale=scale))
        return torch.cat(parts, 2) if len(parts) > 1 else parts[0]

    return attend

"""What the convolutional tokenizers do to their maps [B, C, h, w] between convolutions.

The widest maps decide how much memory an image takes. On a CPU they are normed a few rows at a time, which also keeps
the work in its cache, and where no gradient is asked for they are written over.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Source = Callable[[int, int], Tensor]  # rows [start, end) of a map [B, C, end - start, W]
Module = TypeVar("Module", bound=nn.Module)
LARGE = 1 << 24  # elements of a map above which a CPU norms it in pieces
PIECE = 1 << 19  # elements of such a piece


def normed(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Group norm in the type of x, with statistics in fp32, as CUDA autocast has it; the faster kernel of a CPU too.

    Torch's kernel for GPUs lays a map out channels first, and the convolution after it would lay it out back.
    """
    if x.device.type == "cuda" and x.is_contiguous(memory_format=torch.channels_last) and not _trained(norm, x):
        return normed_as_laid_out(norm, x)
    return F.group_norm(x.float(), norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps).to(x.dtype)


def normed_as_laid_out(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Group norm of a map that stays as it is laid out; equal to torch's but for rounding."""
    whole = x.float()
    variance, mean = torch.var_mean(whole.unflatten(1, (norm.num_groups, -1)), (2, 3, 4), correction=0)
    gain, shift = _affine(norm, mean, variance)
    return torch.addcmul(shift, whole, gain).to(x.dtype)


def _trained(norm: nn.GroupNorm, x: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or norm.weight.requires_grad)


def activated(layer: nn.Module, x: Tensor, own: bool = False) -> Tensor:
    """silu(norm(x)) of a group norm, or of one under a wrapper's name. ``own``: x is nobody else's."""
    norm = group_norm(layer)
    if x.device.type != "cpu" or x.numel() <= LARGE or _trained(norm, x):
        h = normed(norm, x)
        return F.silu(h, inplace=not h.requires_grad)
    rows = max(1, PIECE // x[:, :, :1].numel())
    made, out = activated_rows(norm, x, rows), x if own else torch.empty_like(x)
    for start, end in row_strips(x.shape[2], rows):
        out[:, :, start:end] = made(start, end)
    return out


def added(h: Tensor, x: Tensor) -> Tensor:
    """h + x; h must be nobody else's."""
    return h + x if h.requires_grad or x.requires_grad or torch.compiler.is_compiling() else h.add_(x)


def layers(level: Any) -> Iterator[nn.Module]:
    """Of one resolution, in their order: residual blocks, each followed by attention where there is some, then the
    change of resolution."""
    attention = getattr(level, "attn", ())
    for i, block in enumerate(level.block):
        yield block
        yield from attention[i : i + 1]
    for change in ("downsample", "upsample"):
        if hasattr(level, change):
            yield getattr(level, change)


def group_norm(layer: nn.Module) -> nn.GroupNorm:
    norm = getattr(layer, "norm", layer)
    assert isinstance(norm, nn.GroupNorm)
    return norm


def channels_last(tokenizer: Module) -> Module:
    """The layout in which convolutions are fastest, on CPU and on GPU; maps take it from the weights."""
    return tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def row_strips(height: int, rows: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + rows, height)) for start in range(0, height, rows))


def activated_rows(norm: nn.GroupNorm, x: Tensor, rows: int) -> Source:
    """Rows of silu(norm(x)), with the statistics of the whole map, which are gathered ``rows`` at a time."""
    gain, shift = _affine(norm, *_moments(x, norm.num_groups, rows))

    def activated(start: int, end: int) -> Tensor:
        return F.silu(torch.addcmul(shift, x[:, :, start:end].float(), gain).to(x.dtype), inplace=True)

    return activated


def _affine(norm: nn.GroupNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """What a group norm multiplies a map by and adds to it, from the moments of its groups [B, G] -> [B, C, 1, 1]."""
    each = norm.num_channels // norm.num_groups
    gain = (variance + norm.eps).rsqrt().repeat_interleave(each, 1) * norm.weight.double()
    shift = norm.bias.double() - mean.repeat_interleave(each, 1) * gain
    return gain.float().unflatten(1, (-1, 1, 1)), shift.float().unflatten(1, (-1, 1, 1))


def _moments(x: Tensor, groups: int, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and variance over the channels of a group and all pixels, [B, G] in fp64; within a strip summed in fp32."""
    first = second = torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)  # of each channel
    for start, end in row_strips(x.shape[2], rows):
        piece = x[:, :, start:end].float()
        mean = piece.mean((2, 3))  # far faster on a CPU than var_mean
        variance = (piece - mean[:, :, None, None]).square_().mean((2, 3))
        share = (end - start) / x.shape[2]
        first = first + share * mean.double()
        second = second + share * (variance.double() + mean.double().square())
    first, second = (moment.unflatten(1, (groups, -1)).mean(-1) for moment in (first, second))
    return first, second - first.square()

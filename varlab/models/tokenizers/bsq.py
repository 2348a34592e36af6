"""Infinity's image tokenizer: a convolutional VAE with multi-scale binary spherical quantisation (BSQ).

Module names equal the keys of the official files (``infinity_vae_d*.pth``).
Source: Infinity (arXiv 2412.04431), section 3.2, and its released VAEs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.tokenizers import convnet
from varlab.models.tokenizers.convnet import Decoder, Encoder, Layout, conv
from varlab.models.tokenizers.strips import decoded
from varlab.schedules import Grid


@dataclass(frozen=True)
class BSQConfig:
    """``bits`` per latent; ``stride`` pixels per latent; ``norm_groups`` None follows the official rule."""

    bits: int
    stride: int = 16
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4, 4)
    blocks: int = 2
    norm_groups: int | None = None

    def groups(self, channels: int) -> int:
        if self.norm_groups is not None:
            return self.norm_groups
        return 32 if channels % 32 == 0 else 24

    @property
    def halvings(self) -> int:
        return self.stride.bit_length() - 1


class Conv(nn.Module):
    """A convolution under the wrapper's name that the official keys have."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Norm(nn.Module):
    """Group norm under the wrapper's name that the official keys have; ``maps.activated`` computes it."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)


def layout(config: BSQConfig) -> Layout:
    """The released tokenizers have no attention."""
    return Layout(
        config.bits,
        config.channels,
        config.multipliers,
        config.blocks,
        config.halvings,
        norm=lambda channels: Norm(config.groups(channels), channels),
        conv=Conv,
    )


def decoder_flops(config: BSQConfig, grid: Grid) -> int:
    """Of the decoder on one latent grid."""
    return convnet.decoder_flops(layout(config), *grid)


class _LookupFree(nn.Module):
    """Nothing to compute: holds a key of the official files."""

    mask: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        powers = torch.tensor([1 << place for place in reversed(range(bits))])
        self.register_buffer("mask", powers)  # only kept so that the keys equal the official files


class _Quantizer(nn.Module):
    """Nothing to learn: the codes are the signs (``codes_of``)."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.lfq = _LookupFree(bits)


def codes_of(bits: Tensor) -> Tensor:
    """Bits [..., h, w, b] -> codes [..., b, h, w] of norm one: +-1/sqrt(b)."""
    return (bits.movedim(-1, -3).float() * 2 - 1) * bits.shape[-1] ** -0.5


def side(latent: Tensor) -> Grid:
    """(height, width) of maps [..., h, w]."""
    return int(latent.shape[-2]), int(latent.shape[-1])


def _resized(maps: Tensor, grid: Grid, mode: str) -> Tensor:
    return maps if side(maps) == tuple(grid) else F.interpolate(maps, size=tuple(grid), mode=mode)


def upsample(codes: Tensor, grid: Grid) -> Tensor:
    """Bilinear to the final grid; a code already there is left alone."""
    return _resized(codes, grid, "bilinear")


def bicubic(codes: Tensor, grid: Grid) -> Tensor:
    """Bicubic to the final grid, without antialiasing; a code already there is left alone."""
    return _resized(codes, grid, "bicubic")


def area(latent: Tensor, grid: Grid) -> Tensor:
    """Averaged to a stage's grid; a latent already there is left alone."""
    return _resized(latent, grid, "area")


def latent_grid(image: Tensor, stride: int) -> Grid:
    """Latents of an image [B, 3, H, W]. Errors: sides that do not divide by the stride."""
    height, width = side(image)
    if height % stride or width % stride:
        raise VarlabError(f"An image of {height}x{width} does not divide by the tokenizer's stride {stride}.")
    return height // stride, width // stride


def residual_steps(
    latent: Tensor, grids: Sequence[Grid], flip: Callable[[Tensor, int], Tensor] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Residual quantisation from coarse to fine, one stage at a time.

    latent [B, b, H, W] -> for each stage its bits [B, h_k, w_k, b] (bool) and the canvas so far [B, b, H, W].
    A zero counts as bit 0. ``flip(bits, k)`` gives the bits that are really added; those yielded stay.
    """
    residual, canvas = latent.float(), torch.zeros_like(latent, dtype=torch.float32)
    for k, grid in enumerate(grids):
        bits = (area(residual, grid) > 0).movedim(1, -1)
        step = upsample(codes_of(bits if flip is None else flip(bits, k)), side(latent))
        residual, canvas = residual - step, canvas + step
        yield bits, canvas


def quantise(latent: Tensor, grids: Sequence[Grid]) -> tuple[list[Tensor], Tensor]:
    """latent [B, b, H, W] -> bits per stage [B, h_k, w_k, b] and the final canvas [B, b, H, W]."""
    bits, canvases = zip(*residual_steps(latent, grids), strict=True)
    return list(bits), canvases[-1]


class BSQTokenizer(nn.Module):
    """Encoder, quantiser and decoder. ``encode`` gives bits per stage; ``decode`` a clamped image."""

    strips: int | None = None  # rows of a strip, where the decoder runs in strips

    def __init__(self, config: BSQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(layout(config))
        self.decoder = Decoder(layout(config))
        self.quantizer = _Quantizer(config.bits)
        self.quantize = self.quantizer  # official files hold the quantiser under both names

    def encode(self, image: Tensor, grids: Sequence[Grid]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Image [B, 3, H, W] in [-1, 1] -> bits per stage, canvas, latent before quantisation."""
        grid = latent_grid(image, self.config.stride)
        if tuple(grids[-1]) != grid:
            raise VarlabError(f"The schedule ends at {grids[-1]} but the image gives a latent of {grid}.")
        latent = self.encoder(image)
        bits, canvas = quantise(latent, grids)
        return bits, canvas, latent

    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas [B, b, H, W] -> image [B, 3, H*stride, W*stride] in [-1, 1]."""
        return decoded(self.decoder, canvas, self.strips).clamp(-1, 1)

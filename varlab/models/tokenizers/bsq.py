"""Infinity's image tokenizer: a convolutional VAE with multi-scale binary spherical quantisation (BSQ).

Module names equal the keys of the official files (``infinity_vae_d*.pth``).
Source: Infinity (arXiv 2412.04431), section 3.2, and its released VAEs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.tokenizers.maps import activated, added, layers
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
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Norm(nn.Module):
    """Group norm under the wrapper's name that the official keys have; ``maps.activated`` computes it."""

    def __init__(self, channels: int, config: BSQConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.groups(channels), channels, eps=1e-6)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))); a 1x1 convolution on x where the channels change."""

    def __init__(self, inputs: int, outputs: int, config: BSQConfig) -> None:
        super().__init__()
        self.norm1 = Norm(inputs, config)
        self.conv1 = Conv(inputs, outputs)
        self.norm2 = Norm(outputs, config)
        self.conv2 = Conv(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = Conv(inputs, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        h = self.conv2(activated(self.norm2, h, own=True))
        return added(h, self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Downsample(nn.Module):
    """Halves both sides; padded at the right and bottom alone, as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles both sides: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution; the released tokenizers have no attention between them."""

    def __init__(self, channels: int, config: BSQConfig) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, config)
        self.block_2 = ResBlock(channels, channels, config)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.block_1(x))


class Level(nn.Module):
    """Residual blocks at one resolution, then an optional change of resolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, config: BSQConfig) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.ModuleList(ResBlock(a, b, config) for a, b in pairwise(widths))
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for layer in layers(self):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> latent [B, bits, H/stride, W/stride]."""

    def __init__(self, config: BSQConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = Conv(3, config.channels)
        self.down = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(zip([config.channels, *widths], widths, strict=False)):
            level = Level(inputs, outputs, config.blocks, config)
            if i < config.halvings:
                level.downsample = Downsample(outputs)
            self.down.append(level)
        self.mid = Middle(widths[-1], config)
        self.norm_out = Norm(widths[-1], config)
        self.conv_out = Conv(widths[-1], config.bits)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(activated(self.norm_out, self.mid(x), own=True))


class Decoder(nn.Module):
    """Latent [B, bits, h, w] -> image [B, 3, h*stride, w*stride], not clamped."""

    def __init__(self, config: BSQConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = Conv(config.bits, widths[-1])
        self.mid = Middle(widths[-1], config)
        levels = []
        inputs = widths[-1]
        for i in reversed(range(len(widths))):
            level = Level(inputs, widths[i], config.blocks + 1, config)
            if 1 <= i <= config.halvings:
                level.upsample = Upsample(widths[i])
            levels.append(level)
            inputs = widths[i]
        self.up = nn.ModuleList(reversed(levels))  # up.0 is the highest resolution, as in the official keys
        self.norm_out = Norm(config.channels * config.multipliers[0], config)
        self.conv_out = Conv(config.channels * config.multipliers[0], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            for layer in layers(level):  # not level(x), which holds its first map until its last is done
                x = layer(x)
        return self.conv_out(activated(self.norm_out, x, own=True))


class _LookupFree(nn.Module):
    """Nothing to compute: holds a key of the official files."""

    mask: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        powers = torch.ones(bits, dtype=torch.int64) << torch.arange(bits - 1, -1, -1)
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


def upsample(codes: Tensor, grid: Grid) -> Tensor:
    """Bilinear to the final grid; a code already there is left alone."""
    if side(codes) == tuple(grid):
        return codes
    return F.interpolate(codes, size=tuple(grid), mode="bilinear", align_corners=False)


def area(latent: Tensor, grid: Grid) -> Tensor:
    """Averaged to a stage's grid; a latent already there is left alone."""
    if side(latent) == tuple(grid):
        return latent
    return F.interpolate(latent, size=tuple(grid), mode="area")


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
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = _Quantizer(config.bits)
        self.quantize = self.quantizer  # official files hold the quantiser under both names

    def latent_grid(self, height: int, width: int) -> Grid:
        stride = self.config.stride
        if height % stride or width % stride:
            raise VarlabError(f"An image of {height}x{width} does not divide by the tokenizer's stride {stride}.")
        return height // stride, width // stride

    def encode(self, image: Tensor, grids: Sequence[Grid]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Image [B, 3, H, W] in [-1, 1] -> bits per stage, canvas, latent before quantisation."""
        grid = self.latent_grid(*image.shape[-2:])
        if tuple(grids[-1]) != grid:
            raise VarlabError(f"The schedule ends at {grids[-1]} but the image gives a latent of {grid}.")
        latent = self.encoder(image)
        bits, canvas = quantise(latent, grids)
        return bits, canvas, latent

    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas [B, b, H, W] -> image [B, 3, H*stride, W*stride] in [-1, 1]."""
        return decoded(self.decoder, canvas, self.strips).clamp(-1, 1)

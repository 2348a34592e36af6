"""VAR's image tokenizer: a convolutional VAE with multi-scale residual vector quantisation.

Module names equal the keys of the official file (``vae_ch160v4096z32.pth``).
Source: VAR (arXiv 2404.02905), section 3.2, and its released tokenizer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.tokenizers.bsq import area, side
from varlab.models.tokenizers.maps import activated, added, layers, normed
from varlab.models.tokenizers.strips import decoded
from varlab.schedules import Grid

Swap = Callable[[Tensor, int], Tensor] | None  # (indices, stage) -> indices


@dataclass(frozen=True)
class VQConfig:
    """``codes`` entries of ``width`` channels; ``stages`` of the schedule it was trained on.

    ``phis``: smoothing convolutions after up-sampling, shared by neighbouring stages; 0 is one for each stage.
    """

    codes: int = 4096
    width: int = 32
    channels: int = 160
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    norm_groups: int = 32
    stages: int = 10
    phis: int = 4

    @property
    def stride(self) -> int:
        """Pixels on a side of a latent."""
        return 1 << (len(self.multipliers) - 1)


def norm(channels: int, config: VQConfig) -> nn.GroupNorm:
    return nn.GroupNorm(config.norm_groups, channels, eps=1e-6)


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))); a 1x1 convolution on x where the channels change."""

    def __init__(self, inputs: int, outputs: int, config: VQConfig) -> None:
        super().__init__()
        self.norm1 = norm(inputs, config)
        self.conv1 = conv(inputs, outputs)
        self.norm2 = norm(outputs, config)
        self.conv2 = conv(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = conv(inputs, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        h = self.conv2(activated(self.norm2, h, own=True))
        return added(h, self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """One head over all positions of a map, with a residual connection."""

    def __init__(self, channels: int, config: VQConfig) -> None:
        super().__init__()
        self.norm = norm(channels, config)
        self.qkv = conv(channels, 3 * channels, kernel=1)
        self.proj_out = conv(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(normed(self.norm, x)).flatten(2).chunk(3, 1)  # [B, C, n]
        weights = (q.mT @ k * q.shape[1] ** -0.5).softmax(-1, dtype=torch.float32).to(v.dtype)  # [B, query, key]
        return x + self.proj_out((v @ weights.mT).unflatten(-1, x.shape[-2:]))


class Downsample(nn.Module):
    """Halves both sides; padded at the right and bottom alone, as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles both sides: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Two residual blocks with attention between them, at the lowest resolution."""

    def __init__(self, channels: int, config: VQConfig) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, config)
        self.attn_1 = Attention(channels, config)
        self.block_2 = ResBlock(channels, channels, config)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention at the lowest, then a change of resolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, lowest: bool, config: VQConfig) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(a, b, config) for a, b in pairwise([inputs] + [outputs] * blocks))
        self.attn = nn.ModuleList(Attention(outputs, config) for _ in range(blocks if lowest else 0))
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for layer in layers(self):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> latent [B, c, H/stride, W/stride]."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = conv(3, config.channels)
        self.down = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(pairwise([config.channels, *widths])):
            lowest = i == len(widths) - 1
            level = Level(inputs, outputs, config.blocks, lowest, config)
            if not lowest:
                level.downsample = Downsample(outputs)
            self.down.append(level)
        self.mid = Middle(widths[-1], config)
        self.norm_out = norm(widths[-1], config)
        self.conv_out = conv(widths[-1], config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(activated(self.norm_out, self.mid(x), own=True))


class Decoder(nn.Module):
    """Latent [B, c, h, w] -> image [B, 3, h*stride, w*stride], not clamped."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = conv(config.width, widths[-1])
        self.mid = Middle(widths[-1], config)
        levels, inputs = [], widths[-1]
        for i in reversed(range(len(widths))):
            level = Level(inputs, widths[i], config.blocks + 1, i == len(widths) - 1, config)
            if i:
                level.upsample = Upsample(widths[i])
            levels.append(level)
            inputs = widths[i]
        self.up = nn.ModuleList(reversed(levels))  # up.0 is the highest resolution, as in the official keys
        self.norm_out = norm(widths[0], config)
        self.conv_out = conv(widths[0], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            for layer in layers(level):  # not level(x), which holds its first map until its last is done
                x = layer(x)
        return self.conv_out(activated(self.norm_out, x, own=True))


# Quantisation


class Phi(nn.Conv2d):
    """Half the map, half its 3x3 convolution: mends what up-sampling blurs."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x + 0.5 * super().forward(x)


class _Single(nn.Module):
    """One convolution for all stages, under the released name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qresi = Phi(width)


class _Shared(nn.Module):
    """Some convolutions along the stages, under the released name."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(Phi(width) for _ in range(count))


def ticks(count: int) -> np.ndarray:
    """Places of ``count`` convolutions along the stages, from 0 (first) to 1 (last); float64, as released."""
    edge = 1 / 3 / count if count == 4 else 1 / 2 / count
    return np.linspace(edge, 1 - edge, count)


def phi_index(stages: int, count: int) -> list[int]:
    """The convolution of each stage: the nearest tick. Ten stages hold exact ties that float64 rounding decides."""
    places = ticks(count)
    return [int(np.argmin(np.abs(places - k / max(stages - 1, 1)))) for k in range(stages)]


class Quantizer(nn.Module):
    """A codebook and the convolutions that follow up-sampling."""

    ema_vocab_hit_SV: Tensor  # noqa: N815  (released name)

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codes, config.width)
        self.quant_resi: nn.Module
        if config.phis == 1:
            self.quant_resi = _Single(config.width)
        elif config.phis > 1:
            self.quant_resi = _Shared(config.width, config.phis)
        else:
            self.quant_resi = nn.ModuleList(Phi(config.width) for _ in range(config.stages))
        # Running use counts of training, under the released name.
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(config.stages, config.codes))

    def phis(self) -> list[Phi]:
        return [module for module in self.quant_resi.modules() if isinstance(module, Phi)]

    @torch.no_grad()
    def nearest(self, latent: Tensor) -> Tensor:
        """Indices [B, h, w] of the codes nearest to a map [B, c, h, w], by squared distance."""
        z, table = latent.movedim(1, -1), self.embedding.weight
        distance = z.square().sum(-1, keepdim=True) + table.square().sum(-1) - 2 * (z @ table.T)
        return distance.argmin(-1)


def enlarge(codes: Tensor, grid: Grid) -> Tensor:
    """Bicubic to the final grid, without antialiasing; a map already there is left alone."""
    return codes if side(codes) == tuple(grid) else F.interpolate(codes, size=tuple(grid), mode="bicubic")


class VQTokenizer(nn.Module):
    """Encoder, quantiser and decoder. ``encode`` gives indices per stage; ``decode`` a clamped image."""

    strips: int | None = None  # rows of a strip, where the decoder runs in strips

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Quantizer(config)
        self.quant_conv = conv(config.width, config.width)
        self.post_quant_conv = conv(config.width, config.width)

    def step(self, codes: Tensor, k: int, stages: int, grid: Grid) -> Tensor:
        """What stage k of so many adds to the canvas: its code map [B, c, h, w] enlarged and smoothed."""
        phis = self.quantize.phis()
        return phis[phi_index(stages, len(phis))[k]](enlarge(codes, grid))

    def residual_steps(
        self, latent: Tensor, grids: Sequence[Grid], swap: Swap = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Residual quantisation from coarse to fine: latent [B, c, H, W] -> for each stage its indices [B, h_k, w_k]
        and the canvas so far [B, c, H, W]. ``swap(index, k)`` gives the indices that are really added; those yielded
        stay."""
        residual, canvas = latent.float(), torch.zeros_like(latent, dtype=torch.float32)
        for k, grid in enumerate(grids):
            index = self.quantize.nearest(area(residual, grid))
            codes = self.quantize.embedding(index if swap is None else swap(index, k)).movedim(-1, 1)
            step = self.step(codes, k, len(grids), side(latent))
            residual, canvas = residual - step.detach(), canvas + step
            yield index, canvas

    def latent(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in [-1, 1] -> what is quantised [B, c, H/stride, W/stride]."""
        height, width = image.shape[-2:]
        if height % self.config.stride or width % self.config.stride:
            raise VarlabError(f"An image of {height}x{width} does not divide by the stride {self.config.stride}.")
        return self.quant_conv(self.encoder(image))

    def encode(self, image: Tensor, grids: Sequence[Grid]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Image [B, 3, H, W] in [-1, 1] -> indices [B, h_k, w_k] and canvas of each stage, latent."""
        latent = self.latent(image)
        if tuple(grids[-1]) != side(latent):
            raise VarlabError(f"The schedule ends at {grids[-1]} but the image gives a latent of {side(latent)}.")
        indices, canvases = zip(*self.residual_steps(latent, grids), strict=True)
        return list(indices), list(canvases), latent

    def canvases(self, indices: Sequence[Tensor], grids: Sequence[Grid]) -> Iterator[Tensor]:
        """Indices [B, n_k] of each stage -> the canvas [B, c, H, W] after it."""
        canvas: Tensor | float = 0.0
        for k, (index, grid) in enumerate(zip(indices, grids, strict=True)):
            codes = self.quantize.embedding(index).mT.unflatten(-1, grid)
            canvas = canvas + self.step(codes, k, len(grids), grids[-1])
            yield canvas

    def inputs(self, indices: Sequence[Tensor], grids: Sequence[Grid]) -> list[Tensor]:
        """Code tokens [B, n_k, c] that stages 1, 2, ... are given when these indices came before."""
        canvases = self.canvases(indices, grids)
        return [area(canvas, grid).flatten(2).mT for canvas, grid in zip(canvases, grids[1:], strict=False)]

    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas [B, c, H, W] -> image [B, 3, H*stride, W*stride] in [-1, 1]."""
        return decoded(self.decoder, self.post_quant_conv(canvas), self.strips).clamp(-1, 1)


def decoder_flops(config: VQConfig, grid: Grid) -> int:
    """Convolutions and attention of the decoder on one latent grid, two operations a multiply-add."""
    latents = grid[0] * grid[1]

    def cost(inputs: int, outputs: int, scale: int, taps: int = 9) -> int:
        return 2 * inputs * outputs * taps * latents * scale * scale

    def attend(channels: int) -> int:
        return cost(channels, 4 * channels, 1, taps=1) + 4 * channels * latents**2

    widths = [config.channels * m for m in config.multipliers]
    top, scale, count = widths[-1], 1, config.blocks + 1
    flops = cost(config.width, config.width, 1) + cost(config.width, top, 1) + 4 * cost(top, top, 1)
    flops += (1 + count) * attend(top)
    for i in reversed(range(len(widths))):
        flops += cost(top, widths[i], scale) + (2 * count - 1) * cost(widths[i], widths[i], scale)
        flops += cost(top, widths[i], scale, taps=1) if top != widths[i] else 0
        top = widths[i]
        if i:
            scale *= 2
            flops += cost(top, top, scale)
    return flops + cost(top, 3, scale)

"""HART's hybrid image tokenizer: multi-scale vector quantisation, and the residual that it leaves at the last scale.

The sum of the discrete stages is a coarse latent; adding what is left of the encoder's latent gives it back exactly.
Both are decoded by one decoder. Module names equal the keys of the official file without its prefix ``vae.``.
Source: HART (arXiv 2410.10812), section 3.1, and its released code; the network is that of VAR's tokenizer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.tokenizers.bsq import area, side
from varlab.models.tokenizers.maps import activated, added, layers, normed
from varlab.models.tokenizers.strips import decoded
from varlab.schedules import Grid

Choose = Callable[[Tensor, int], Tensor]
ROWS = 256  # latents whose distances to all codes are taken at once


@dataclass(frozen=True)
class HybridConfig:
    """``vocabulary`` codes of ``latents`` channels; one halving less than ``multipliers``; ``phis`` convolutions.

    ``mix`` is the share of a stage's map that goes through its phi convolution. ``norm_groups``: of the group norms.
    """

    vocabulary: int = 4096
    latents: int = 32
    channels: int = 160
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    phis: int = 4
    mix: float = 0.5
    kernel: int = 3
    norm_groups: int = 32

    @property
    def stride(self) -> int:
        """Pixels on a side of a latent."""
        return int(2 ** (len(self.multipliers) - 1))


# The network


def norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs, groups), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs, groups), nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        h = self.conv2(activated(self.norm2, h, own=True))
        return added(h, self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class SpatialAttention(nn.Module):
    """One head over all pixels of a map, added to it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm, self.qkv = norm(channels, groups), nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(normed(self.norm, x)).flatten(2).mT.chunk(3, -1)  # [B, h*w, C]
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(h.mT.unflatten(-1, side(x)))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, groups)
        self.attn_1 = SpatialAttention(channels, groups)
        self.block_2 = ResBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Residual blocks at one resolution, each with attention at the coarsest, then an optional change of resolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attention: bool, groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(outputs if i else inputs, outputs, groups) for i in range(blocks))
        self.attn = nn.ModuleList(SpatialAttention(outputs, groups) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for layer in layers(self):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> [B, Z, H/stride, W/stride]."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(zip([config.channels, *widths], widths, strict=False)):
            level = Level(inputs, outputs, config.blocks, i == last, config.norm_groups)
            if i < last:
                level.downsample = Downsample(outputs)
            self.down.append(level)
        self.mid = Middle(widths[-1], config.norm_groups)
        self.norm_out = norm(widths[-1], config.norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], config.latents, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(activated(self.norm_out, self.mid(x), own=True))


class Decoder(nn.Module):
    """[B, Z, h, w] -> image [B, 3, h*stride, w*stride], not clamped. ``up`` is listed from fine to coarse."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latents, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], config.norm_groups)
        self.up = nn.ModuleList()
        for i, (outputs, inputs) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            level = Level(inputs, outputs, config.blocks + 1, i == last, config.norm_groups)
            if i > 0:
                level.upsample = Upsample(outputs)
            self.up.append(level)
        self.norm_out = norm(widths[0], config.norm_groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            for layer in layers(level):  # not level(x), which holds its first map until its last is done
                x = layer(x)
        return self.conv_out(activated(self.norm_out, x, own=True))


# Quantisation


def bicubic(codes: Tensor, grid: Grid) -> Tensor:
    """Without antialiasing; a map already there is left alone."""
    if side(codes) == tuple(grid):
        return codes
    return F.interpolate(codes, size=tuple(grid), mode="bicubic", align_corners=False)


class _Phis(nn.Module):
    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        half = config.kernel // 2
        self.qresi_ls = nn.ModuleList(
            nn.Conv2d(config.latents, config.latents, config.kernel, padding=half) for _ in range(config.phis)
        )


def phi_of(stage: int, stages: int, phis: int) -> int:
    """Which phi convolution serves a stage: the one whose tick lies nearest to its place in [0, 1]."""
    edge = 1 / (3 if phis == 4 else 2) / phis
    return int(np.argmin(np.abs(np.linspace(edge, 1 - edge, phis) - stage / max(stages - 1, 1))))


class Quantizer(nn.Module):
    """A codebook that all stages share, and the convolutions that blend a stage's up-sampled map."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.mix = config.mix
        self.embedding = nn.Embedding(config.vocabulary, config.latents)
        self.quant_resi = _Phis(config)

    def distances(self, latent: Tensor) -> Tensor:
        """Squared distances [..., V] of latents [..., Z] to all codes."""
        codes = self.embedding.weight
        squares = latent.square().sum(-1, keepdim=True) + codes.square().sum(-1)
        return squares - 2 * latent @ codes.mT

    def nearest(self, latent: Tensor) -> Tensor:
        """Labels [...] of the codes nearest to latents [..., Z]. A few rows at a time stay in a core's cache."""
        codes = self.embedding.weight
        squares, rows = codes.square().sum(-1), latent.flatten(0, -2).split(ROWS)
        found = [torch.addmm(squares, part, codes.mT, alpha=-2).min(-1).indices for part in rows]
        return torch.cat(found).view(latent.shape[:-1])

    def phi(self, codes: Tensor, stage: int, stages: int) -> Tensor:
        """(1 - mix) h + mix conv(h) of a map [B, Z, H, W]."""
        convolutions = self.quant_resi.qresi_ls
        conv = convolutions[phi_of(stage, stages, len(convolutions))]
        return (1 - self.mix) * codes + self.mix * conv(codes)

    def spread(self, codes: Tensor, grid: Grid, stage: int, stages: int) -> Tensor:
        """What a stage's codes [B, Z, h, w] add to the canvas [B, Z, H, W]."""
        return self.phi(bicubic(codes, grid), stage, stages)


@dataclass(frozen=True)
class Quantised:
    """One stage: its labels [B, h*w], the canvas after it and what it had to explain, both [B, Z, H, W]."""

    labels: Tensor
    canvas: Tensor
    residual: Tensor


class HybridTokenizer(nn.Module):
    """Encoder, quantiser and decoder."""

    strips: int | None = None  # rows of a strip, where the decoder runs in strips

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        half = config.kernel // 2
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.latents, config.latents, config.kernel, padding=half)
        self.post_quant_conv = nn.Conv2d(config.latents, config.latents, config.kernel, padding=half)

    def latent_grid(self, height: int, width: int) -> Grid:
        stride = self.config.stride
        if height % stride or width % stride:
            raise VarlabError(f"An image of {height}x{width} does not divide by the tokenizer's stride {stride}.")
        return height // stride, width // stride

    def encode(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in [-1, 1] -> latent [B, Z, h, w] before quantisation."""
        self.latent_grid(*image.shape[-2:])
        return self.quant_conv(self.encoder(image))

    def steps(
        self, latent: Tensor, grids: Sequence[Grid], last_phi: bool, choose: Choose | None = None
    ) -> Iterator[Quantised]:
        """Residual quantisation of a latent [B, Z, H, W] from coarse to fine, each token to its nearest code.

        ``last_phi``: whether the last stage passes its phi convolution too, as when the tokenizer was trained; the
        transformer's last stage does not, so that discrete code plus residual is the latent. ``choose`` turns the
        averaged latents [B, h*w, Z] of stage k into labels in place of the nearest.
        """
        residual, canvas = latent.float(), torch.zeros_like(latent, dtype=torch.float32)
        for k, grid in enumerate(grids):
            with torch.no_grad():
                tokens = area(residual, grid).flatten(2).mT
                labels = self.quantize.distances(tokens).argmin(-1) if choose is None else choose(tokens, k)
            codes = self.quantize.embedding(labels).mT.unflatten(-1, tuple(grid))
            if k < len(grids) - 1 or last_phi:
                codes = self.quantize.spread(codes, side(latent), k, len(grids))
            yield Quantised(labels, canvas + codes, residual)
            residual, canvas = residual - codes, canvas + codes

    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas [B, Z, h, w] -> image [B, 3, h*stride, w*stride] in [-1, 1]."""
        return self.pixels(canvas).clamp(-1, 1)

    def pixels(self, canvas: Tensor) -> Tensor:
        """As ``decode``, not clamped."""
        return decoded(self.decoder, self.post_quant_conv(canvas), self.strips)


def decoder_flops(config: HybridConfig, grid: Grid) -> int:
    """Convolutions and attention of the decoder on one latent grid."""
    tokens = grid[0] * grid[1]

    def conv(inputs: int, outputs: int, scale: int, kernel: int = 9) -> int:
        return 2 * inputs * outputs * kernel * tokens * scale * scale

    widths = [config.channels * m for m in config.multipliers]
    top, scale = widths[-1], 1
    attention = conv(top, 4 * top, 1, kernel=1) + 4 * tokens * tokens * top
    flops = conv(config.latents, config.latents, 1, config.kernel**2) + conv(config.latents, top, 1)
    flops += 4 * conv(top, top, 1) + attention * (config.blocks + 2)
    for i in reversed(range(len(widths))):
        flops += conv(top, widths[i], scale) + conv(widths[i], widths[i], scale) * (2 * config.blocks + 1)
        flops += conv(top, widths[i], scale, kernel=1) if top != widths[i] else 0
        top = widths[i]
        if i > 0:
            scale *= 2
            flops += conv(top, top, scale)
    return flops + conv(top, 3, scale)

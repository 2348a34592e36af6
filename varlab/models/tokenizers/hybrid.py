"""HART's hybrid image tokenizer: multi-scale vector quantisation, and the residual that it leaves at the last scale.

The sum of the discrete stages is a coarse latent; adding what is left of the encoder's latent gives it back exactly.
Both are decoded by one decoder. Module names equal the keys of the official file without its prefix ``vae.``.
Source: HART (arXiv 2410.10812), section 3.1, and its released code; the network is that of VAR's tokenizer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.models.tokenizers import convnet
from varlab.models.tokenizers.bsq import area, bicubic, latent_grid, side
from varlab.models.tokenizers.convnet import Decoder, Encoder, Layout
from varlab.models.tokenizers.maps import normed
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


def layout(config: HybridConfig) -> Layout:
    return Layout(
        config.latents,
        config.channels,
        config.multipliers,
        config.blocks,
        halvings=len(config.multipliers) - 1,
        norm=partial(norm, groups=config.norm_groups),
        attention=partial(SpatialAttention, groups=config.norm_groups),
        fine_first=True,
    )


def decoder_flops(config: HybridConfig, grid: Grid) -> int:
    """Of the decoder and the convolution before it, on one latent grid."""
    before = 2 * (config.latents * config.kernel) ** 2 * grid[0] * grid[1]
    return before + convnet.decoder_flops(layout(config), *grid)


# Quantisation


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
        self.encoder, self.decoder = Encoder(layout(config)), Decoder(layout(config))
        self.quantize = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.latents, config.latents, config.kernel, padding=half)
        self.post_quant_conv = nn.Conv2d(config.latents, config.latents, config.kernel, padding=half)

    def encode(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in [-1, 1] -> latent [B, Z, h, w] before quantisation."""
        latent_grid(image, self.config.stride)
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

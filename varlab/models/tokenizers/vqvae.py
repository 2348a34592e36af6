"""VAR's image tokenizer: a convolutional VAE with multi-scale residual vector quantisation.

Module names equal the keys of the official file (``vae_ch160v4096z32.pth``).
Source: VAR (arXiv 2404.02905), section 3.2, and its released tokenizer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.tokenizers import convnet
from varlab.models.tokenizers.bsq import area, bicubic, latent_grid, side
from varlab.models.tokenizers.convnet import Decoder, Encoder, Layout, conv
from varlab.models.tokenizers.maps import normed
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


def norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Attention(nn.Module):
    """One head over all positions of a map, with a residual connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(channels, groups)
        self.qkv = conv(channels, 3 * channels, kernel=1)
        self.proj_out = conv(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(normed(self.norm, x)).flatten(2).chunk(3, 1)  # [B, C, n]
        if x.dtype == torch.float16:  # of hundreds of channels the products may pass 65504
            q, k = q.float(), k.float()
        weights = (q.mT @ k * q.shape[1] ** -0.5).softmax(-1, dtype=torch.float32).to(v.dtype)  # [B, query, key]
        return x + self.proj_out((v @ weights.mT).unflatten(-1, x.shape[-2:]))


def layout(config: VQConfig) -> Layout:
    return Layout(
        config.width,
        config.channels,
        config.multipliers,
        config.blocks,
        halvings=len(config.multipliers) - 1,
        norm=partial(norm, groups=config.norm_groups),
        attention=partial(Attention, groups=config.norm_groups),
    )


def decoder_flops(config: VQConfig, grid: Grid) -> int:
    """Of the decoder and the convolution before it, on one latent grid."""
    before = 2 * 9 * config.width**2 * grid[0] * grid[1]
    return before + convnet.decoder_flops(layout(config), *grid)


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


class VQTokenizer(nn.Module):
    """Encoder, quantiser and decoder. ``encode`` gives indices per stage; ``decode`` a clamped image."""

    strips: int | None = None  # rows of a strip, where the decoder runs in strips

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(layout(config))
        self.decoder = Decoder(layout(config))
        self.quantize = Quantizer(config)
        self.quant_conv = conv(config.width, config.width)
        self.post_quant_conv = conv(config.width, config.width)

    def step(self, codes: Tensor, k: int, stages: int, grid: Grid) -> Tensor:
        """What stage k of so many adds to the canvas: its code map [B, c, h, w] enlarged and smoothed."""
        phis = self.quantize.phis()
        return phis[phi_index(stages, len(phis))[k]](bicubic(codes, grid))

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
        latent_grid(image, self.config.stride)
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

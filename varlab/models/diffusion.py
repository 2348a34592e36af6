"""HART's residual diffusion head: a small network that denoises what the discrete code of a token leaves over.

The network computes in the type of its weights: fp32, or half precision where a model is loaded so. The solver around
it, that is the noisy residual, the coefficients of a step, the clean value and guidance, is in fp32 either way: the
first step multiplies what rounding leaves by 20,000.

Module names equal the official keys under ``diffloss.``. Source: HART (arXiv 2410.10812), section 3.2, after MAR
(arXiv 2406.11838) and improved diffusion (arXiv 2102.09672), whose cosine schedule and learned variance it uses.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from varlab.models.layers import modulate
from varlab.models.packed import typed

TRAINED_STEPS = 1000
FREQUENCIES = 256
RESIDUAL_SCALE = 0.6  # the head was trained on residuals divided by this
Normal = Callable[[str], Tensor]  # kind -> standard normal numbers [B, n, Z]


def sinusoid(t: Tensor, width: int = FREQUENCIES) -> Tensor:
    """Numbers [n] -> [n, width]: cosines, then sines, of frequencies from 1 down to 1/10000."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class ScalarEmbedding(nn.Module):
    """A number, as a time step or a level: [n] -> [n, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(sinusoid(t).to(self.mlp[2].bias.dtype))  # type: ignore[arg-type]


class _ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, -1)
        return x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)


class _FinalLayer(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(y).chunk(2, -1)
        return self.linear(modulate(x, scale, shift).to(x.dtype))


class Denoiser(nn.Module):
    """Noisy residual, time and what the transformer knows of the token -> noise and variance value."""

    def __init__(self, latents: int, condition: int, width: int, depth: int) -> None:
        super().__init__()
        self.time_embed = ScalarEmbedding(width)
        self.cond_embed = nn.Linear(condition, width)
        self.input_proj = nn.Linear(latents, width)
        self.res_blocks = nn.ModuleList(_ResBlock(width) for _ in range(depth))
        self.final_layer = _FinalLayer(width, 2 * latents)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """x [..., Z]; embeddings of the time and of the condition [..., width] -> [..., 2Z]."""
        y = time + condition
        h = self.input_proj(x)
        for block in self.res_blocks:
            h = block(h, y)
        return self.final_layer(h, y)


@dataclass(frozen=True)
class DiffusionTable:
    """Constants of a schedule of few steps, one entry a step, float64. ``times`` are the steps of the full schedule."""

    times: np.ndarray
    betas: np.ndarray
    alpha_bar: np.ndarray  # share of the signal's variance that is left (cumulative product of 1 - beta)

    @property
    def alpha_bar_before(self) -> np.ndarray:
        """``alpha_bar`` one step earlier."""
        return np.append(1.0, self.alpha_bar[:-1])

    @property
    def posterior(self) -> np.ndarray:
        """Variance of a step back once the clean value is known."""
        return self.betas * (1 - self.alpha_bar_before) / (1 - self.alpha_bar)

    @property
    def log_posterior(self) -> np.ndarray:
        """Its logarithm, the first entry replaced by the second because it would be -inf."""
        return np.log(np.append(self.posterior[min(1, len(self.betas) - 1)], self.posterior[1:]))

    @property
    def from_clean(self) -> np.ndarray:
        return self.betas * np.sqrt(self.alpha_bar_before) / (1 - self.alpha_bar)

    @property
    def from_noisy(self) -> np.ndarray:
        return (1 - self.alpha_bar_before) * np.sqrt(1 - self.betas) / (1 - self.alpha_bar)


def spaced(steps: int) -> np.ndarray:
    """Evenly spaced steps of the full schedule, both ends included; their distance is summed up as a float."""
    stride, place, chosen = (TRAINED_STEPS - 1) / (steps - 1) if steps > 1 else 1.0, 0.0, []
    for _ in range(steps):
        chosen.append(round(place))
        place += stride
    return np.array(chosen)


@cache
def diffusion_table(steps: int) -> DiffusionTable:
    """The cosine schedule of 1000 steps, seen at ``steps`` of them."""

    def level(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    full = [1 - level((i + 1) / TRAINED_STEPS) / level(i / TRAINED_STEPS) for i in range(TRAINED_STEPS)]
    alpha_bar = np.cumprod(1 - np.minimum(np.array(full), 0.999))[spaced(steps)]
    betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
    return DiffusionTable(spaced(steps), betas, np.cumprod(1 - betas))


class ResidualDiffusion(nn.Module):
    """Draws residuals from the transformer's last hidden states."""

    def __init__(self, latents: int, condition: int, width: int, depth: int) -> None:
        super().__init__()
        self.latents = latents
        self.net = Denoiser(latents, condition, width, depth)

    def times(self, steps: int) -> Tensor:
        """Embeddings of the times of so many steps [steps, width]."""
        device = self.net.input_proj.weight.device
        return torch.cat([self.net.time_embed(torch.tensor([t], device=device)) for t in diffusion_table(steps).times])

    def sample(self, hidden: Tensor, batch: int, extra: float, times: Tensor, normal: Normal) -> Tensor:
        """hidden [R, n, C], the steps' ``times`` -> residuals [B, n, Z], fp32, at most 0.6 in size.

        R = 2B rows are guided: noise = (1 + extra) conditional - extra unconditional. As released, extra = 1 guides
        no more than 0 does. ``normal(kind)`` gives one draw for the start and one for each step but the last.
        """
        rows, steps = hidden.shape[0] // batch if extra not in (0, 1) else 1, len(times)
        condition = self.net.cond_embed(typed(self.net.cond_embed, hidden[: rows * batch]))
        x = normal("diffusion-start")
        for step in reversed(range(steps)):
            out = self.net(x.to(condition.dtype).repeat(rows, 1, 1), times[step], condition)
            if out.dtype == torch.float16:
                out = out + (out - out)  # the infinite becomes no number, which is noticed: a clamp would hide it
            noise, variance = (out := out.float())[:batch].chunk(2, -1)
            if rows == 2:
                noise = (1 + extra) * noise - extra * out[batch:, :, : self.latents]
            x = step_back(x, noise, variance, step, steps, normal(f"diffusion-{step}") if step else None)
        return RESIDUAL_SCALE * x


def step_back(x: Tensor, noise: Tensor, variance: Tensor, step: int, steps: int, fresh: Tensor | None) -> Tensor:
    """One step of the reverse process on x [B, n, Z]; ``variance`` in [-1, 1] lies between the two known bounds."""
    table = diffusion_table(steps)
    clean = (x * math.sqrt(1 / table.alpha_bar[step]) - math.sqrt(1 / table.alpha_bar[step] - 1) * noise).clamp(-1, 1)
    mean = float(table.from_clean[step]) * clean + float(table.from_noisy[step]) * x
    if fresh is None:
        return mean
    share = (variance + 1) / 2
    log_variance = share * math.log(table.betas[step]) + (1 - share) * float(table.log_posterior[step])
    return mean + torch.exp(0.5 * log_variance) * fresh


def denoiser_flops(latents: int, condition: int, width: int, depth: int, steps: int, tokens: int) -> int:
    """Matrix products of all steps for so many rows of tokens, the embeddings of the times left out."""
    each = latents * width + depth * 5 * width**2 + 2 * width**2 + width * 2 * latents
    return 2 * tokens * (condition * width + steps * each)


def embedding_flops(width: int) -> int:
    """Of one ``ScalarEmbedding``."""
    return 2 * (FREQUENCIES + width) * width

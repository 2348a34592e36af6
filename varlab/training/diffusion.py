"""The loss of HART's residual diffusion head.

Source: improved diffusion (arXiv 2102.09672): the noise's squared error, and for the learned variance the variational
bound at the predicted noise, held fixed. As in MAR (arXiv 2406.11838) every token trains at several times at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.diffusion import RESIDUAL_SCALE, TRAINED_STEPS, ResidualDiffusion, diffusion_table


def _constants(values: object, times: Tensor) -> Tensor:
    """Entries of a table of all times at ``times`` [n] -> [n, 1]."""
    return torch.as_tensor(values, dtype=torch.float32, device=times.device)[times][:, None]


def residual_loss(
    head: ResidualDiffusion, condition: Tensor, residual: Tensor, repeats: int, generator: torch.Generator
) -> Tensor:
    """condition [n, C] and what the codes of the same tokens leave over [n, Z] -> the loss, about 1 at the start.

    ``repeats``: noisy copies of every token; more is a steadier gradient.
    """
    table = diffusion_table(TRAINED_STEPS)
    clean = (residual / RESIDUAL_SCALE).clamp(-1, 1).repeat(repeats, 1)
    times = torch.randint(TRAINED_STEPS, (len(clean),), generator=generator).to(clean.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    kept = _constants(table.alpha_bar, times)
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    embedded = head.net.cond_embed(condition).repeat(repeats, 1)
    out = head.net(noisy, head.net.time_embed(times), embedded).float()
    predicted, share = out.chunk(2, -1)
    return F.mse_loss(predicted, noise) + _bound(noisy, clean, predicted.detach(), share, times)


def _bound(noisy: Tensor, clean: Tensor, predicted: Tensor, share: Tensor, times: Tensor) -> Tensor:
    """Mean divergence of the true step back from the predicted one, whose variance ``share`` in [-1, 1] sets.

    At the last step, too, it stands for the likelihood, with the variance that sampling uses there.
    """
    table = diffusion_table(TRAINED_STEPS)
    kept, least = _constants(table.alpha_bar, times), _constants(table.log_posterior, times)
    guess = (noisy / kept.sqrt() - (1 / kept - 1).sqrt() * predicted).clamp(-1, 1)
    part = (share + 1) / 2
    log_variance = part * _constants(table.betas, times).log() + (1 - part) * least
    apart = _constants(table.from_clean, times) * (clean - guess)
    both = 1 + log_variance - least
    return 0.5 * (both - 2 + (least - log_variance).exp() + apart.square() * (-log_variance).exp()).mean()

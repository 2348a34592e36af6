"""Training of the minis' hybrid tokenizer on procedural scenes.

Half of a batch decodes the sum of its codes, half the latent before quantisation, so that one decoder reads both and
the residual between them is worth drawing. No adversarial term. Source: HART (arXiv 2410.10812), section 3.1; codes
that a batch does not use are pulled to the residuals nearest to them, after CVQ-VAE (arXiv 2307.15139), by gradient.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.hybrid import HybridTokenizer, Quantised
from varlab.schedules import Grid
from varlab.training.precision import autocast
from varlab.training.tokenizer import Images, reconstruction_loss, to_signed

COMMITMENT = 0.25
REVIVAL = 0.1
SPREAD = 0.3  # weight of the pull on the latents' mean square towards 1


def quantised(
    tokenizer: HybridTokenizer, latent: Tensor, grids: Sequence[Grid], swaps: Tensor, generator: torch.Generator
) -> tuple[list[Quantised], list[Tensor]]:
    """The stages of a latent when some codes are the next image's and later stages mend that.

    swaps [B, stages]: probability that a token of a stage is swapped. The last stage passes no phi convolution.
    -> stages with the labels that were shown, and the labels [B, n_k] that would have been right.
    """
    right: list[Tensor] = []

    def choose(tokens: Tensor, k: int) -> Tensor:
        right.append(tokenizer.quantize.nearest(tokens))
        drawn = torch.rand(right[k].shape, generator=generator).to(latent.device)
        return torch.where(drawn < swaps[:, k, None].to(latent.device), right[k].roll(1, 0), right[k])

    return list(tokenizer.steps(latent, grids, last_phi=False, choose=choose)), right


def revival(tokenizer: HybridTokenizer, stages: Sequence[Quantised], grids: Sequence[Grid]) -> tuple[Tensor, Tensor]:
    """Mean squared distance of the unused codes to the nearest residual of the batch, and the share of used codes."""
    table = tokenizer.quantize.embedding.weight
    with torch.no_grad():
        seen = [
            area(stage.residual, grid).flatten(2).mT.flatten(0, 1) for stage, grid in zip(stages, grids, strict=True)
        ]
        used = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        used[torch.cat([stage.labels.flatten() for stage in stages])] = True
        tokens = torch.cat(seen)
        nearest = tokens[torch.cdist(table[~used], tokens).argmin(-1)]
    if used.all():
        return table.new_zeros(()), used.float().mean()
    return F.mse_loss(table[~used], nearest), used.float().mean()


class HybridTask:
    """Every eighth update decodes a canvas one or two stages before the last, so that partial canvases decode well.

    The decoder reads codes of which U(0, ``swap``) a sample are another image's: a transformer's samples are never
    exactly the encoder's codes. More swaps make samples cleaner and textures fainter.
    """

    def __init__(
        self,
        module: HybridTokenizer,
        grids: Sequence[Grid],
        images: Images,
        swap: float,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.module, self.grids, self.images, self.device = module, tuple(grids), images, device
        self.swap, self.seed = swap, seed

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        image = to_signed(self.images(step, rank).to(self.device)).contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed((self.seed << 40) + (step << 8) + rank)
        swaps = torch.rand(len(image), 1, generator=generator).expand(-1, len(self.grids)) * self.swap
        with autocast(self.device):
            latent = self.module.encode(image).float()
        target = latent.detach()
        stages, _ = quantised(self.module, target, self.grids, swaps, generator)
        shown = stages[-1 if step % 8 else -2 - (step // 8) % 2].canvas.detach()
        whole = torch.arange(len(image), device=latent.device)[:, None, None, None] % 2 == 0
        through = torch.where(whole, latent, latent + (shown - latent).detach())
        with autocast(self.device):
            output = self.module.pixels(through).float()
        learnt = torch.stack([F.mse_loss(stage.canvas, target) for stage in stages]).mean()
        commitment = F.mse_loss(latent, stages[-1].canvas.detach())  # to all stages, it would flatten the latent
        dead, used = revival(self.module, stages, self.grids)
        spread = (latent.square().mean() - 1).square()
        loss = reconstruction_loss(output, image) + learnt + COMMITMENT * commitment + REVIVAL * dead + SPREAD * spread
        return loss, self._psnr(output.detach(), image) | {
            "latent": float(target.square().mean().sqrt()),
            "residual": float((target - stages[-1].canvas.detach()).square().mean().sqrt()),
            "used": float(used),
        }

    @staticmethod
    def _psnr(output: Tensor, image: Tensor) -> dict[str, float]:
        """Of the half that was decoded from latents, and of the half decoded from codes."""
        errors = (output.clamp(-1, 1) - image).square().mean((1, 2, 3))
        names = ("psnr", "psnr_discrete")
        return {name: float(10 * torch.log10(4 / errors[i::2].mean())) for i, name in enumerate(names)}

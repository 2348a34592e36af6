"""Training of the minis' vector-quantised tokenizer on procedural scenes.

No adversarial term: the losses of ``training.tokenizer``, a codebook learnt by gradient under swapped codes, and dead
codes revived from what is being quantised. Source: VAR (arXiv 2404.02905), section 3.2; the revival is common practice.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.vqvae import VQTokenizer
from varlab.schedules import Grid
from varlab.training.precision import autocast
from varlab.training.tokenizer import Images, reconstruction_loss, to_signed

COMMITMENT = 0.25
REVIVE_EVERY = 20  # updates
DEAD = 0.03  # uses an update, as a share of what every code would have if all were used alike
HITS_DECAY = 0.9


def swapped(index: Tensor, chance: Tensor, generator: torch.Generator) -> Tensor:
    """Indices [B, h, w], each replaced by the next image's with its sample's probability [B, 1, 1]."""
    drawn = torch.rand(index.shape, generator=generator).to(index.device)
    return torch.where(drawn < chance.to(index.device), index.roll(1, 0), index)


@torch.no_grad()
def rescale(module: VQTokenizer, factor: float) -> None:
    """Multiply latents, codes and canvases by a factor; images and indices stay the same but for rounding."""
    quantizer = module.quantize
    scaled = [module.quant_conv.weight, module.quant_conv.bias, quantizer.embedding.weight]
    for tensor in [*scaled, *(phi.bias for phi in quantizer.phis())]:
        assert tensor is not None
        tensor.mul_(factor)
    module.post_quant_conv.weight.div_(factor)


@torch.no_grad()
def unit_scale(module: VQTokenizer, images: Tensor) -> VQTokenizer:
    """The same tokenizer with latents of deviation 1 over images uint8 [B, H, W, 3], which losses on codes presume.

    The factor is rounded to two digits, so that it does not depend on the machine.
    """
    rescale(module, float(f"{1 / float(module.latent(to_signed(images)).std()):.1e}"))
    return module


class VQTask:
    """Every eighth update decodes a canvas one or two stages before the last, so that partial canvases decode well.

    The decoder reads canvases of which U(0, ``swap``) of the codes a sample are another image's, and the later stages
    mend them: a transformer's samples are never exactly the encoder's codes. Dead codes are revived until the update
    ``revive_until``.
    """

    def __init__(
        self,
        module: VQTokenizer,
        grids: Sequence[Grid],
        images: Images,
        swap: float,
        revive_until: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.module, self.grids, self.images, self.device = module, tuple(grids), images, device
        self.swap, self.revive_until, self.seed = swap, revive_until, seed

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        image = to_signed(self.images(step, rank).to(self.device))
        generator = torch.Generator().manual_seed((self.seed << 40) + (step << 8) + rank)
        chance = torch.rand(len(image), 1, 1, generator=generator) * self.swap
        with autocast(self.device):
            latent = self.module.latent(image).float()
        if step % REVIVE_EVERY == 0 and step < self.revive_until:
            self._revive(latent.detach(), generator)
        steps = self.module.residual_steps(latent.detach(), self.grids, lambda i, _: swapped(i, chance, generator))
        indices, canvases = zip(*steps, strict=True)
        self._count(indices)
        shown = canvases[-1 if step % 8 else -2 - (step // 8) % 2].detach()
        with autocast(self.device):
            through = latent + (shown - latent).detach()
            output = self.module.decoder(self.module.post_quant_conv(through)).float()
        learnt = torch.stack([F.mse_loss(canvas, latent.detach()) for canvas in canvases]).mean()
        commitment = torch.stack([F.mse_loss(latent, canvas.detach()) for canvas in canvases]).mean()
        loss = reconstruction_loss(output, image) + learnt + COMMITMENT * commitment
        error = F.mse_loss(output.detach().clamp(-1, 1), image)
        used = (self.module.quantize.ema_vocab_hit_SV.sum(0) > 0.5).float().mean()
        return loss, {
            "psnr": float(10 * torch.log10(4 / error)),
            "codebook": float(learnt.detach()),
            "used": float(used),
        }

    @torch.no_grad()
    def _count(self, indices: Sequence[Tensor]) -> None:
        """Running uses of each code an update, stage by stage, over all workers."""
        hits = torch.stack([torch.bincount(i.flatten(), minlength=self.module.config.codes) for i in indices]).float()
        if dist.is_initialized():
            dist.all_reduce(hits)
        self.module.quantize.ema_vocab_hit_SV.lerp_(hits, 1 - HITS_DECAY)

    @torch.no_grad()
    def _revive(self, latent: Tensor, generator: torch.Generator) -> None:
        """Codes that are hardly used become residuals of this batch, an equal share from every stage."""
        hits, table = self.module.quantize.ema_vocab_hit_SV.sum(0), self.module.quantize.embedding.weight
        dead = (hits <= DEAD * hits.mean()).nonzero().squeeze(-1)
        if not len(dead):
            return
        found, canvas = [], torch.zeros_like(latent)
        for grid, (_, after) in zip(self.grids, self.module.residual_steps(latent, self.grids), strict=True):
            found.append(area(latent - canvas, grid).movedim(1, -1).flatten(0, 2))
            canvas = after
        each = -(-len(dead) // len(found))
        picks = [part[torch.randint(len(part), (each,), generator=generator).to(part.device)] for part in found]
        fresh = torch.cat(picks)[torch.randperm(each * len(found), generator=generator)[: len(dead)]]
        if dist.is_initialized():  # the codebook stays the same on all workers
            dist.broadcast(fresh, 0)
        table[dead] = fresh

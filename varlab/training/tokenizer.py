"""Training of the minis' BSQ tokenizer on procedural scenes.

No adversarial and no entropy term: weighted L1 and L2, image gradients, commitment, under flipped bits.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.tokenizers.bsq import BSQTokenizer, residual_steps
from varlab.schedules import Grid
from varlab.training.precision import autocast

Images = Callable[[int, int], Tensor]  # (step, rank) -> uint8 [B, H, W, 3]
Flip = Callable[[Tensor, int], Tensor]  # (bits, stage) -> bits


def to_signed(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in [-1, 1]."""
    return images.movedim(-1, 1).float() / 127.5 - 1


def straight_through(latent: Tensor, grids: Sequence[Grid], flip: Flip | None = None) -> tuple[Tensor, Tensor]:
    """Latent [B, b, H, W] -> (canvas with the gradient of the latent, the plain canvas)."""
    *_, (_, canvas) = residual_steps(latent.detach(), grids, flip)
    return latent + (canvas - latent).detach(), canvas


def gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.diff(dim=-1), image.diff(dim=-2)


def reconstruction_loss(output: Tensor, image: Tensor) -> Tensor:
    """L1 + L2 weighted towards what differs from the image's mean, + L1 of the image gradients."""
    weight = 1 + 3 * (image - image.mean((-2, -1), keepdim=True)).abs().mean(1, keepdim=True)
    difference = output - image
    pixels = (weight * (difference.abs() + difference.square())).mean()
    edges = sum((a - b).abs().mean() for a, b in zip(gradients(output), gradients(image), strict=True))
    return pixels + edges


class TokenizerTask:
    """Every eighth update sees a schedule without its last stages, so that partial canvases decode well.

    The decoder reads codes of which some bits are flipped, U(0, ``flip``) of them per sample: a transformer's samples
    are never exactly the encoder's codes. More flips make samples cleaner and textures fainter.
    """

    def __init__(
        self,
        module: BSQTokenizer,
        grids: Sequence[Grid],
        images: Images,
        flip: float,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.module, self.grids, self.images, self.device = module, tuple(grids), images, device
        self.flip, self.seed = flip, seed

    def _stages(self, step: int) -> Sequence[Grid]:
        if step % 8 or len(self.grids) < 3:
            return self.grids
        return self.grids[: len(self.grids) - 1 - (step // 8) % 2]

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        image = to_signed(self.images(step, rank).to(self.device)).contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed((self.seed << 40) + (step << 8) + rank)
        strength = torch.rand(len(image), 1, 1, 1, generator=generator) * self.flip

        def flip(bits: Tensor, k: int) -> Tensor:
            return bits ^ (torch.rand(bits.shape, generator=generator) < strength).to(bits.device)

        with autocast(self.device):
            latent = self.module.encoder(image).float()
            through, canvas = straight_through(latent, self._stages(step), flip)
            output = self.module.decoder(through).float()
        commitment = F.mse_loss(latent, canvas)
        loss = reconstruction_loss(output, image) + 0.25 * commitment
        error = F.mse_loss(output.detach().clamp(-1, 1), image)
        return loss, {"psnr": float(10 * torch.log10(4 / error)), "commitment": float(commitment.detach())}

"""Training of HART-style transformers on scenes: labels and diffusion residual at once, under self-correction.

Source: HART (arXiv 2410.10812), sections 3.2 and 3.3: cross-entropy of all stages under a block-causal mask with the
text in front, the diffusion head on the last stage, of which random tokens train. The swapped codes whose residual the
later stages mend follow Infinity (arXiv 2412.04431), section 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.hart import Block, HartConfig, HartText, HartTransformer
from varlab.models.hart_captions import pad
from varlab.models.hart_settings import HartSettings
from varlab.models.layers import block_causal_attend
from varlab.models.rotary import grid_rotary
from varlab.models.tokenizers.bsq import BSQTokenizer, area
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.schedules import Schedule
from varlab.training.batches import Captions, at, drawn, shares, subset
from varlab.training.diffusion import residual_loss
from varlab.training.hart_start import start_from_bits
from varlab.training.hart_tokenizer import HybridTask, quantised
from varlab.training.loop import Task
from varlab.training.pool import ScenePool
from varlab.training.precision import autocast
from varlab.training.recipe import Material, Recipe, Trained
from varlab.training.tokenizer import to_signed
from varlab.weights.embedded import MiniFacts, Parts

FITTED = 512  # images that axes and codes are fitted to, where the tokenizer starts from bits


@dataclass(frozen=True)
class Batch:
    """What a batch teaches: labels [B, n_k] of every stage, inputs [B, n_k, Z] of stages 1, 2, ..., and of the last
    stage what its codes leave over [B, n, Z]."""

    labels: list[Tensor]
    inputs: list[Tensor]
    residual: Tensor


@torch.no_grad()
def batch_of(
    tokenizer: HybridTokenizer, latent: Tensor, schedule: Schedule, swaps: Tensor, generator: torch.Generator
) -> Batch:
    """latent [B, Z, H, W] before quantisation; swaps [B, stages]: probability that a code is the next image's."""
    stages, labels = quantised(tokenizer, latent, schedule.grids, swaps, generator)
    inputs = [area(s.canvas, grid).flatten(2).mT for s, grid in zip(stages, schedule.grids[1:], strict=False)]
    left = stages[-1].residual.flatten(2).mT - tokenizer.quantize.embedding(labels[-1])
    return Batch(labels, inputs, left)


class HartTask:
    """Cross-entropy over the codebook, weighted by 1 / side of the stage so that coarse stages count, and the diffusion
    head's loss.

    ``repeats``: noisy copies of every token that the diffusion head learns from.
    """

    repeats = 4

    def __init__(self, module: Trained, material: Material) -> None:
        self.module, self.schedule, self.latents = module, material.schedule, material.latents
        self.text, self.transformer = module.captions(), cast(HartTransformer, module.transformer)
        self.config, self.seen, self.device = material.correction, material.seen, material.device
        self.tokenizer: HybridTokenizer = material.tokenizer
        self.run = material.runner(Block.forward)
        self.captions = Captions(self.text, material.captions, self.config.shorten)
        self.share = shares(self.schedule.grids).to(self.device)

    def _text(self, index: np.ndarray, generator: torch.Generator) -> HartText:
        """Features of the captions, some shortened, those of a random share replaced by the null text."""
        numbers, lengths = self.captions.drawn(index, generator)
        text = pad(self.text.encode(numbers.to(self.device), lengths), self.transformer.config.text_length)
        dropped = torch.rand(len(index), generator=generator) < self.config.drop
        return HartText(text.features.float(), text.mask).dropped(dropped.to(self.device))

    def _rotary(self, text: HartText, chosen: Sequence[Tensor | None]) -> list[Tensor]:
        """Tables of the chosen tokens of stages 1, 2, ..., which begin where each text ends."""
        width, offset = self.transformer.config.head_width, text.positions[:, -1]
        return at(chosen, [grid_rotary(g, self.schedule.final, offset, width) for g in self.schedule.grids[1:]], 1)

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        index, generator = drawn(config, self.seen + step, rank, len(self.latents))
        swaps = torch.rand(config.batch, len(self.schedule), generator=generator) * config.swap
        latent = torch.from_numpy(np.array(self.latents[index])).to(self.device).float()
        batch = batch_of(self.tokenizer, latent, self.schedule, swaps, generator)
        chosen = subset(self.schedule.lengths, config, step, generator)
        labels, inputs = at(chosen, batch.labels, 1), at(chosen[1:], batch.inputs, 1)
        lengths = tuple(part.shape[1] for part in labels)
        hidden, head = self._hidden(index, inputs, chosen, lengths, generator)
        wrong = F.cross_entropy(
            self.transformer.logits(hidden, head).flatten(0, 1), torch.cat(labels, 1).flatten(), reduction="none"
        )
        stages = torch.stack([part.mean() for part in wrong.view(len(index), -1).split(lengths, 1)])
        (left,) = at(chosen[-1:], [batch.residual], 1)
        diffusion = self._diffusion(hidden[:, -lengths[-1] :], labels[-1], left, generator)
        figures = {"last_stage": float(stages[-1].detach()), "diffusion": float(diffusion.detach())}
        return (stages * self.share).sum() + diffusion, figures

    def _hidden(
        self,
        index: np.ndarray,
        inputs: Sequence[Tensor],
        chosen: Sequence[Tensor | None],
        lengths: tuple[int, ...],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        config = self.transformer.config
        attend = block_causal_attend((config.text_length, *lengths[1:]), config.attention_scale)
        with autocast(self.device):
            text = self._text(index, generator)
            hidden, head = self.transformer(text, inputs, self._rotary(text, chosen[1:]), attend, self.run)
        return hidden.float(), head.float()

    def _diffusion(self, hidden: Tensor, labels: Tensor, left: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of the head on the last stage's tokens, which know their right codes."""
        condition = self.transformer.residual_condition(hidden, self.tokenizer.quantize.embedding(labels))
        head = self.transformer.diffloss
        return residual_loss(head, condition.flatten(0, 1), left.flatten(0, 1), self.repeats, generator)


@dataclass(frozen=True, kw_only=True)
class HartRecipe(Recipe):
    """A HART and its hybrid tokenizer. ``tokenizer_swap`` bounds the share of swapped codes that the decoder sees."""

    tokenizer: HybridConfig
    transformer: HartConfig
    settings: HartSettings
    tokenizer_swap: float = 0.08

    def new_tokenizer(self) -> HybridTokenizer:
        tokenizer: HybridTokenizer = super().new_tokenizer()
        with torch.no_grad():
            tokenizer.quantize.embedding.weight.mul_(0.3)  # about the size of a later stage's residuals
        return channels_last(tokenizer)

    def new_transformer(self) -> Trained:
        """Queries and keys start twice as large, for the attention's scale is four times smaller than usual; what the
        sublayers add, smaller by the root of their number."""
        trained = super().new_transformer()
        transformer = cast(HartTransformer, trained.transformer)
        config, shrink = transformer.config, (2 * transformer.config.depth) ** -0.5
        with torch.no_grad():
            for block in cast(Sequence[Block], transformer.blocks):
                block.attn.qkv_proj.weight[: 2 * config.width] *= 1.0 if config.unit_attention else 2.0
                block.attn.proj.weight *= shrink
                block.ffn.down_proj.weight *= shrink
        return trained

    def adopt(self, tokenizer: HybridTokenizer, source: Parts, facts: MiniFacts, pool: ScenePool) -> None:
        """From a hybrid tokenizer as it is, from a BSQ tokenizer its convolutions."""
        if not isinstance(source.tokenizer, BSQTokenizer):
            return super().adopt(tokenizer, source, facts, pool)
        images = to_signed(torch.from_numpy(np.array(pool.images[:FITTED])))
        start_from_bits(tokenizer, source.tokenizer, images, self.schedule.grids, self.tokenizer_loop.seed)

    def tokenizer_task(self, tokenizer: HybridTokenizer, pool: ScenePool, device: str) -> Task:
        images, seed = self.images(pool), self.tokenizer_loop.seed
        return HybridTask(tokenizer, self.schedule.grids, images, self.tokenizer_swap, seed, device)

    def latents_of(self, tokenizer: HybridTokenizer, images: Tensor) -> Tensor:
        return tokenizer.encode(images)

    def transformer_task(self, module: Trained, material: Material) -> Task:
        return HartTask(module, material)

"""Training of Infinity-style transformers on scenes: bitwise self-correction under teacher forcing.

Source: Infinity, section 3.3 (random bit flips, the residual recomputed after them, labels not flipped). The swaps of
whole tokens are our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.infinity import Block, InfinityTransformer, TextBatch
from varlab.models.layers import block_causal_attend
from varlab.models.rotary import rotary_table
from varlab.models.tokenizers.bsq import BSQTokenizer, residual_steps, upsample
from varlab.models.tokenizers.maps import channels_last
from varlab.schedules import Grid
from varlab.training.batches import Captions, at, drawn, shares, subset
from varlab.training.loop import Task
from varlab.training.pool import ScenePool
from varlab.training.precision import autocast
from varlab.training.recipe import Material, Recipe, Trained
from varlab.training.tokenizer import TokenizerTask


def self_correction(
    latent: Tensor, grids: Sequence[Grid], flips: Tensor, swaps: Tensor, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Labels and inputs under random bit flips and token swaps.

    latent [B, b, H, W]; flips [B, stages]: probability that a bit of a stage is flipped; swaps [B, stages]: that a
    token shows the next image's bits. A sampled token is wrong as a whole, say of another colour, more often than
    bit by bit, and only swaps teach the later stages to mend that.
    -> labels [B, n_k, b] (float 0/1) of every stage, inputs [B, n_k, b] of stages 1, 2, ...
    """

    def corrupt(bits: Tensor, k: int) -> Tensor:
        chance = torch.rand((*bits.shape[:-1], 1), generator=generator).to(latent.device)
        bits = torch.where(chance < swaps[:, k, None, None, None], bits.roll(1, 0), bits)
        noise = torch.rand(bits.shape, generator=generator).to(latent.device)
        return bits ^ (noise < flips[:, k, None, None, None])

    labels, canvases = zip(*residual_steps(latent, grids, corrupt), strict=True)
    inputs = [upsample(canvas, grid).flatten(2).mT for canvas, grid in zip(canvases, grids[1:], strict=False)]
    return [bits.flatten(1, 2).float() for bits in labels], inputs


class InfinityTask:
    """Bit cross-entropy, weighted by 1/side of the stage so that coarse stages count."""

    def __init__(self, module: Trained, material: Material) -> None:
        self.module, self.schedule, self.latents = module, material.schedule, material.latents
        self.text, self.transformer = module.captions(), cast(InfinityTransformer, module.transformer)
        self.config, self.seen, self.device = material.correction, material.seen, material.device
        self.run = material.runner(Block.forward)
        self.captions = Captions(self.text, material.captions, self.config.shorten)
        head_width = self.transformer.config.width // self.transformer.config.heads
        self.rotary = rotary_table(self.schedule, head_width).to(self.device)
        self.compiled = material.compiled
        self.share = shares(self.schedule.grids).to(self.device)

    def _text(self, index: np.ndarray, generator: torch.Generator) -> TextBatch:
        """Features of the captions, some shortened, those of a random share replaced by the null text."""
        numbers, lengths = self.captions.drawn(index, generator)
        text = self.text.encode(numbers.to(self.device), lengths)
        null = self.transformer.unconditional(lengths)
        dropped = torch.rand(len(index), generator=generator) < self.config.drop
        rows = torch.repeat_interleave(dropped, torch.tensor(lengths)).to(self.device)
        return TextBatch(torch.where(rows[:, None], null.features, text.features.float()), text.lengths)

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        index, generator = drawn(config, self.seen + step, rank, len(self.latents))
        strength = torch.rand(2, config.batch, len(self.schedule), generator=generator).to(self.device)
        flips, swaps = strength[0] * config.flip, strength[1] * config.swap
        latent = torch.from_numpy(self.latents[index]).to(self.device).float()
        labels, inputs = self_correction(latent, self.schedule.grids, flips, swaps, generator)
        chosen = subset(self.schedule.lengths, config, step, generator)
        labels, inputs = at(chosen, labels, 1), at(chosen[1:], inputs, 1)
        rotary = torch.cat(at(chosen, self.rotary.split(self.schedule.lengths), 0))
        if self.compiled:  # all cosines, then all sines in memory, as vector units read them
            rotary = rotary.movedim(-1, 0).contiguous().movedim(0, -1)
        lengths = tuple(part.shape[1] for part in labels)
        with autocast(self.device):
            text, attend, longest = self._text(index, generator), block_causal_attend(lengths), self.captions.longest
            logits = self.transformer(text, inputs, rotary, attend, longest, self.run)
        score = logits[..., 1::2] - logits[..., 0::2]
        wrong = F.binary_cross_entropy_with_logits(score, torch.cat(labels, 1), reduction="none")
        stages = torch.stack([part.mean() for part in wrong.split(lengths, 1)])
        return (stages * self.share).sum(), {"last_stage": float(stages[-1].detach())}


@dataclass(frozen=True)
class InfinityRecipe(Recipe):
    """An Infinity and its BSQ tokenizer. ``tokenizer_flip`` bounds the share of flipped bits that the decoder sees."""

    tokenizer_flip: float = 0.08

    def new_tokenizer(self) -> BSQTokenizer:
        return channels_last(cast(BSQTokenizer, super().new_tokenizer()))

    def tokenizer_task(self, tokenizer: BSQTokenizer, pool: ScenePool, device: str) -> Task:
        images, seed = self.images(pool), self.tokenizer_loop.seed
        return TokenizerTask(tokenizer, self.schedule.grids, images, self.tokenizer_flip, seed, device)

    def latents_of(self, tokenizer: BSQTokenizer, images: Tensor) -> Tensor:
        return tokenizer.encoder(images)

    def transformer_task(self, module: Trained, material: Material) -> Task:
        return InfinityTask(module, material)

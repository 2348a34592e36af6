"""Training of VAR-style transformers on scenes of one object, by class, under self-correction.

Source: VAR (arXiv 2404.02905), section 3: cross-entropy of all stages at once under a block-causal mask. The swapped
codes whose residual the later stages mend follow Infinity (arXiv 2412.04431), section 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.layers import block_causal_attend
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import Block, VARConfig, VARTransformer
from varlab.scenes import COLORS, SHAPES, benchmark_prompt, render, sample_scenes
from varlab.scenes.grammar import noun_phrase
from varlab.schedules import Grid
from varlab.training.batches import at, drawn, shares, subset
from varlab.training.loop import Task
from varlab.training.pool import ScenePool
from varlab.training.precision import autocast
from varlab.training.recipe import Material, Recipe, Trained
from varlab.training.vqvae import VQTask, swapped, unit_scale

SETTLED = 200  # images whose latents set the scale of the codes
CATEGORY = "colors"  # scenes of one object whose class is its colour and shape


def class_names() -> tuple[str, ...]:
    """ "a red circle", "an orange circle", ...: every colour of every shape, 48 in all, as the scene benchmark asks."""
    return tuple(noun_phrase(shape, 1, (color,)) for shape, color in product(SHAPES, COLORS))


def class_scenes(n: int, seed: int, size: int, first: int = 0) -> tuple[np.ndarray, list[str]]:
    """Scenes ``first`` to ``first + n`` of one object: images uint8 [n, size, size, 3], names of classes."""
    scenes = sample_scenes(n, seed, {CATEGORY: 1.0}, first)
    return render(scenes, size), [benchmark_prompt(scene) for scene in scenes]


def self_correction(
    tokenizer: VQTokenizer, latent: Tensor, grids: Sequence[Grid], swaps: Tensor, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Labels and inputs when some codes are another image's and the residual is taken after them.

    latent [B, c, H, W]; swaps [B, stages]: probability that a code of a stage is the next image's.
    -> labels [B, n_k] of every stage (those of the residual, not the swapped), inputs [B, n_k, c] of stages 1, 2, ...
    """
    steps = tokenizer.residual_steps(latent, grids, lambda i, k: swapped(i, swaps[:, k, None, None], generator))
    indices, canvases = zip(*steps, strict=True)
    inputs = [area(canvas, grid).flatten(2).mT for canvas, grid in zip(canvases, grids[1:], strict=False)]
    return [index.flatten(1) for index in indices], inputs


class Batches:
    """Labels and inputs of a batch: a pure function of (seed, step, rank)."""

    def __init__(self, material: Material, classes: Sequence[str]) -> None:
        self.tokenizer, self.grids = material.tokenizer.to(material.device), material.schedule.grids
        self.latents, self.config = material.latents, material.correction
        self.seen, self.device = material.seen, material.device
        number = {name: i for i, name in enumerate(classes)}
        self.classes, self.null = np.array([number[caption] for caption in material.captions]), len(classes)

    def generator(self, step: int, rank: int) -> tuple[np.ndarray, torch.Generator]:
        """Which samples, and the generator of all else."""
        return drawn(self.config, self.seen + step, rank, len(self.latents))

    @torch.no_grad()
    def codes(self, index: np.ndarray, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        latent = torch.from_numpy(np.array(self.latents[index])).to(self.device).float()
        swaps = torch.rand(len(index), len(self.grids), generator=generator) * self.config.swap
        return self_correction(self.tokenizer, latent, self.grids, swaps, generator)

    def labels(self, index: np.ndarray, generator: torch.Generator) -> Tensor:
        """Class numbers [B], a random share of them replaced by that of no class."""
        numbers = torch.from_numpy(self.classes[index])
        dropped = torch.rand(len(index), generator=generator) < self.config.drop
        return torch.where(dropped, self.null, numbers).to(self.device)


class VARTask:
    """Cross-entropy over the codebook, weighted by 1 / side of the stage so that coarse stages count."""

    def __init__(self, module: Trained, material: Material, classes: Sequence[str]) -> None:
        self.module, self.device, self.batches = module, material.device, Batches(material, classes)
        self.transformer = cast(VARTransformer, module.transformer)
        self.run = material.runner(Block.forward)
        self.lengths = self.transformer.config.lengths
        self.share = shares(self.batches.grids).to(self.device)

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        index, generator = self.batches.generator(step, rank)
        labels, inputs = self.batches.codes(index, generator)
        classes = self.batches.labels(index, generator)
        chosen = subset(self.lengths, self.batches.config, step, generator)
        labels, inputs = at(chosen, labels, 1), at(chosen[1:], inputs, 1)
        lengths = tuple(part.shape[1] for part in labels)
        attend = block_causal_attend(lengths, self.transformer.config.attention_scale)
        with autocast(self.device):
            logits = self.transformer(classes, inputs, attend, chosen[1:], self.run)
        wrong = F.cross_entropy(logits.flatten(0, 1), torch.cat(labels, 1).flatten(), reduction="none")
        stages = torch.stack([part.mean() for part in wrong.view(len(index), -1).split(lengths, 1)])
        return (stages * self.share).sum(), {"last_stage": float(stages[-1].detach())}


@dataclass(frozen=True, kw_only=True)
class VarRecipe(Recipe):
    """A VAR and its VQ tokenizer. ``tokenizer_swap`` bounds the share of swapped codes that the decoder sees."""

    tokenizer: VQConfig
    transformer: VARConfig
    tokenizer_swap: float = 0.08

    def make_scenes(self, n: int, first: int) -> tuple[np.ndarray, list[str]]:
        return class_scenes(n, self.pool_seed, self.image_size, first)

    def tokenizer_task(self, tokenizer: VQTokenizer, pool: ScenePool, device: str) -> Task:
        loop, images = self.tokenizer_loop, self.images(pool)
        return VQTask(tokenizer, self.schedule.grids, images, self.tokenizer_swap, loop.steps // 2, loop.seed, device)

    def settle(self, tokenizer: VQTokenizer, pool: ScenePool) -> VQTokenizer:
        return unit_scale(tokenizer, torch.from_numpy(np.array(pool.images[:SETTLED])))

    def latents_of(self, tokenizer: VQTokenizer, images: Tensor) -> Tensor:
        return tokenizer.latent(images)

    def transformer_task(self, module: Trained, material: Material) -> Task:
        return VARTask(module, material, self.classes)

"""Rebuilds the run that a VAR golden describes: model, weights, labels, prescribed indices and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.guidance import Settings
from varlab.models.layers import block_causal_attend
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARConfig, VARTransformer
from varlab.models.var_model import VAR
from varlab.parity import run, weights
from varlab.parity.golden import Golden
from varlab.schedules import Grid


class BothRows(VAR):
    """VAR that runs the unconditional rows at strength 0 too, as the official code does."""

    def guided(self, settings: Settings) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Setup(run.Setup[BothRows]):
    """``text`` are labels [B]."""

    seed: int
    images: int  # pictures of the encoder's test

    def path(self, golden: Golden, k: int) -> Tensor | None:
        ids = golden.tensor(f"ar_s{k}_ids", (self.batch, self.lengths[k]))
        return None if ids is None else ids.long()

    @property
    def grids(self) -> tuple[Grid, ...]:
        return self.model.schedule.grids

    @property
    def tokenizer(self) -> VQTokenizer:
        return self.model.tokenizer

    def forward(self, labels: Tensor, indices: list[Tensor]) -> Tensor:
        """Logits [B, L, V] of all stages at once, given these indices."""
        config = self.model.transformer.config
        attend = block_causal_attend(config.lengths, config.attention_scale)
        logits: Tensor = self.model.transformer(labels, self.tokenizer.inputs(indices, self.grids), attend)
        return logits

    def joined(self, indices: list[Tensor]) -> Tensor | None:
        """Inputs of all stages but the first [B, L - 1, c]."""
        inputs = self.tokenizer.inputs(indices, self.grids)
        return torch.cat(inputs, 1) if inputs else None

    def pyramid(self) -> list[Tensor]:
        """Prescribed indices of every stage [B, n_k]."""
        codes = self.tokenizer.config.codes
        return [
            weights.indices(f"gt_tokens.s{k}", self.seed, (self.batch, n), codes) for k, n in enumerate(self.lengths)
        ]

    def image(self) -> Tensor:
        """The encoder's pictures [images, 3, H, W] in [-1, 1]."""
        height, width = (side * self.model.stride for side in self.model.schedule.final)
        coarse = weights.tensor("image.coarse", self.seed, (self.images, 3, 8, 8))
        fine = weights.tensor("image.fine", self.seed, (self.images, 3, height, width), 0.2)
        return torch.tanh(F.interpolate(coarse, size=(height, width), mode="bicubic") + fine)


@torch.inference_mode()
def setup(golden: Golden, config: Mapping[str, Any] | None = None) -> Setup:
    """Model and weights of a golden's configuration, or of one of those in it; argmax sampling."""
    config = golden.config if config is None else config
    need = partial(golden.require, config=config)
    seed, sides, labels = need("seed"), tuple(need("patch_nums")), torch.tensor(need("labels"))
    transformer = VARTransformer(
        VARConfig(
            depth=need("depth"),
            width=need("embed"),
            heads=need("heads"),
            classes=need("num_classes"),
            codes=need("V"),
            code_width=need("Cvae"),
            sides=sides,
            shared_modulation=bool(config.get("shared_aln", False)),
            cosine=bool(config.get("l2", True)),
        )
    )
    sizes = need("V"), need("Cvae"), config.get("ch", 160)
    tokenizer = VQTokenizer(VQConfig(*sizes, stages=len(sides), phis=config.get("qsr", 4)))
    for module in (transformer, tokenizer):
        module.eval().requires_grad_(False)
        weights.fill(module, seed, weights.var_rule)
    return Setup(
        model=BothRows(transformer, tokenizer, name=golden.path.stem),
        settings=Settings(cfg=need("cfg"), top_k=1, top_p=0.0),
        text=labels,
        batch=len(labels),
        seed=seed,
        images=config.get("imgs", 1),
    )

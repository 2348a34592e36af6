"""Rebuilds the run that an Infinity golden describes: model, weights, inputs, settings, prescribed bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from varlab.errors import VarlabError, quoted
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityConfig, InfinityTransformer, TextBatch
from varlab.models.infinity_model import Infinity
from varlab.parity import run, weights
from varlab.parity.golden import Golden
from varlab.parity.infinity_vae import grids_of, tokenizer_of
from varlab.schedules import Schedule, custom, matching


@dataclass(frozen=True, kw_only=True)
class Setup(run.Setup[Infinity]):
    """``leaked`` are the bits prescribed for the first stages, on the latent grid [B, h, w, b]."""

    image: Tensor | None
    leaked: dict[int, Tensor]

    def bits_shape(self, k: int) -> tuple[int, ...]:
        """[B, 1, h, w, b] of a stage's bits on the latent grid."""
        grid = self.model.latent_grid(self.model.schedule.grids[k])
        return (self.batch, 1, *grid, self.model.tokenizer.config.bits)

    def path(self, golden: Golden, k: int, prefixes: Sequence[str] = ("",)) -> Tensor | None:
        """The used bits under the first of the ``prefixes`` that has them, else the prescribed ones, else the sampled
        ones."""
        for prefix in prefixes:
            if (used := golden.tensor(f"{prefix}bits_used_{k}", self.bits_shape(k))) is not None:
                return self.model.labels_of(used[:, 0])
        if k in self.leaked:
            return self.model.labels_of(self.leaked[k])
        bits = self.model.transformer.config.bits
        sampled = golden.tensor(f"bits_sampled_{k}", (self.batch, self.lengths[k], bits))
        return None if sampled is None else sampled > 0

    @cached_property
    def all_text(self) -> TextBatch:
        """Text of all rows: the conditional one, then with guidance the negative or the null text."""
        if not self.settings.guided:
            return self.text  # type: ignore[no-any-return]
        return self.text + (self.negative or self.model.transformer.unconditional(self.text.lengths))  # type: ignore[no-any-return]


@torch.inference_mode()
def setup(golden: Golden) -> Setup:
    """Build everything from ``config_json``; where it is silent the documented default holds."""
    config, seed = golden.config, golden.require("seed")
    text = weights.text("text_features", seed, golden.require("lens"), golden.require("Ct5"))
    tokenizer = tokenizer_of(golden, config.get("vae", {}), config.get("vae_seed", seed + 100))
    model = Infinity(_transformer(golden), tokenizer, _schedule(golden), name=golden.path.stem)
    negative = None
    if config.get("neg_lens"):
        negative = weights.text("negative_text_features", seed, config["neg_lens"], config["Ct5"])
    image = None
    if config.get("gt_leak", 0) > 0 and config.get("leak_kind", "random") == "vae":
        height, width = (side * model.stride for side in model.latent_grid(model.schedule.final))
        image = weights.image(seed, len(text.lengths), height, width)
    return Setup(
        model=model,
        settings=_settings(config),
        text=text,
        batch=len(text.lengths),
        negative=negative,
        store_keys=True,
        image=image,
        leaked=_leaked(golden, model, image, len(text.lengths)),
    )


def _transformer(golden: Golden) -> InfinityTransformer:
    config, patchify = golden.config, bool(golden.config.get("patchify", 0))
    sizes = InfinityConfig(
        depth=golden.require("depth"),
        width=golden.require("dim"),
        heads=golden.require("heads"),
        bits=golden.require("bits") * (4 if patchify else 1),
        chunks=config.get("chunks", 4),
        text_width=golden.require("Ct5"),
        text_length=config.get("text_maxlen", 512),
        patchify=patchify,
        bf16_text_attention=bool(config.get("ca_bf16", False)),
    )
    return weights.fill(InfinityTransformer(sizes).eval(), golden.require("seed"), weights.infinity_rule)


def _schedule(golden: Golden) -> Schedule:
    """A released table (its last 1M grid sets the positions) or a custom one (its own last grid does)."""
    grids, table = tuple(grids_of(golden.require("schedule"))), golden.config.get("table", "official")
    if table not in ("official", "custom"):
        raise VarlabError(f"{golden.path.name}: table {quoted(table)} in config_json is neither official nor custom.")
    return matching(grids) if table == "official" else custom(grids, golden.path.stem)


def _settings(config: dict[str, Any]) -> Settings:
    """Argmax sampling. The official code accepts an insertion layer 1 and then guides nothing there."""
    values = {name: config[name] for name in ("cfg", "tau") if name in config}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    layers = tuple(layer for layer in config.get("insert", [0]) if layer != 1)
    return Settings(**values, top_k=1, top_p=0.0, cfg_layers=layers)


def _leaked(golden: Golden, model: Infinity, image: Tensor | None, batch: int) -> dict[int, Tensor]:
    grids = [model.latent_grid(grid) for grid in model.schedule.grids]
    stages = range(min(max(golden.config.get("gt_leak", 0), 0), len(grids)))
    if image is not None:
        bits = model.tokenizer.encode(image, grids)[0]
        return {k: bits[k] for k in stages}
    if golden.config.get("leak_kind", "random") != "random":
        raise VarlabError(f"{golden.path.name}: leak_kind in config_json is neither random nor vae.")
    seed, width = golden.require("seed"), model.tokenizer.config.bits
    return {k: weights.leaked_bits(k, seed, batch, grids[k], width) for k in stages}

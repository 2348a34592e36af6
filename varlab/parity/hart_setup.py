"""Rebuilds the run that a HART golden describes: model, weights, text features, settings and every random number."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.errors import VarlabError, quoted
from varlab.models.base import Attend, Reading
from varlab.models.hart import HartConfig, HartText, HartTransformer
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartConditioning, HartSettings
from varlab.parity import run, weights
from varlab.parity.golden import Golden
from varlab.parity.hart_vae import tokenizer_of
from varlab.schedules import square

ROUNDING = 1e-6  # relative, of a hidden state after all blocks
TOLERATED = {"lvl_1L", "attn_bias_for_masking"}  # in official files, but nothing that inference needs


class Watched(Hart):
    """HART that keeps what no probe sees: the text's tokens after the last block, and codes before the diffusion."""

    after_text: Tensor  # [R, T, C]
    discrete: Tensor  # [B, n, Z] of the stage read last
    sway: Tensor  # [B, n, Z], how far rounding in the hidden states moves its residuals

    def sublayer(
        self, block: int, name: str, x: Tensor, conditioning: HartConditioning, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        y = super().sublayer(block, name, x, conditioning, positions, attend)
        if name == "ffn" and block == self.depth - 1 and x.shape[1] == self.transformer.config.text_length:
            self.after_text = getattr(self, "after_text", x + y)
        return y

    def realise(self, k: int, labels: Tensor, reading: Reading) -> Tensor:
        bare = replace(reading, settings=replace(reading.settings, residual=False))
        self.discrete = super().realise(k, labels, bare)
        codes = super().realise(k, labels, reading)
        self.sway = torch.zeros_like(codes)
        for sign in (1, -1) if self._final(k) and reading.settings.residual else ():
            nudge = sign * ROUNDING * torch.randn(reading.hidden.shape, generator=torch.Generator().manual_seed(0))
            moved = super().realise(k, labels, replace(reading, hidden=reading.hidden * (1 + nudge)))
            self.sway = torch.maximum(self.sway, (moved - codes).abs())
        return codes


@dataclass
class GoldenNoise:
    """The golden's numbers, drawn pass by pass and laid out on the grid. ``pass_of`` [B, h*w] of the last stage."""

    seed: int
    batch: int
    stages: int
    steps: int
    pass_of: Tensor | None = field(default=None)

    def uniform(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        if kind != "order":
            return torch.zeros(len(samples), *shape)  # labels are chosen, not drawn
        numbers = [weights.normal(f"orders.{image}", self.seed, (shape[0],)) for image in samples]
        return torch.from_numpy(np.stack(numbers))[..., None]

    def exponential(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return self._laid_out(stage, shape, lambda i: f"noise.gumbel_exp.{stage + i}", "standard_exponential")

    def normal(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        if kind == "diffusion-start":
            return self._laid_out(stage, shape, lambda i: f"noise.diff_init.{i}")
        order = self.steps - 1 - int(kind.removeprefix("diffusion-"))
        return self._laid_out(stage, shape, lambda i: f"noise.diff_step.{i}.{order}", rows=2)

    def _laid_out(
        self, stage: int, shape: tuple[int, ...], key: Any, distribution: str = "standard_normal", rows: int = 1
    ) -> Tensor:
        """[B, *shape]; a pass draws for its own tokens, for ``rows`` branches of which the first one counts."""
        out = torch.empty(self.batch, *shape)
        for i, place in enumerate(self.passes(stage, shape[0])):
            count = rows * self.batch * place.shape[1] * shape[1]
            values = weights.numbers(key(i), self.seed, (count,), distribution)[: count // rows]
            tensor = torch.from_numpy(values.astype(np.float32)).view(self.batch, -1, shape[1])
            out.scatter_(1, place[..., None].expand_as(tensor), tensor)
        return out

    def passes(self, stage: int, tokens: int) -> list[Tensor]:
        """Positions [B, n] of each pass of a stage, in raster order."""
        pass_of = self.pass_of if stage == self.stages - 1 else None
        if pass_of is None:
            return [torch.arange(tokens).expand(self.batch, -1)]
        return [(pass_of == i).nonzero()[:, 1].view(self.batch, -1) for i in range(int(pass_of.max()) + 1)]


@dataclass(frozen=True, kw_only=True)
class Setup(run.Setup[Watched]):
    noise: GoldenNoise

    def path(self, golden: Golden, k: int) -> Tensor | None:
        """The stage's passes put together; None where the file does not hold them all."""
        labels = torch.zeros(self.batch, self.lengths[k], dtype=torch.int64)
        for i, place in enumerate(self.passes(k)):
            part = golden.tensor(f"idx.{k + i}", place.shape)
            if part is None or part.long().max() >= self.model.transformer.config.vocabulary:
                return None
            labels.scatter_(1, place, part.long())
        return labels

    def passes(self, k: int) -> list[Tensor]:
        """Positions [B, n] that a stage computes together."""
        return self.noise.passes(k, self.lengths[k])


@torch.inference_mode()
def setup(golden: Golden) -> Setup:
    """Build everything from ``config_json``: the run itself, the transformer's and the tokenizer's arguments."""
    given = golden.config.get("config", golden.config)
    need = partial(golden.require, config=given)
    seed, model, vae = need("seed"), golden.require("model"), golden.require("vae")
    schedule = square(tuple(golden.require("patch_nums", model)), golden.path.stem)
    config = config_of(model, need("V"), vae.get("z_channels", 32), len(schedule))
    transformer = weights.fill(HartTransformer(config).eval(), seed, weights.hart_rule)
    watched = Watched(transformer, tokenizer_of(vae, seed, config.vocabulary), schedule, name=golden.path.stem)
    settings = HartSettings(
        cfg=float(need("cfg")),
        smooth=bool(given.get("more_smooth", False)),
        passes=int(given.get("iters", 1)),
        residual=given.get("final_stage", 0) == 0,
    )
    text = text_of(seed, config, need("lens"), given.get("pad", "right"))
    noise = GoldenNoise(seed, len(text.mask), len(schedule), config.diffusion_steps)

    def order(kind: str, width: int, distribution: str = "uniform") -> Tensor:
        return noise.uniform(kind, len(schedule) - 1, range(len(text.mask)), (schedule.lengths[-1], width))

    noise.pass_of = watched.passes(len(schedule) - 1, settings, order)
    likeliest = partial(torch.argmax, dim=-1)
    return Setup(model=watched, settings=settings, text=text, batch=len(text.mask), noise=noise, choose=likeliest)


def config_of(model: dict[str, Any], vocabulary: int, latents: int, stages: int) -> HartConfig:
    """From the official arguments. Of the two ways to modulate, the shared table wins where both are on."""
    separate = not model.get("disable_aln", True)
    return HartConfig(
        depth=model["depth"],
        width=model["embed_dim"],
        heads=model["num_heads"],
        vocabulary=vocabulary,
        latents=latents,
        text_length=model["context_token"],
        text_width=model["context_dim"],
        stages=stages,
        diffusion_width=model.get("diff_width", 1024),
        diffusion_depth=model.get("diff_depth", 6),
        diffusion_steps=int(model.get("num_sampling_steps", 8)),
        unit_attention=model.get("attn_l2_norm", False),
        modulation="shared" if model.get("shared_aln", False) else "block" if separate else "none",
        pooling="max" if model.get("sep_aln_pooling_mode", "max") == "max" else "mean",
        learned_levels=not model.get("use_timestep_embed", True),
        context_norm=model.get("use_context_norm", True),
        mlp_ratio=model.get("mlp_ratio", 4.0),
    )


def text_of(seed: int, config: HartConfig, lengths: Sequence[int], pad: str) -> HartText:
    """Features of every row, padding included, and a mask with the real tokens on the side that is not padded."""
    if pad not in ("left", "right"):
        raise VarlabError(f"pad {quoted(pad)} in config_json is neither left nor right.")
    shape = config.text_length, config.text_width
    features = [weights.normal(f"input.context.{b}", seed, shape).astype(np.float32) for b in range(len(lengths))]
    place = torch.arange(config.text_length)
    place = place.flip(0) if pad == "left" else place
    return HartText(torch.from_numpy(np.stack(features)), place < torch.tensor(lengths)[:, None])


def key_differences(golden: Golden, transformer: HartTransformer) -> list[str]:
    """Names and shapes of ``state_keys`` that are not ours, or ours that are not there."""
    ours = {name: list(tensor.shape) for name, tensor in transformer.state_dict().items()}
    theirs = {name: shape for name, shape in json.loads(str(golden.arrays["state_keys"])) if name not in TOLERATED}
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))

"""Rebuilds the run that a VAR golden describes, and runs it with a probe that keeps what the golden's arrays hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARConfig, VARTransformer
from varlab.models.var_model import VAR, Conditioning
from varlab.parity import weights
from varlab.schedules import Grid


class BothRows(VAR):
    """VAR that runs the unconditional rows at strength 0 too, as the official code does."""

    def guided(self, settings: Settings) -> bool:
        return True


@dataclass(frozen=True)
class Setup:
    model: BothRows
    settings: Settings
    seed: int
    labels: Tensor  # [B]
    images: int  # pictures of the encoder's test

    @property
    def stages(self) -> range:
        return range(len(self.model.schedule))

    @property
    def grids(self) -> tuple[Grid, ...]:
        return self.model.schedule.grids

    @property
    def tokenizer(self) -> VQTokenizer:
        return self.model.tokenizer

    def pyramid(self, batch: int) -> list[Tensor]:
        """Prescribed indices of every stage [B, n_k]."""
        codes = self.tokenizer.config.codes
        return [
            weights.indices(f"gt_tokens.s{k}", self.seed, (batch, n), codes)
            for k, n in enumerate(self.model.schedule.lengths)
        ]

    def image(self) -> Tensor:
        """The encoder's pictures [images, 3, H, W] in [-1, 1]."""
        height, width = (side * self.model.stride for side in self.model.schedule.final)
        coarse = weights.tensor("image.coarse", self.seed, (self.images, 3, 8, 8))
        fine = weights.tensor("image.fine", self.seed, (self.images, 3, height, width), 0.2)
        return torch.tanh(F.interpolate(coarse, size=(height, width), mode="bicubic") + fine)


@torch.inference_mode()
def setup(config: Mapping[str, Any], name: str) -> Setup:
    """Model and weights of a golden's configuration, argmax sampling."""

    def need(key: str) -> Any:
        if key not in config:
            raise VarlabError(f"{name}: config_json lacks {key!r}, needed to rebuild the run. Write the golden again.")
        return config[key]

    seed, sides = need("seed"), tuple(need("patch_nums"))
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
    tokenizer = VQTokenizer(
        VQConfig(
            need("V"), need("Cvae"), config.get("ch", 160), stages=len(sides), phis=config.get("qsr", 4)
        )
    )  # fmt: skip
    for module in (transformer, tokenizer):
        module.eval().requires_grad_(False)
        weights.fill(module, seed, weights.var_rule)
    settings = Settings(cfg=need("cfg"), top_k=1, top_p=0.0)
    labels = torch.tensor(need("labels"))
    return Setup(BothRows(transformer, tokenizer, name=name), settings, seed, labels, config.get("imgs", 1))


class Capture(Probe):
    """Lists have one entry a stage."""

    name = "parity"

    def __init__(self) -> None:
        self.entering: list[Tensor] = []  # [R, n, C]
        self.blocks: list[list[Tensor]] = []  # outputs of the blocks that ran [R, n, C]
        self.guided: list[Tensor] = []  # [B, n, V]
        self.labels: list[Tensor] = []  # [B, n]
        self.codes: list[Tensor] = []  # [B, c, h, w]
        self.canvas: list[Tensor] = []  # [B, c, H, W]

    def on_stage(self, stage: Stage, x: Tensor) -> None:
        self.entering.append(x.clone())
        self.blocks.append([])

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self.blocks[-1].append(x_out.clone())

    def on_logits(self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor) -> None:
        self.guided.append(guided.squeeze(-2))
        self.labels.append(labels.squeeze(-1) if labels.ndim == 3 else labels)

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.codes.append(codes.clone())
        self.canvas.append(canvas.clone())


@dataclass(frozen=True)
class Outcome:
    """A finished run with what its probe kept."""

    setup: Setup
    capture: Capture
    generation: Generation = field(repr=False)

    def branches(self, k: int) -> tuple[Tensor, Tensor]:
        """Logits of both branches at stage k, each [B, n, V], also where guidance needs only one."""
        conditioning: Conditioning = self.generation.states[0].conditioning
        cond, uncond = self.setup.model.transformer.logits(self.capture.blocks[k][-1], conditioning.head).chunk(2)
        return cond, uncond

    @property
    def cache(self) -> list[int]:
        """Keys that each block holds at the end."""
        return self.generation.states[0].kv.lengths


def generate(
    setup: Setup,
    forced: Mapping[int, Tensor],
    accelerators: Sequence[Accelerator] = (),
    labels: Tensor | None = None,
    choose: Callable[[Tensor], Tensor] | None = None,
) -> Outcome:
    """One run of the engine; ``forced`` are indices [B, n] by stage. Argmax, so the noise decides nothing."""
    capture, labels = Capture(), setup.labels if labels is None else labels
    path = {k: index[..., None] for k, index in forced.items()}
    run = Run(setup.model, setup.settings, SeededNoise(0), probes=[capture], forced=path, choose=choose)
    return Outcome(setup, capture, run.generate(labels, range(len(labels)), accelerators))

"""VAR behind the engine's face: class conditioning, read-out over a codebook, smoothed residual canvas, costs.

Source: VAR (arXiv 2404.02905), its sampler: a guidance ramp over the stages, top-k then top-p, four shared smoothing
convolutions after bicubic up-sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.errors import VarlabError
from varlab.models.base import Attend, Cost, Draw, NextScaleModel, Readout
from varlab.models.classes import ClassReader
from varlab.models.guidance import Guidance, Settings, at
from varlab.models.labels import draw_label, only_likeliest
from varlab.models.layers import chosen
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.vqvae import VQTokenizer, decoder_flops
from varlab.models.var import Modulation, VARTransformer
from varlab.models.widened import precision_of
from varlab.schedules import Grid, Schedule, square


@dataclass
class Conditioning:
    """Per row and constant over the stages, so computed once an image."""

    label: Tensor  # class embedding [R, C]
    modulation: list[Modulation]
    head: tuple[Tensor, Tensor]

    def rows(self, index: Tensor) -> "Conditioning":
        modulation = [tuple(part[index] for part in parts) for parts in self.modulation]
        return Conditioning(self.label[index], modulation, (self.head[0][index], self.head[1][index]))


class VAR(NextScaleModel[Settings, Conditioning, Guidance]):
    """The transformer and its vector-quantised tokenizer.

    ``settings.cfg`` is the guidance strength t of the last stage, 0 for none: stage k of S mixes (1 + t') conditional
    and -t' unconditional logits with t' = t k / (S - 1). A list gives t' itself, stage by stage.
    """

    family = "var"
    sublayers = ("attention", "ffn")

    def __init__(
        self,
        transformer: VARTransformer,
        tokenizer: VQTokenizer,
        names: Sequence[str] = (),
        name: str = "var",
        weights: str = "random",
        settings: Settings | None = None,
    ) -> None:
        config = transformer.config
        if (config.codes, config.code_width) != (tokenizer.config.codes, tokenizer.config.width):
            raise VarlabError(
                f"The transformer predicts {config.codes} codes of {config.code_width} channels, the tokenizer has "
                f"{tokenizer.config.codes} of {tokenizer.config.width}."
            )
        self.transformer, self.tokenizer = transformer, tokenizer
        self.schedule: Schedule = square(config.sides, name)
        self.text = ClassReader(config.classes, names)
        self.name, self.weights, self.settings = name, weights, settings or Settings(cfg=1.5, top_p=0.96)
        self.depth, self.width, self.attention_scale = config.depth, config.width, config.attention_scale
        self.blocks = list(transformer.blocks)

    @property
    def device(self) -> torch.device:
        return self.transformer.pos_start.device

    @property
    def precision(self) -> str:
        return precision_of(self.blocks[0].ffn.fc1)  # type: ignore[union-attr,arg-type]

    def parts(self) -> dict[str, Any]:
        own = ("transformer", "tokenizer", "name", "weights", "settings")
        return {"names": self.text.names, **{name: getattr(self, name) for name in own}}

    # Labels

    def check_text(self, text: Any) -> None:
        self.text(text)

    @torch.inference_mode()
    def prepare(self, text: Any, guided: bool, negative: Any = None) -> Conditioning:
        """``text``: class numbers or names. ``negative``: classes that guidance leads away from, in place of none."""
        labels = self.text(text)
        if guided:
            null = torch.full_like(labels, self.transformer.config.classes)
            other = null if negative is None else self.text(negative)
            if len(other) != len(labels):
                raise VarlabError(f"{len(labels)} labels need {len(labels)} negative ones, got {len(other)}.")
            labels = torch.cat([labels, other])
        label = self.transformer.class_emb(labels.to(self.device)).float()
        return Conditioning(label, self.transformer.modulation(label), self.transformer.head_modulation(label))

    # Stages

    def guided(self, settings: Settings) -> bool:
        return any(value != 0 for value in (settings.cfg if isinstance(settings.cfg, tuple) else (settings.cfg,)))

    def guidance(self, k: int, settings: Settings, guided: bool, scale: float | None = None) -> Guidance:
        """``scale`` is the engine's, s conditional + (1 - s) unconditional, not the strength t."""
        last = max(len(self.schedule) - 1, 1)
        strength = settings.cfg[k] if isinstance(settings.cfg, tuple) else settings.cfg * k / last
        value = (1 + strength if scale is None else scale) if guided else 1.0
        layers = settings.cfg_layers if value != 1 else ()
        blocks = tuple(self.depth + layer for layer in layers if layer < 0)
        return Guidance(value, at(settings.tau, k), 0 in settings.cfg_layers, blocks)

    def new_canvas(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.tokenizer.config.width, *self.schedule.final, device=self.device)

    def embed(self, k: int, canvas: Tensor, conditioning: Conditioning, index: Tensor | None) -> Tensor:
        if k == 0:
            return self.transformer.start(conditioning.label)
        codes, positions = chosen(self.next_input(k, canvas), index), self.transformer.positions(k)
        rows = conditioning.label.shape[0]
        if index is not None:
            positions = positions[index if index.ndim == 1 else index[: codes.shape[0]]]
        return self.transformer.embed(codes, positions).repeat(rows // codes.shape[0], 1, 1)

    def next_input(self, k: int, canvas: Tensor) -> Tensor:
        """The canvas averaged onto the grid of stage k, as code tokens [B, n, c]."""
        return area(canvas, self.schedule.grids[k]).flatten(2).mT

    def positions(self, k: int, conditioning: Conditioning, index: Tensor | None) -> None:
        """None: tokens carry their positions from the start."""

    def sublayer(
        self, block: int, name: str, x: Tensor, conditioning: Conditioning, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        layer, modulation = self.blocks[block], conditioning.modulation[block]
        if name == "attention":
            return layer.attention(x, modulation, attend)  # type: ignore[operator, no-any-return]
        return layer.feed_forward(x, modulation)  # type: ignore[operator, no-any-return]

    def readout(self, x: Tensor, conditioning: Conditioning, guided: bool, guidance: Guidance) -> Readout:
        batch = x.shape[0] // (2 if guided else 1)
        both = guided and guidance.on_logits and guidance.scale != 1
        rows = x.shape[0] if both else batch
        scale, shift = conditioning.head
        logits = self.transformer.logits(x[:rows], (scale[:rows], shift[:rows])).unsqueeze(-2)
        cond, uncond = logits[:batch], logits[batch:] if both else None
        return Readout(cond, uncond, guidance.mix(cond, uncond))

    def draw(self, k: int, guided: Tensor, settings: Settings, noise: Draw) -> Tensor:
        return draw_label(only_likeliest(guided, settings.top_k, settings.top_p), noise("labels", 1)[..., None])

    def codes(self, k: int, labels: Tensor) -> Tensor:
        """Indices [B, n, 1], or soft labels [B, n, 1, V] -> code vectors [B, n, c]."""
        table = self.tokenizer.quantize.embedding.weight
        if labels.is_floating_point():
            return labels.squeeze(-2) @ table
        return F.embedding(labels.squeeze(-1).long(), table)

    def code_map(self, k: int, codes: Tensor) -> Tensor:
        return codes.mT.unflatten(-1, self.schedule.grids[k])

    def accumulate(self, k: int, canvas: Tensor, residual: Tensor) -> Tensor:
        return canvas + self.tokenizer.step(residual, k, len(self.schedule), self.schedule.final)

    # Pixels

    @property
    def stride(self) -> int:
        return self.tokenizer.config.stride

    def resize(self, canvas: Tensor, grid: Grid) -> Tensor:
        return area(canvas, grid)

    def encode(self, images: Tensor) -> Tensor:
        return self.tokenizer.encode(images * 2 - 1, self.schedule.grids)[1][-1]

    def decode(self, canvas: Tensor) -> Tensor:
        weight = self.tokenizer.decoder.weight
        return (self.tokenizer.decode(canvas.to(weight.dtype)).float() + 1) / 2

    # Costs

    def sublayer_cost(self, name: str, tokens: int, keys: int, conditioning: Conditioning | None) -> Cost:
        square = 2 * tokens * self.width**2
        return Cost(4 * square, 4 * tokens * keys * self.width) if name == "attention" else Cost(8 * square)

    def modulation_cost(self) -> int:
        """One row through every projection of the class but the head's."""
        projections = 1 if self.transformer.config.shared_modulation else self.depth
        return projections * 12 * self.width**2

    def text_cost(self, conditioning: Conditioning) -> Cost:
        return Cost(conditioning.label.shape[0] * (self.modulation_cost() + 4 * self.width**2))

    def stage_cost(self, k: int, tokens: int, batch: int, head_rows: int, settings: Settings) -> Cost:
        config, (height, width) = self.transformer.config, self.schedule.final
        embed = 0 if k == 0 else 2 * batch * tokens * config.code_width * self.width
        smooth = 2 * batch * 9 * config.code_width**2 * height * width
        return Cost(embed + smooth + 2 * head_rows * tokens * self.width * config.codes)

    def decode_cost(self, grid: Grid) -> Cost:
        return Cost(decoder_flops(self.tokenizer.config, grid))

"""Infinity behind the engine's face: conditioning, read-out of bits, residual canvas, costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from varlab.errors import VarlabError, quoted
from varlab.models.base import Attend, Cost, Draw, NextScaleModel, Readout
from varlab.models.captions import CaptionEncoder
from varlab.models.guidance import Guidance, Settings, at
from varlab.models.infinity import InfinityTransformer, TextBatch, TextState
from varlab.models.layers import chosen
from varlab.models.rotary import rotary_table
from varlab.models.tokenizers.bsq import BSQTokenizer, decoder_flops, upsample
from varlab.models.widened import precision_of
from varlab.schedules import Grid, Schedule

TextEncoder = Callable[[Sequence[str]], TextBatch]


@dataclass
class Conditioning:
    """Per row and constant over the stages, so computed once an image."""

    text: TextState
    modulation: list[tuple[Tensor, ...]]
    keys_values: list[tuple[Tensor, Tensor]]

    @property
    def text_rows(self) -> int:
        return int(self.text.tokens.shape[1])

    def rows(self, index: Tensor) -> "Conditioning":
        text = replace(
            self.text,
            pooled=self.text.pooled[index],
            shared=self.text.shared[index],
            tokens=self.text.tokens[index],
            mask=None if self.text.mask is None else self.text.mask[index],
        )
        modulation = [tuple(part[index] for part in parts) for parts in self.modulation]
        return Conditioning(text, modulation, [(k[index], v[index]) for k, v in self.keys_values])


def bit_probability(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Probability of bit 1 [...] from logits [..., 2] after top-k and top-p over the two values.

    top_k = 1 keeps the likelier bit (both on a tie); top_p drops a bit of probability <= 1 - top_p.
    """
    probability = torch.sigmoid(logits[..., 1] - logits[..., 0])
    if top_k == 1:
        return torch.where(logits[..., 0] == logits[..., 1], 0.5, (probability > 0.5).to(probability.dtype))
    if top_p > 0:
        rarer = torch.minimum(probability, 1 - probability)
        certain = (rarer <= 1 - top_p) & (probability != 0.5)
        probability = torch.where(certain, (probability > 0.5).to(probability.dtype), probability)
    return probability


def check_growth(schedule: Schedule) -> None:
    """Refuse grids that the sampler cannot follow: stage 1 is the one token of the text, and no stage shrinks."""
    if schedule.grids[0] != (1, 1):
        raise VarlabError(
            f"Schedule {quoted(schedule.name)} begins with {schedule.grids[0]}: Infinity begins with (1, 1)."
        )
    for before, after in pairwise(schedule.grids):
        if after[0] < before[0] or after[1] < before[1]:
            raise VarlabError(
                f"Schedule {quoted(schedule.name)} shrinks from {before} to {after}: give grids that grow."
            )


class Infinity(NextScaleModel[Settings, Conditioning, Guidance]):
    """The transformer, its BSQ tokenizer and a text encoder on one schedule."""

    family = "infinity"
    sublayers = ("attention", "cross", "ffn")
    attention_scale = 1.0

    def __init__(
        self,
        transformer: InfinityTransformer,
        tokenizer: BSQTokenizer,
        schedule: Schedule,
        text: TextEncoder | None = None,
        name: str = "infinity",
        weights: str = "random",
        settings: Settings | None = None,
    ) -> None:
        latent_bits = transformer.config.bits // (4 if transformer.config.patchify else 1)
        if latent_bits != tokenizer.config.bits:
            raise VarlabError(
                f"The transformer predicts {latent_bits} bits a latent, the tokenizer has {tokenizer.config.bits}."
            )
        if len(schedule) > transformer.lvl_embed.num_embeddings:
            raise VarlabError(
                f"The schedule has {len(schedule)} stages; this model knows {transformer.lvl_embed.num_embeddings}."
            )
        check_growth(schedule)
        self.transformer, self.tokenizer, self.schedule, self.text = transformer, tokenizer, schedule, text
        self.name, self.weights, self.settings = name, weights, settings or Settings()
        self.depth, self.width = transformer.config.depth, transformer.config.width
        self.blocks = transformer.blocks
        head_width = transformer.config.width // transformer.config.heads
        self.rotary = rotary_table(schedule, head_width).to(self.device).split(schedule.lengths)

    @property
    def device(self) -> torch.device:
        return self.transformer.pos_start.device

    @property
    def precision(self) -> str:
        return precision_of(self.blocks[0].ffn.fc1)

    @property
    def patch(self) -> int:
        """Latents on a side of a token."""
        return 2 if self.transformer.config.patchify else 1

    def latent_grid(self, grid: Grid) -> Grid:
        return grid[0] * self.patch, grid[1] * self.patch

    def parts(self) -> dict[str, Any]:
        names = ("transformer", "tokenizer", "schedule", "text", "name", "weights", "settings")
        return {name: getattr(self, name) for name in names}

    # Text

    def check_text(self, text: Sequence[str] | TextBatch) -> None:
        """Features must have the model's width, a mini's captions words that it knows."""
        if isinstance(text, TextBatch) or self.text is None:
            self.read_prompts(text)
        elif isinstance(self.text, CaptionEncoder):
            self.text.check(text)

    def read_prompts(self, prompts: Sequence[str] | TextBatch) -> TextBatch:
        if isinstance(prompts, TextBatch):
            width = self.transformer.config.text_width
            if prompts.features.shape[1] != width:
                raise VarlabError(f"Text features are {prompts.features.shape[1]} wide; {self.name} reads {width}.")
            return TextBatch(prompts.features.to(self.device), prompts.lengths)
        if self.text is None:
            raise VarlabError(
                f"{self.name} was loaded without a text encoder. Give features (a TextBatch), or load it with text=..."
            )
        return self.text(prompts)

    @torch.inference_mode()
    def prepare(self, text: Any, guided: bool, negative: Any = None) -> Conditioning:
        batch = self.read_prompts(text)
        count = len(batch.lengths)
        if guided:
            batch = batch + (
                self.transformer.unconditional(batch.lengths) if negative is None else self.read_prompts(negative)
            )
        if len(batch.lengths) != count * (2 if guided else 1):
            raise VarlabError(f"{count} prompts need {count} negative prompts, got {len(batch.lengths) - count}.")
        state = self.transformer.read_text(batch)
        return Conditioning(
            state,
            [block.modulation(state.shared) for block in self.blocks],
            [block.ca.keys_values(state.tokens) for block in self.blocks],
        )

    # Stages

    def guidance(self, k: int, settings: Settings, guided: bool, scale: float | None = None) -> Guidance:
        value = (at(settings.cfg, k) if scale is None else scale) if guided else 1.0
        # At scale 1 the branches stay apart: mixing would give both the conditional rows, and the cache with them.
        layers = settings.cfg_layers if value != 1 else ()
        blocks = tuple(self.depth + layer for layer in layers if layer < 0)
        return Guidance(value, at(settings.tau, k), 0 in settings.cfg_layers, blocks)

    def new_canvas(self, batch: int) -> Tensor:
        height, width = self.latent_grid(self.schedule.final)
        return torch.zeros(batch, self.tokenizer.config.bits, height, width, device=self.device)

    def embed(self, k: int, canvas: Tensor, conditioning: Conditioning, index: Tensor | None) -> Tensor:
        if k == 0:
            return self.transformer.start(conditioning.text.pooled)
        codes = chosen(self.next_input(k, canvas), index)
        rows = conditioning.text.pooled.shape[0]
        return self.transformer.embed(codes, k).repeat(rows // codes.shape[0], 1, 1)

    def next_input(self, k: int, canvas: Tensor) -> Tensor:
        """The canvas on the grid of stage k, as code tokens [B, n, bits]. Bilinear, without antialiasing."""
        latent = self.resize(canvas, self.latent_grid(self.schedule.grids[k]))
        if self.patch == 2:
            latent = F.pixel_unshuffle(latent, 2)
        return latent.flatten(2).mT

    def positions(self, k: int, conditioning: Conditioning, index: Tensor | None) -> Tensor:
        return self.rotary[k] if index is None else self.rotary[k][index]

    def sublayer(
        self, block: int, name: str, x: Tensor, conditioning: Conditioning, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        layer, modulation = self.blocks[block], conditioning.modulation[block]
        if name == "attention":
            assert positions is not None
            return layer.attention(x, modulation, positions, attend)
        if name == "cross":
            return layer.cross(x, *conditioning.keys_values[block], conditioning.text.mask)
        return layer.feed_forward(x, modulation)

    def readout(self, x: Tensor, conditioning: Conditioning, guided: bool, guidance: Guidance) -> Readout:
        batch = x.shape[0] // (2 if guided else 1)
        both = guided and guidance.on_logits and guidance.scale != 1
        rows = x.shape[0] if both else batch
        logits = self.transformer.logits(x[:rows], conditioning.text.pooled[:rows]).unflatten(-1, (-1, 2))
        cond, uncond = logits[:batch], logits[batch:] if both else None
        return Readout(cond, uncond, guidance.mix(cond, uncond))

    def draw(self, k: int, guided: Tensor, settings: Settings, noise: Draw) -> Tensor:
        return noise("labels", self.transformer.config.bits) < bit_probability(guided, settings.top_k, settings.top_p)

    def codes(self, k: int, labels: Tensor) -> Tensor:
        return (labels.float() * 2 - 1) * self.tokenizer.config.bits**-0.5

    def code_map(self, k: int, codes: Tensor) -> Tensor:
        residual = codes.mT.unflatten(-1, self.schedule.grids[k])
        return F.pixel_shuffle(residual, 2) if self.patch == 2 else residual

    def accumulate(self, k: int, canvas: Tensor, residual: Tensor) -> Tensor:
        return canvas + upsample(residual, (canvas.shape[-2], canvas.shape[-1]))

    def labels_of(self, bits: Tensor) -> Tensor:
        """Bits on the latent grid [B, h', w', b] -> labels in token order [B, n, d]."""
        latent = bits.movedim(-1, 1).float()
        if self.patch == 2:
            latent = F.pixel_unshuffle(latent, 2)
        return latent.flatten(2).mT > 0.5

    # Pixels

    @property
    def stride(self) -> int:
        return self.tokenizer.config.stride

    def resize(self, canvas: Tensor, grid: Grid) -> Tensor:
        return upsample(canvas, grid)

    def encode(self, images: Tensor) -> Tensor:
        return self.tokenizer.encode(images * 2 - 1, [*map(self.latent_grid, self.schedule.grids)])[1]

    def decode(self, canvas: Tensor) -> Tensor:
        weight = self.tokenizer.decoder.weight
        canvas = canvas.to(weight.dtype)
        if weight.is_contiguous(memory_format=torch.channels_last):
            canvas = canvas.contiguous(memory_format=torch.channels_last)
        return (self.tokenizer.decode(canvas).float() + 1) / 2  # from [-1, 1]

    # Costs

    def sublayer_cost(self, name: str, tokens: int, keys: int, conditioning: Conditioning) -> Cost:
        config = self.transformer.config
        square = 2 * tokens * config.width**2
        if name == "attention":
            return Cost(4 * square, 4 * tokens * keys * config.width)
        if name == "cross":
            return Cost(2 * square, 4 * tokens * conditioning.text_rows * config.width)
        return Cost(4 * tokens * config.width * config.hidden)

    def text_cost(self, conditioning: Conditioning) -> Cost:
        config, rows, length = (self.transformer.config, conditioning.text.tokens.shape[0], conditioning.text_rows)
        pool = 2 * length * config.text_width * 2 * config.width + 2 * config.width**2
        shared = 2 * config.width * 6 * config.width
        tokens = 2 * length * (config.text_width * config.width + config.width**2)
        keys = self.depth * 2 * length * config.width * 2 * config.width
        return Cost(rows * (pool + shared + tokens + keys), rows * 4 * length * config.width)

    def stage_cost(self, k: int, tokens: int, batch: int, head_rows: int, settings: Settings) -> Cost:
        config = self.transformer.config
        embed = 0 if k == 0 else 2 * batch * tokens * config.bits * config.width
        norm = 2 * head_rows * config.width * 2 * config.width
        return Cost(embed + norm + 2 * head_rows * tokens * config.width * 2 * config.bits)

    def decode_cost(self, grid: Grid) -> Cost:
        return Cost(decoder_flops(self.tokenizer.config, grid))

"""HART behind the engine's face: the text as a prefix, codebook labels, phi convolutions, the diffusion residual.

Stage 1 is the text itself, of which the last token predicts the one token of the first grid. Guidance grows with the
stage, and the last stage repeats that of the one before, as in the released code.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from varlab.errors import VarlabError, quoted
from varlab.machine import DIFFUSION
from varlab.models.base import Attend, Cost, Distribution, Draw, EqualPrefix, NextScaleModel, Reading, Readout
from varlab.models.diffusion import denoiser_flops, embedding_flops
from varlab.models.guidance import at
from varlab.models.hart import HartText, HartTransformer
from varlab.models.hart_settings import HartConditioning, HartGuidance, HartSettings, Savings
from varlab.models.infinity import TextBatch
from varlab.models.labels import draw_label, only_likeliest, pass_sizes, soften
from varlab.models.layers import chosen
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.hybrid import HybridTokenizer, decoder_flops
from varlab.models.widened import precision_of
from varlab.schedules import Grid, Schedule

HartEncoder = Callable[[Sequence[str]], HartText]
HartPrompts = Sequence[str] | HartText | TextBatch
FEWER_FROM = 7  # from this stage on (counted from 0) half as many labels stay


class Hart(NextScaleModel[HartSettings, HartConditioning, HartGuidance]):
    """The transformer, its hybrid tokenizer and a text encoder on one schedule."""

    family = "hart"
    sublayers = ("attention", "ffn")

    def __init__(
        self,
        transformer: HartTransformer,
        tokenizer: HybridTokenizer,
        schedule: Schedule,
        text: HartEncoder | None = None,
        name: str = "hart",
        weights: str = "random",
        settings: HartSettings | None = None,
        savings: Savings | None = None,
    ) -> None:
        config, image = transformer.config, tokenizer.config
        if (config.vocabulary, config.latents) != (image.vocabulary, image.latents):
            raise VarlabError(
                f"The transformer predicts {config.vocabulary} codes of {config.latents} channels, the tokenizer has "
                f"{image.vocabulary} of {image.latents}."
            )
        if schedule.grids[0] != (1, 1) or not 2 <= len(schedule) <= config.stages:
            raise VarlabError(
                f"Schedule {quoted(schedule.name)}: HART begins with (1, 1) and this one knows 2 to "
                f"{config.stages} stages."
            )
        self.transformer, self.tokenizer, self.schedule, self.text = transformer, tokenizer, schedule, text
        self.name, self.weights, self.settings = name, weights, settings or HartSettings()
        self.depth, self.width, self.attention_scale = config.depth, config.width, config.attention_scale
        self.savings = savings or Savings()
        with torch.inference_mode():
            self.levels, self.times = transformer.levels(), transformer.diffloss.times(config.diffusion_steps)

    @property
    def device(self) -> torch.device:
        return self.transformer.head.weight.device

    @property
    def precision(self) -> str:
        blocks = precision_of(self.transformer.blocks[0].ffn.up_proj)  # type: ignore[union-attr,arg-type]
        head = precision_of(self.transformer.diffloss.net.cond_embed)
        return blocks + DIFFUSION if head == blocks in ("bf16", "fp16") else blocks

    def parts(self) -> dict[str, Any]:
        names = ("transformer", "tokenizer", "schedule", "text", "name", "weights", "settings", "savings")
        return {name: getattr(self, name) for name in names}

    # Text

    def check_text(self, text: HartPrompts) -> None:
        """Features must be as wide and as many as the model reads, and prompts need an encoder that knows them."""
        if isinstance(text, HartText | TextBatch):
            self.read_prompts(text)
        elif self.text is None:
            raise VarlabError(
                f"{self.name} was loaded without a text encoder. Give features (a HartText, or arrays "
                f"{list(self._text_shape)}), or load it with text="
            )
        elif hasattr(self.text, "check"):
            self.text.check(text)

    @property
    def _text_shape(self) -> tuple[int, int]:
        return self.transformer.config.text_length, self.transformer.config.text_width

    def read_prompts(self, prompts: HartPrompts) -> HartText:
        """Prompts through the encoder, or features: a HartText as it is, arrays with all their rows as real tokens."""
        if not isinstance(prompts, HartText | TextBatch):
            self.check_text(prompts)
            assert self.text is not None
            return self.read_prompts(self.text(prompts))
        shapes = {(n, prompts.features.shape[-1]) for n in prompts.lengths}
        if wrong := shapes - {self._text_shape}:
            raise VarlabError(
                f"Text features are {min(wrong)} per prompt; {self.name} reads {self._text_shape}: give each prompt's "
                "with its padding rows, from the encoder that the weights were trained with."
            )
        if isinstance(prompts, TextBatch):
            features = prompts.features.unflatten(0, (-1, self._text_shape[0]))
            prompts = HartText(features, torch.ones(features.shape[:2], dtype=torch.bool))
        return HartText(prompts.features.to(self.device), prompts.mask.to(self.device))

    @torch.inference_mode()
    def prepare(self, text: Any, guided: bool, negative: Any = None) -> HartConditioning:
        if negative is not None:
            raise VarlabError("HART guides away from the empty text alone: leave the negative prompt out.")
        read = self.transformer.read_text(self.read_prompts(text), guided)
        return HartConditioning(read, self.transformer.config.head_width)

    # Stages

    def prefix(self, k: int) -> int:
        """All text tokens but the last, which is the token of the first grid."""
        return self.transformer.config.text_length - 1 if k == 0 else 0

    @property
    def equal_prefix(self) -> EqualPrefix:
        if not self.savings.one_null:
            return EqualPrefix()
        return EqualPrefix.of(self.transformer.config.text_length, self.transformer.blocks[0].ffn.up_proj.weight.dtype)  # type: ignore[union-attr,arg-type]

    def _final(self, k: int) -> bool:
        return k == len(self.schedule) - 1

    def foreseen(self, k: int, settings: HartSettings) -> Sequence[tuple[str, int, Distribution]]:
        config = self.transformer.config
        steps = ("start", *range(1, config.diffusion_steps)) if settings.residual and self._final(k) else ()
        return [
            *([("mixture", config.vocabulary, "exponential")] if settings.smooth else ()),
            *((f"diffusion-{step}", config.latents, "normal") for step in steps),
        ]

    def passes(self, k: int, settings: HartSettings, noise: Draw) -> Tensor | None:
        if settings.passes == 1 or not self._final(k):
            return None
        order = noise("order", 1)[..., 0].argsort(dim=-1, stable=True)  # its first tokens come last
        sizes = pass_sizes(self.schedule.lengths[k], settings.passes)
        places = torch.arange(order.shape[1], device=order.device)
        turn = torch.stack([places >= end for end in accumulate(sizes[:-1])]).sum(0)  # of no sizes that are waited for
        return torch.empty_like(order).scatter(1, order, turn.flip(0).expand_as(order))

    def guidance(self, k: int, settings: HartSettings, guided: bool, scale: float | None = None) -> HartGuidance:
        last = len(self.schedule) - 1
        ratio = (last - 1 if k == last else k) / last
        extra = at(settings.cfg, k) * ratio if scale is None else scale - 1
        return HartGuidance(1 + extra if guided else 1.0, at(settings.tau, k), True, ratio=ratio)

    def new_canvas(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.tokenizer.config.latents, *self.schedule.final, device=self.device)

    def embed(self, k: int, canvas: Tensor, conditioning: HartConditioning, index: Tensor | None) -> Tensor:
        tokens = conditioning.text.tokens
        level = (self.levels if self.savings.constants else self.transformer.levels())[k]
        if k == 0:
            return tokens + level
        codes = chosen(self.next_input(k, canvas), index)
        return self.transformer.embed(codes, level).repeat(tokens.shape[0] // codes.shape[0], 1, 1)

    def next_input(self, k: int, canvas: Tensor) -> Tensor:
        """The canvas on the grid of stage k, as code tokens [B, n, Z]."""
        return self.resize(canvas, self.schedule.grids[k]).flatten(2).mT

    def positions(self, k: int, conditioning: HartConditioning, index: Tensor | None) -> Tensor:
        table = conditioning.table(k, self.schedule)  # [R, n, 2, c]
        if index is None or index.ndim == 1:
            return table if index is None else table[:, index]
        return table.gather(1, index[..., None, None].expand(-1, -1, *table.shape[2:]))

    def sublayer(
        self, block: int, name: str, x: Tensor, conditioning: HartConditioning, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        layer, six = self.transformer.blocks[block], conditioning.text.modulation[block]
        if name == "attention":
            return layer.attention(x, six, positions, attend)  # type: ignore[operator]
        return layer.feed_forward(x, six)  # type: ignore[operator]

    def readout(self, x: Tensor, conditioning: HartConditioning, guided: bool, guidance: HartGuidance) -> Readout:
        batch = x.shape[0] // (2 if guided else 1)
        both = guided and guidance.scale != 1
        rows = x.shape[0] if both else batch
        logits = self.transformer.logits(x[:rows], conditioning.text.head[:rows]).unsqueeze(2)  # [R, n, 1, V]
        cond, uncond = logits[:batch], logits[batch:] if both else None
        return Readout(cond, uncond, guidance.mix(cond, uncond))

    def _likeliest(self, k: int, logits: Tensor, settings: HartSettings) -> Tensor:
        kept = settings.top_k if k < FEWER_FROM or settings.top_k < 2 else settings.top_k // 2
        return only_likeliest(logits, kept, settings.top_p)

    def draw(self, k: int, guided: Tensor, settings: HartSettings, noise: Draw) -> Tensor:
        return draw_label(self._likeliest(k, guided, settings), noise("labels", 1)[..., None])

    def codes(self, k: int, labels: Tensor) -> Tensor:
        return self.tokenizer.quantize.embedding(labels[..., 0])

    def realise(self, k: int, labels: Tensor, reading: Reading[HartSettings, HartGuidance]) -> Tensor:
        """The drawn code or a mixture of codes, and at the last stage the residual that the diffusion head draws."""
        settings, drawn = reading.settings, self.codes(k, labels)
        codes = self._mixture(k, reading) if settings.smooth else drawn
        if not (settings.residual and self._final(k)):
            return codes
        batch, normal = drawn.shape[0], lambda kind: reading.noise(kind, drawn.shape[-1], "normal")
        condition = self.transformer.residual_condition(reading.hidden, drawn)
        head = self.transformer.diffloss
        times = self.times if self.savings.constants else head.times(self.transformer.config.diffusion_steps)
        return codes + head.sample(condition, batch, reading.guidance.extra, times, normal)

    def _mixture(self, k: int, reading: Reading[HartSettings, HartGuidance]) -> Tensor:
        logits = self._likeliest(k, reading.logits, reading.settings)[:, :, 0]
        noise = reading.noise("mixture", logits.shape[-1], "exponential")
        return soften(logits, reading.guidance.ratio, noise) @ self.tokenizer.quantize.embedding.weight

    def code_map(self, k: int, codes: Tensor) -> Tensor:
        return codes.mT.unflatten(-1, self.schedule.grids[k])

    def accumulate(self, k: int, canvas: Tensor, residual: Tensor) -> Tensor:
        if self._final(k):
            return canvas + residual
        return canvas + self.tokenizer.quantize.spread(residual, self.schedule.final, k, len(self.schedule))

    # Pixels

    @property
    def stride(self) -> int:
        return self.tokenizer.config.stride

    def resize(self, canvas: Tensor, grid: Grid) -> Tensor:
        return area(canvas, grid)

    def encode(self, images: Tensor) -> Tensor:
        """The latent itself where the diffusion residual completes the codes, else their sum."""
        latent = self.tokenizer.encode(images * 2 - 1).float()
        if self.settings.residual:
            return latent
        *_, last = self.tokenizer.steps(latent, self.schedule.grids, last_phi=False)
        return last.canvas

    def decode(self, canvas: Tensor) -> Tensor:
        weight = self.tokenizer.decoder.weight
        return (self.tokenizer.decode(canvas.to(weight.dtype)).float() + 1) / 2

    # Costs

    def sublayer_cost(self, name: str, tokens: int, keys: int, conditioning: HartConditioning) -> Cost:
        config = self.transformer.config
        if name == "attention":
            return Cost(8 * tokens * config.width**2, 4 * tokens * keys * config.width)
        return Cost(6 * tokens * config.width * config.hidden)

    def text_cost(self, conditioning: HartConditioning) -> Cost:
        config, rows = self.transformer.config, conditioning.text.tokens.shape[0]
        modulation = 12 * config.depth * config.width**2 if config.modulation == "block" else 0
        tokens = 2 * config.text_length * config.text_width * config.width
        return Cost(rows * (tokens + 4 * config.width**2 + modulation))

    def stage_cost(self, k: int, tokens: int, batch: int, head_rows: int, settings: HartSettings) -> Cost:
        config, height, width = self.transformer.config, *self.schedule.final
        word = 2 * batch * tokens * config.latents * config.width
        flops, diffusion = (0 if k == 0 else word) + 2 * head_rows * tokens * config.width * config.vocabulary, 0
        if settings.smooth:
            flops += 2 * batch * tokens * config.vocabulary * config.latents
        if not self._final(k):  # the phi convolution
            flops += 2 * batch * height * width * (config.latents * self.tokenizer.config.kernel) ** 2
        elif settings.residual:
            both = self.guidance(k, settings, head_rows > batch).extra not in (0, 1)
            sizes = config.latents, config.width, config.diffusion_width, config.diffusion_depth
            diffusion = denoiser_flops(*sizes, config.diffusion_steps, (head_rows if both else batch) * tokens)
            flops += word + diffusion
            flops += 0 if self.savings.constants else config.diffusion_steps * embedding_flops(config.diffusion_width)
        if not (self.savings.constants or config.learned_levels):
            flops += config.stages * embedding_flops(config.width)
        return Cost(flops, halved=diffusion if self.precision.endswith(DIFFUSION) else 0)

    def decode_cost(self, grid: Grid) -> Cost:
        return Cost(decoder_flops(self.tokenizer.config, grid))

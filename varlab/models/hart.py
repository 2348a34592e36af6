"""The HART transformer: text tokens as a prefix, next-scale prediction of codebook entries, a diffusion residual.

Parameter names equal the keys of the official checkpoint. One screen a part, from text to logits.
Source: HART (arXiv 2410.10812) and its released 0.7B model at 1024 pixels, quirks included: an attention scale four
times below the usual one, one norm for both sublayers of a block, a rotary form in 2-D that is no rotation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.diffusion import ResidualDiffusion, ScalarEmbedding
from varlab.models.layers import Attend, RMSNorm, merge_heads, split_heads
from varlab.models.packed import biased, typed
from varlab.models.rotary import rotate_halves, text_rotary

Six = tuple[Tensor, ...]  # gamma1, gamma2, scale1, scale2, shift1, shift2, each [R, 1, C]


@dataclass(frozen=True)
class HartConfig:
    """The released 0.7B; the variants after ``diffusion_steps`` are those that the keys of a checkpoint reveal.

    modulation: of the blocks by the text, "none", "block" (own projection of the pooled text) or "shared" (a table
    added to it). pooling: of the text for "block". unit_attention: unit queries and keys with a learned scale.
    """

    depth: int = 24
    width: int = 1536
    heads: int = 24
    vocabulary: int = 4096
    latents: int = 32
    text_length: int = 300
    text_width: int = 1536
    stages: int = 14
    diffusion_width: int = 1024
    diffusion_depth: int = 6
    diffusion_steps: int = 8
    unit_attention: bool = False
    modulation: Literal["none", "block", "shared"] = "none"
    pooling: Literal["max", "mean"] = "max"
    learned_levels: bool = False
    context_norm: bool = True
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.head_width % 4:
            raise VarlabError(f"width {self.width} over {self.heads} heads must give a head width divisible by 4.")
        if self.stages < 2:
            raise VarlabError("HART needs at least two stages: the text and one grid.")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        return (int(self.mlp_ratio * self.width * 2 / 3) + 255) // 256 * 256

    @property
    def attention_scale(self) -> float:
        return 1.0 if self.unit_attention else 0.25 / math.sqrt(self.head_width)


@dataclass(frozen=True)
class HartText:
    """Text features [B, T, text_width], padding rows included, and the mask [B, T] of real tokens."""

    features: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or self.mask.shape != self.features.shape[:2]:
            raise VarlabError(
                f"Text features of shape {tuple(self.features.shape)} and a mask of {tuple(self.mask.shape)} do not "
                "fit: give features [B, T, text_width] and a mask [B, T]."
            )

    def dropped(self, rows: Tensor) -> "HartText":
        """With the null text in the rows [B] that are True: zero features, of which the first counts as real."""
        first = torch.zeros_like(self.mask)
        first[:, 0] = 1
        features = self.features.masked_fill(rows[:, None, None], 0)
        return HartText(features, torch.where(rows[:, None], first, self.mask))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each prompt, padding included."""
        return (self.features.shape[1],) * self.features.shape[0]

    @property
    def positions(self) -> Tensor:
        """Place of each token among the real ones [B, T]: -1 before the first, repeated after the last."""
        return self.mask.long().cumsum(-1) - 1

    def split(self) -> list["HartText"]:
        """One text a prompt."""
        return [HartText(*pair) for pair in zip(self.features.split(1), self.mask.split(1), strict=True)]

    @classmethod
    def join(cls, parts: Sequence["HartText"]) -> "HartText":
        """Texts of one shape in a row; raises VarlabError for others."""
        if len(shapes := {tuple(part.features.shape[1:]) for part in parts}) != 1:
            raise VarlabError(f"Text features of one run must have one shape [T, text_width], not {sorted(shapes)}.")
        return cls(torch.cat([part.features for part in parts]), torch.cat([part.mask for part in parts]))


# Blocks


class SelfAttention(nn.Module):
    def __init__(self, config: HartConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        if config.unit_attention:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, config.heads, 1, 1), math.log(4.0)))
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: Tensor, attend: Attend) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = biased(self.qkv_proj, x, bias)
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, -1))
        if hasattr(self, "scale_mul_1H11"):
            scale = self.scale_mul_1H11.float().clamp(max=math.log(100.0)).exp()
            q, k = F.normalize(q.float(), dim=-1) * scale, F.normalize(k.float(), dim=-1)
        q, k = (rotate_halves(part, rotary).to(v.dtype) for part in (q, k))
        return self.proj(merge_heads(attend(q, k, v)))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = typed(self.gate_proj, x)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Two sublayers behind the same norm; the caller adds them: x = x + sublayer(x)."""

    def __init__(self, config: HartConfig) -> None:
        super().__init__()
        width = config.width
        self.attn = SelfAttention(config)
        self.ffn = SwiGLU(width, config.hidden)
        self.ln_wo_grad = RMSNorm(width)
        if config.modulation == "block":
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        if config.modulation == "shared":
            self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def modulation(self, pooled: Tensor) -> Six | None:
        """The text of a row [R, C] -> what it does to both branches; None where the blocks do not look at it."""
        if hasattr(self, "ada_lin"):
            return self.ada_lin(typed(self.ada_lin[1], pooled)).float().unflatten(-1, (6, 1, -1)).unbind(1)
        if hasattr(self, "scale_shift_table"):
            return (self.scale_shift_table.float() + pooled[:, None]).unsqueeze(2).unbind(1)
        return None

    def attention(self, x: Tensor, six: Six | None, rotary: Tensor, attend: Attend) -> Tensor:
        h = self.ln_wo_grad(x)
        if six is None:
            return self.attn(h, rotary, attend).float()
        return six[0] * self.attn(h * (1 + six[2]) + six[4], rotary, attend).float()

    def feed_forward(self, x: Tensor, six: Six | None) -> Tensor:
        h = self.ln_wo_grad(x)
        if six is None:
            return self.ffn(h).float()
        return six[1] * self.ffn(h * (1 + six[3]) + six[5]).float()

    def forward(self, x: Tensor, six: Six | None, rotary: Tensor, attend: Attend) -> Tensor:
        """The whole block, as training runs it; the engine calls the branches one by one."""
        x = x + self.attention(x, six, rotary, attend)
        return x + self.feed_forward(x, six)


RunBlock = Callable[[Block, Tensor, Six | None, Tensor, Attend], Tensor]  # Block.forward, or the same compiled


class _HeadNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_wo_grad = RMSNorm(width)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))


# The model


@dataclass(frozen=True)
class ContextState:
    """What a run needs of the text, per row: all of it constant over the stages."""

    tokens: Tensor  # [R, T, C]
    positions: Tensor  # [R, T]
    head: Tensor  # [R, 1, 2C], scale and shift of the head's norm
    modulation: list[Six | None]  # by block

    def rows(self, index: Tensor) -> "ContextState":
        six = [None if parts is None else tuple(part[index] for part in parts) for parts in self.modulation]
        return replace(self, tokens=self.tokens[index], positions=self.positions[index], head=self.head[index],
                       modulation=six)  # fmt: skip


class HartTransformer(nn.Module):
    """Text and code tokens -> logits over the codebook. Inference goes through the engine, training by ``forward``."""

    def __init__(self, config: HartConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.word_embed = nn.Linear(config.latents, width)
        self.context_embed = nn.Linear(config.text_width, width)
        if config.context_norm:
            self.context_norm = RMSNorm(config.text_width)
        self.lvl_embed = nn.Embedding(config.stages, width) if config.learned_levels else ScalarEmbedding(width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_nm = _HeadNorm(width)
        self.head = nn.Linear(width, config.vocabulary)
        self.decoder_norm = RMSNorm(width)
        self.diffloss = ResidualDiffusion(config.latents, width, config.diffusion_width, config.diffusion_depth)

    def levels(self) -> Tensor:
        """What tells the stages apart [stages, C]."""
        return self.lvl_embed(torch.arange(self.config.stages, device=self.head.weight.device))

    def context(self, features: Tensor) -> Tensor:
        """Text features [R, T, text_width] -> tokens [R, T, C]."""
        return self.context_embed(self.context_norm(features) if self.config.context_norm else features)

    def read_text(self, text: HartText, guided: bool) -> ContextState:
        """The rows of the text, then with guidance as many of the null text: zero features, all at position 0."""
        tokens, positions, mask = self.context(text.features), text.positions, text.mask
        if guided:
            null = text.dropped(torch.ones(len(mask), dtype=torch.bool, device=mask.device))
            tokens = torch.cat([tokens, self.context(null.features)])
            positions, mask = torch.cat([positions, null.positions]), torch.cat([mask, null.mask])
        highest = tokens.amax(1)  # over all tokens, padding included
        pooled = highest
        if self.config.modulation == "shared" or self.config.pooling == "mean":
            real = mask[..., None].to(tokens.dtype)
            pooled = (tokens * real).sum(1) / real.sum(1).clamp(min=1)
        six = [block.modulation(pooled) for block in self.blocks]  # type: ignore[operator]
        return ContextState(tokens, positions, self.head_nm.ada_lin(highest)[:, None], six)

    def embed(self, codes: Tensor, level: Tensor) -> Tensor:
        """Code tokens [B, n, Z] of a stage with embedding ``level`` [C] -> [B, n, C]."""
        return self.word_embed(codes) + level

    def logits(self, x: Tensor, head: Tensor) -> Tensor:
        """Hidden states [R, n, C] and the rows' head modulation [R, 1, 2C] -> logits [R, n, V], fp32."""
        scale, shift = head.chunk(2, -1)
        return self.head(self.head_nm.ln_wo_grad(x) * (1 + scale) + shift).float()

    def forward(
        self,
        text: HartText,
        codes: Sequence[Tensor],
        rotary: Sequence[Tensor],
        attend: Attend,
        run: RunBlock = Block.forward,
    ) -> tuple[Tensor, Tensor]:
        """Teacher forcing over all stages at once, the text in front; null texts are those of ``HartText.dropped``.

        codes: the inputs of stages 1, 2, ... [B, n_k, Z]; rotary: their tables [B, n_k, 2, c]; ``attend`` applies
        block-causal attention over the text, which is stage 0, and these.
        -> hidden states of the grids' tokens [B, N, C], and the head's modulation [B, 1, 2C].
        """
        state, levels = self.read_text(text, guided=False), self.levels()
        x = torch.cat(
            [state.tokens + levels[0], *(self.embed(c, levels[k]) for k, c in enumerate(codes, 1))], 1
        ).float()
        table = torch.cat([text_rotary(state.positions, self.config.head_width), *rotary], 1)
        for block, six in zip(self.blocks, state.modulation, strict=True):
            x = run(block, x, six, table, attend)  # type: ignore[arg-type]
        return x[:, self.config.text_length - 1 :], state.head

    def residual_condition(self, x: Tensor, codes: Tensor) -> Tensor:
        """Last hidden states [R, n, C] with the codes drawn for them [B, n, Z], the same for both branches."""
        return self.decoder_norm(x + self.word_embed(codes).repeat(len(x) // len(codes), 1, 1))

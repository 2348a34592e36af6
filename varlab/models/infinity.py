"""The Infinity transformer: text-conditioned next-scale prediction of binary codes.

Parameter names equal the keys of the official checkpoints. One screen a part, from text to logits.
Source: Infinity (arXiv 2412.04431) and its released 2B and 8B models.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.layers import (
    Attend,
    FeedForward,
    HeadNorm,
    RMSNorm,
    attention,
    layer_norm,
    merge_heads,
    modulate,
    rotate,
    rotate_split,
    scaled,
    split_heads,
    split_pairs,
    without_autocast,
)
from varlab.models.packed import biased, typed

LEVELS = 15


@dataclass(frozen=True)
class InfinityConfig:
    """``bits`` per token (for a patchified model four times those of a latent)."""

    depth: int
    width: int
    heads: int
    bits: int
    chunks: int = 4
    text_width: int = 2048
    text_length: int = 512
    patchify: bool = False
    bf16_text_attention: bool = False  # the official code casts cross-attention to bf16 even in fp32 runs

    def __post_init__(self) -> None:
        if self.depth % self.chunks:
            raise VarlabError(f"depth {self.depth} does not divide into {self.chunks} chunks.")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise VarlabError(f"width {self.width} over {self.heads} heads must give a head width divisible by 4.")
        if self.text_width < 128 or self.width % self.pool_heads:
            raise VarlabError(
                f"width {self.width} must divide by the {self.pool_heads} heads of the text pool (text_width // 128)."
            )

    @property
    def hidden(self) -> int:
        return round(4 * self.width / 256) * 256  # Python's rounding: half to even, as released

    @property
    def pool_heads(self) -> int:
        return self.text_width // (128 if self.width <= 4096 else 64)


@dataclass
class TextBatch:
    """Ragged text features: the rows of all samples one after another [sum(lengths), text_width]."""

    features: Tensor
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.shape[0] != sum(self.lengths) or min(self.lengths, default=0) < 1:
            raise VarlabError(
                f"Text features of shape {tuple(self.features.shape)} do not hold the lengths {self.lengths}: "
                "give [sum(lengths), text_width] and at least one row a sample."
            )

    def __add__(self, other: "TextBatch") -> "TextBatch":
        return TextBatch(torch.cat([self.features, other.features]), self.lengths + other.lengths)

    def padded(self, longest: int | None = None) -> tuple[Tensor, Tensor | None]:
        """[R, T, width] and the boolean mask [R, 1, 1, T] of real rows, None when nothing is padded.

        T is the longest text here, or ``longest`` where shapes must not change from batch to batch.
        """
        rows = torch.nn.utils.rnn.pad_sequence(list(self.features.split(self.lengths)), batch_first=True)
        if longest is not None:
            rows = F.pad(rows, (0, 0, 0, longest - rows.shape[1]))
        elif len(set(self.lengths)) == 1:
            return rows, None
        lengths = torch.tensor(self.lengths, device=rows.device)
        return rows, (torch.arange(rows.shape[1], device=rows.device) < lengths[:, None])[:, None, None]


def text_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bf16: bool) -> Tensor:
    """Attention to the text, on request rounded as the official code rounds it even in fp32 runs."""
    if bf16:
        return attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask).to(q.dtype)
    return attention(q, k, v, mask)


class AttentionPool(nn.Module):
    """One learned query per head over the text of a row: [R, T, text_width] -> [R, C]."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.config = config
        self.mat_q = nn.Parameter(torch.randn(1, config.pool_heads, config.width // config.pool_heads))
        self.mat_kv = nn.Linear(config.text_width, 2 * config.width, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(config.width))
        self.register_buffer("zero_k_bias", torch.zeros(config.width))
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, text: Tensor, mask: Tensor | None) -> Tensor:
        bias = torch.cat([torch.zeros_like(self.v_bias), self.v_bias])
        k, v = F.linear(text, self.mat_kv.weight, bias).chunk(2, -1)
        k, v = split_heads(k, self.config.pool_heads), split_heads(v, self.config.pool_heads)
        q = self.mat_q.to(k.dtype).expand(text.shape[0], -1, -1).unsqueeze(2)
        return self.proj(merge_heads(text_attention(q, k, v, mask, self.config.bf16_text_attention))).squeeze(1)


class _TextPool(nn.Module):
    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.ca = AttentionPool(config)


class SelfAttention(nn.Module):
    """Cosine attention: unit queries and keys, a learned scale per head, rotary positions afterwards."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, config.heads, 1, 1), math.log(4.0)))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def queries_keys_values(self, x: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[R, n, C] -> turned queries and keys, and values, each [R, H, n, c]."""
        return self._turned(biased(self.mat_qkv, x, self._bias()), rotary, rotate)

    def _bias(self) -> Tensor:
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def _turned(self, qkv: Tensor, rotary: Tensor, turn: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        qkv = qkv.unflatten(-1, (3, self.heads, -1))  # [R, n, 3, H, c]
        both, v = qkv[..., :2, :, :].flatten(-3, -2).float(), qkv[..., 2, :, :]
        q, k = turn(scaled(both, self._lengthen(both)), rotary).to(v.dtype).unflatten(-2, (2, -1)).unbind(-3)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, rotary: Tensor, attend: Attend) -> Tensor:
        """As training runs it. Compiled, queries and keys have their channels in another order; products stay."""
        if torch.compiler.is_compiling():
            weight, bias = (split_pairs(rows, self.heads) for rows in (self.mat_qkv.weight, self._bias()))
            return self.proj(merge_heads(attend(*self._turned(F.linear(x, weight, bias), rotary, rotate_split))))
        return self.proj(merge_heads(attend(*self.queries_keys_values(x, rotary))))

    def _lengthen(self, both: Tensor) -> Tensor:
        """What gives queries, the first half [R, n, 2H, c], their head's scale for a length and keys the length one."""
        scale = self.scale_mul_1H11.float().clamp(max=math.log(100.0)).exp().flatten()
        lengths = torch.linalg.vector_norm(both, dim=-1, keepdim=True).clamp(min=1e-12)
        return torch.cat([scale, torch.ones_like(scale)])[:, None] / lengths


class CrossAttention(nn.Module):
    """Plain attention to the row's own text; keys and values do not change over the stages."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.mat_q = nn.Linear(width, width)
        self.mat_kv = nn.Linear(width, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """[R, T, C] -> K, V [R, H, T, c]."""
        bias = torch.cat([torch.zeros_like(self.v_bias), self.v_bias])
        k, v = biased(self.mat_kv, text, bias).chunk(2, -1)
        return split_heads(k, self.config.heads), split_heads(v, self.config.heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        q = split_heads(self.mat_q(typed(self.mat_q, x)), self.config.heads)
        return self.proj(merge_heads(text_attention(q, keys, values, mask, self.config.bf16_text_attention)))


class Block(nn.Module):
    """Three sublayers; the caller adds them: x = x + sublayer(x)."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, config.width) / config.width**0.5)
        self.sa = SelfAttention(config)
        self.ca = CrossAttention(config)
        self.ffn = FeedForward(config.width, config.hidden)
        self.ca_norm = nn.LayerNorm(config.width, eps=1e-6)

    def modulation(self, shared: Tensor) -> tuple[Tensor, ...]:
        """shared [R, 1, 6, C] -> gamma1, gamma2, scale1, scale2, shift1, shift2, each [R, 1, C], fp32."""
        return (self.ada_gss.float() + shared).unbind(2)

    def attention(self, x: Tensor, modulation: Sequence[Tensor], rotary: Tensor, attend: Attend) -> Tensor:
        """Self-attention, gated: x [R, n, C] -> [R, n, C] fp32; ``attend`` owns keys and masks."""
        attended = self.sa(modulate(x, modulation[2], modulation[4]), rotary, attend)
        return scaled(attended.float(), modulation[0])

    def cross(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Cross-attention to the text, neither modulated nor gated: x [R, n, C] -> [R, n, C] fp32."""
        norm = self.ca_norm
        h = F.layer_norm(x.float(), x.shape[-1:], norm.weight.float(), norm.bias.float(), norm.eps)
        return self.ca(h, keys, values, mask).float()

    def feed_forward(self, x: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """The feed-forward sublayer, gated: x [R, n, C] -> [R, n, C] fp32."""
        return scaled(self.ffn(modulate(x, modulation[3], modulation[5])).float(), modulation[1])

    def forward(
        self, x: Tensor, shared: Tensor, text: Tensor, mask: Tensor | None, rotary: Tensor, attend: Attend
    ) -> Tensor:
        """The whole block, as training runs it; the engine calls the branches one by one."""
        modulation = self.modulation(shared)
        x = x + self.attention(x, modulation, rotary, attend)
        x = x + self.cross(x, *self.ca.keys_values(text), mask)
        return x + self.feed_forward(x, modulation)


class _Chunk(nn.Module):
    """Official files group the blocks; only the names matter."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.module = nn.ModuleList(Block(config) for _ in range(config.depth // config.chunks))

    def blocks(self) -> list[Block]:
        return list(self.module)  # type: ignore[arg-type]


@dataclass
class TextState:
    """What the blocks need of the text, per row: all of it constant over the stages."""

    pooled: Tensor  # [R, C]
    shared: Tensor  # [R, 1, 6, C]
    tokens: Tensor  # [R, T, C]
    mask: Tensor | None  # [R, 1, 1, T]


class InfinityTransformer(nn.Module):
    """Text and code tokens -> logits of each bit. Inference goes through the engine, training through ``forward``."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.config = config
        width, text = config.width, config.text_width
        self.cfg_uncond = nn.Parameter(torch.randn(config.text_length, text) / text**0.5)
        self.pos_start = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.text_norm = RMSNorm(text)
        self.text_proj_for_sos = _TextPool(config)
        self.text_proj_for_ca = nn.Sequential(
            nn.Linear(text, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.lvl_embed = nn.Embedding(LEVELS, width)
        self.word_embed = nn.Linear(config.bits, width)
        self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.head_nm = HeadNorm(width)
        self.head = nn.Linear(width, 2 * config.bits)
        self.block_chunks = nn.ModuleList(_Chunk(config) for _ in range(config.chunks))

    @property
    def blocks(self) -> list[Block]:
        return [block for chunk in self.block_chunks for block in chunk.blocks()]  # type: ignore[operator]

    def unconditional(self, lengths: Sequence[int]) -> TextBatch:
        """The null text: for each sample the first rows of a learned table, as many as its prompt has."""
        if max(lengths) > self.config.text_length:
            raise VarlabError(f"A prompt of {max(lengths)} text rows exceeds the model's {self.config.text_length}.")
        return TextBatch(torch.cat([self.cfg_uncond[:n] for n in lengths]), tuple(lengths))

    def read_text(self, text: TextBatch, longest: int | None = None) -> TextState:
        """Text features -> what the blocks need of them; ``longest`` pads all batches to one shape."""
        features, mask = text.padded(longest)
        features = self.text_norm(features)
        pooled = self.text_proj_for_sos.ca(features, mask)
        shared = self.shared_ada_lin(pooled).float().view(-1, 1, 6, self.config.width)
        return TextState(pooled, shared, self.text_proj_for_ca(features), mask)

    def start(self, pooled: Tensor) -> Tensor:
        """[R, C] -> the token of stage 0 [R, 1, C], with its level embedding."""
        return (pooled[:, None] + self.pos_start + self.lvl_embed.weight[0]).float()

    def embed(self, codes: Tensor, level: int) -> Tensor:
        """Code tokens [B, n, bits] of a later stage -> [B, n, C]."""
        return (self.word_embed(codes) + self.lvl_embed.weight[level]).float()

    def logits(self, x: Tensor, pooled: Tensor) -> Tensor:
        """[R, n, C] -> [R, n, 2 * bits], in fp32: outputs 2j and 2j + 1 score bit j as 0 and 1."""
        with without_autocast(x):
            scale, shift = self.head_nm.ada_lin(pooled.float())[:, None].chunk(2, -1)
            return self.head(layer_norm(x) * (1 + scale) + shift)

    def forward(
        self,
        text: TextBatch,
        codes: Sequence[Tensor],
        rotary: Tensor,
        attend: Attend,
        longest: int | None = None,
        run: Callable[..., Tensor] = Block.forward,
    ) -> Tensor:
        """Teacher forcing over all stages at once.

        codes: the inputs of stages 1, 2, ... [B, n_k, bits]; rotary [N, c/2, 2]; ``attend`` applies
        block-causal attention; ``longest`` pads the text; ``run`` may be a compiled ``Block.forward``.
        -> logits [B, N, 2 * bits].
        """
        state = self.read_text(text, longest)
        levels = [self.embed(tokens, k) for k, tokens in enumerate(codes, start=1)]
        x = torch.cat([self.start(state.pooled), *levels], 1)
        for block in self.blocks:
            x = run(block, x, state.shared, state.tokens, state.mask, rotary, attend)
        return self.logits(x, state.pooled)

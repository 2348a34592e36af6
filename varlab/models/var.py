"""The VAR transformer: class-conditional next-scale prediction of vector-quantised tokens.

Parameter names equal the keys of the official checkpoints. One screen a part, from label to logits.
Source: VAR (arXiv 2404.02905) and its released models d16 to d36.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.layers import Attend, FeedForward, HeadNorm, merge_heads, modulate, split_heads, without_autocast
from varlab.models.packed import biased, typed

Places = Sequence[Tensor | None] | None  # of stages 1, 2, ...: positions of the tokens that are given
Modulation = tuple[Tensor, ...]  # gamma1, gamma2, scale1, scale2, shift1, shift2, each [R, 1, C] fp32


@dataclass(frozen=True)
class VARConfig:
    """``codes`` entries of ``code_width`` channels; ``sides`` of the token grids, which fix the learned positions.

    ``shared_modulation``: one projection of the class for all blocks, with an own offset each. ``cosine``: unit
    queries and keys with a learned scale per head, else plain products at a quarter of the usual scale.
    """

    depth: int
    width: int
    heads: int
    classes: int = 1000
    codes: int = 4096
    code_width: int = 32
    sides: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    shared_modulation: bool = False
    cosine: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise VarlabError(f"width {self.width} does not divide into {self.heads} heads.")
        if not self.sides or min(self.sides) < 1 or self.sides[0] != 1:
            raise VarlabError(f"VAR's first token is the class: the sides must begin with 1, not {self.sides}.")

    @property
    def attention_scale(self) -> float:
        """Of the softmax; a cosine model's scale is a parameter."""
        return 1.0 if self.cosine else 0.25 / math.sqrt(self.width // self.heads)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(side * side for side in self.sides)


class SelfAttention(nn.Module):
    """No positions here: they are added to the tokens once."""

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.cosine = config.heads, config.cosine
        if config.cosine:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, config.heads, 1, 1), math.log(4.0)))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = biased(self.mat_qkv, x, bias)
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, -1))
        if self.cosine:
            scale = self.scale_mul_1H11.float().clamp(max=math.log(100.0)).exp()
            q = (F.normalize(q.float(), dim=-1) * scale).to(v.dtype)
            k = F.normalize(k.float(), dim=-1).to(v.dtype)
        return self.proj(merge_heads(attend(q, k, v)))


class Block(nn.Module):
    """Two sublayers; the caller adds them: x = x + sublayer(x)."""

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.width = config.width
        self.attn = SelfAttention(config)
        self.ffn = FeedForward(config.width, 4 * config.width)
        if config.shared_modulation:
            self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, config.width) / config.width**0.5)
        else:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))

    def modulation(self, label: Tensor) -> Modulation:
        """From class embeddings [R, C], or from the shared projection [R, 1, 6, C] where there is one."""
        if label.ndim == 4:
            return (self.ada_gss.float() + label).unbind(2)
        parts = self.ada_lin(typed(self.attn.proj, label))
        return parts.float().view(-1, 1, 6, self.width).unbind(2)

    def attention(self, x: Tensor, modulation: Modulation, attend: Attend) -> Tensor:
        return self.attn(modulate(x, modulation[2], modulation[4]), attend).float() * modulation[0]

    def feed_forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        return self.ffn(modulate(x, modulation[3], modulation[5])).float() * modulation[1]

    def forward(self, x: Tensor, modulation: Modulation, attend: Attend) -> Tensor:
        """The whole block, as training runs it; the engine calls the branches one by one."""
        x = x + self.attention(x, modulation, attend)
        return x + self.feed_forward(x, modulation)


RunBlock = Callable[[Block, Tensor, Modulation, Attend], Tensor]  # Block.forward, or the same compiled


class VARTransformer(nn.Module):
    """Class labels and code tokens -> logits over the codebook.

    Inference goes through the engine, training through ``states`` or ``forward``.
    """

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.config = config
        width, tokens = config.width, sum(config.lengths)
        self.pos_start = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.pos_1LC = nn.Parameter(torch.randn(1, tokens, width) / width**0.5)
        for name, value in self.constants().items():
            self.register_buffer(name, value)
        self.word_embed = nn.Linear(config.code_width, width)
        self.class_emb = nn.Embedding(config.classes + 1, width)  # the last row stands for no class
        self.lvl_embed = nn.Embedding(len(config.sides), width)
        if config.shared_modulation:
            self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_nm = HeadNorm(width)
        self.head = nn.Linear(width, config.codes)

    def constants(self) -> dict[str, Tensor]:
        """What official files hold but nobody learns: the stage of every token [1, L], and the mask [1, 1, L, L].

        In numpy: torch would import its compiler, a second, to compare numbers on the meta device.
        """
        stage = np.repeat(np.arange(len(self.config.lengths)), self.config.lengths)
        bias = np.where(stage[:, None] < stage[None], np.float32(-np.inf), np.float32(0))
        return {"lvl_1L": torch.tensor(stage[None]), "attn_bias_for_masking": torch.tensor(bias[None, None])}

    def modulation(self, label: Tensor) -> list[Modulation]:
        """Class embeddings [R, C] -> the modulation of every block."""
        if self.config.shared_modulation:
            label = self.shared_ada_lin(label).float().view(-1, 1, 6, self.config.width)
        return [block.modulation(label) for block in self.own_blocks()]

    def own_blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def positions(self, k: int) -> Tensor:
        """Position and level embedding of the tokens of stage k [n, C], fp32."""
        ends = list(accumulate(self.config.lengths))
        start = ends[k] - self.config.lengths[k]
        return (self.pos_1LC[0, start : ends[k]] + self.lvl_embed.weight[k]).float()

    def start(self, label: Tensor) -> Tensor:
        """Class embeddings [R, C] -> the token of stage 0 [R, 1, C]."""
        return (label[:, None] + self.pos_start + self.positions(0)).float()

    def embed(self, codes: Tensor, positions: Tensor) -> Tensor:
        """Code tokens [B, n, c] of a later stage and their positions [n, C] or [B, n, C] -> [B, n, C]."""
        return self.word_embed(codes).float() + positions

    def head_modulation(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Class embeddings [R, C] -> scale and shift before the head, each [R, 1, C] fp32."""
        scale, shift = self.head_nm.ada_lin(label.float())[:, None].chunk(2, -1)
        return scale, shift

    def logits(self, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
        """Hidden states [R, n, C], after any block -> [R, n, V], in fp32."""
        with without_autocast(x):
            return self.head(modulate(x, *modulation))

    def states(
        self,
        labels: Tensor,
        codes: Sequence[Tensor],
        attend: Attend,
        executed: Tensor | None = None,
        places: Places = None,
        run: RunBlock = Block.forward,
    ) -> Iterator[Tensor]:
        """Teacher forcing over all stages at once: the hidden states [B, N, C] after each block.

        labels [B]; codes: the inputs of stages 1, 2, ... [B, n_k, c]; ``attend`` applies block-causal attention.
        ``executed`` [depth, B] boolean: samples that run a block; the others pass it unchanged. ``places``: which
        tokens of stages 1, 2, ... are given, None for a whole stage.
        """
        label = self.class_emb(labels)
        chosen = [None] * len(codes) if places is None else places
        at = [slice(None) if place is None else place.to(label.device) for place in chosen]
        levels = [self.embed(tokens, self.positions(k + 1)[at[k]]) for k, tokens in enumerate(codes)]
        x = torch.cat([self.start(label), *levels], 1)
        for i, (block, modulation) in enumerate(zip(self.own_blocks(), self.modulation(label), strict=True)):
            if executed is None or bool(executed[i].all()):
                x = run(block, x, modulation, attend)
            else:
                rows = executed[i].nonzero().squeeze(-1).to(x.device)
                part = tuple(vector[rows] for vector in modulation)
                x = x.index_copy(0, rows, run(block, x[rows], part, attend))
            yield x

    def forward(
        self,
        labels: Tensor,
        codes: Sequence[Tensor],
        attend: Attend,
        places: Places = None,
        run: RunBlock = Block.forward,
    ) -> Tensor:
        """As ``states`` -> logits [B, N, V] after the last block."""
        *_, x = self.states(labels, codes, attend, places=places, run=run)
        return self.logits(x, self.head_modulation(self.class_emb(labels)))

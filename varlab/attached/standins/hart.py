"""A sampler under HART's released names: the text as stage 1, MaskGIT passes of the last, a diffusion head."""

# Modules become others by their class, as no type checker can follow.
# mypy: ignore-errors

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.attached.standins.caching import Caching
from varlab.models.diffusion import ResidualDiffusion
from varlab.models.hart import Block, HartText, HartTransformer, SelfAttention
from varlab.models.hart_model import Hart
from varlab.models.layers import attention
from varlab.models.rotary import grid_rotary, text_rotary
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.hybrid import HybridTokenizer, Quantizer
from varlab.models.tokenizers.maps import channels_last

Normal = Callable[[str, Tensor], Tensor]  # kind, places of the tokens -> standard normal numbers [B, n, Z]


class Attention(Caching, SelfAttention):
    scale = 1.0
    sides: tuple[int, ...] = ()

    def forward(
        self, x: Tensor, attn_bias: Any, si: int, context_position_ids: Tensor, context_mask: Any, m_maskgit: Any
    ) -> Tensor:
        width, end = x.shape[-1] // self.heads, (self.sides[-1],) * 2
        if si == 0:
            table = text_rotary(context_position_ids, width)
        else:
            table = grid_rotary((self.sides[si],) * 2, end, context_position_ids[:, -1], width)
        if m_maskgit is not None:
            table = table[:, m_maskgit[0]]  # the same places in all rows

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, *self.grown(k, v), scale=self.scale)

        return super().forward(x, table, attend)


class StandInBlock(Block):
    pooling = "max"

    def forward(
        self, x: Tensor, cond_BD: Tensor, attn_bias: Any, si: int = -1, context_position_ids: Any = None,
        context_mask: Any = None, m_maskgit: Any = None,
    ) -> Tensor:  # fmt: skip
        given = (attn_bias, si, context_position_ids, context_mask, m_maskgit)
        six = self.modulation(self._pooled(cond_BD, context_mask))
        if six is None:
            x = x + self.attn(self.ln_wo_grad(x), *given)
            return x + self.ffn(self.ln_wo_grad(x))
        x = x + self.attn(self.ln_wo_grad(x) * (1 + six[2]) + six[4], *given).mul_(six[0])
        return x + self.ffn(self.ln_wo_grad(x) * (1 + six[3]) + six[5]).mul_(six[1])

    def _pooled(self, context: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "max" and not hasattr(self, "scale_shift_table"):
            return context.amax(1)
        real = mask[..., None].to(context.dtype)
        return (context * real).sum(1) / real.sum(1).clamp(min=1)


class StandInQuantizer(Quantizer):
    def get_next_autoregressive_input(
        self, si: int, SN: int, f_hat: Tensor, h_BChw: Tensor, patch_nums: Any = None
    ) -> tuple[Tensor, Tensor]:
        side = patch_nums[-1]
        f_hat.add_(self.spread(h_BChw, (side, side), si, SN))
        return f_hat, area(f_hat, (patch_nums[si + 1],) * 2)


class StandInVAE(HybridTokenizer):
    def __init__(self, own: HybridTokenizer) -> None:
        super().__init__(own.config)
        self.load_state_dict(own.state_dict())
        self.quantize.__class__ = StandInQuantizer
        channels_last(self.eval().requires_grad_(False))

    def fhat_to_img(self, f_hat: Tensor) -> Tensor:
        return self.decode(f_hat)


class DiffLoss(ResidualDiffusion):
    steps = 8
    noise: Normal | None = None

    def sample(self, z: Tensor, temperature: float = 1.0, cfg: float = 1.0) -> Tensor:
        """Rows [cond; uncond] of all tokens [2 B n, C] -> [2 B n, Z]."""
        batch = self.batch
        hidden, noise = z.view(2 * batch, -1, z.shape[-1]), self.noise
        draw = noise or (lambda kind, places: torch.randn(batch, len(places), self.latents))
        out = super().sample(hidden, batch, cfg, self.times(self.steps), lambda kind: draw(kind, self.places))
        return torch.cat([out, out]).flatten(0, 1)


class StandIn(HartTransformer):
    """``own``: the model of ours whose weights it takes. ``noise``: in place of the global generator's. ``turns``: the
    pass of each token of the last stage [h*w], in place of a random order."""

    turns: Tensor | None = None

    def __init__(self, own: Hart, noise: Normal | None = None) -> None:
        config = own.transformer.config
        super().__init__(config)
        self.patch_nums = tuple(height for height, _ in own.schedule.grids)
        for block in self.blocks:
            block.__class__, block.attn.__class__, block.pooling = StandInBlock, Attention, config.pooling
            block.attn.scale, block.attn.sides = own.attention_scale, self.patch_nums
        self.load_state_dict(own.transformer.state_dict())
        self.num_heads, self.num_sampling_steps = config.heads, config.diffusion_steps
        self.sep_aln_pooling_mode = "max" if config.pooling == "max" else "avg"
        self.diffloss.__class__, self.diffloss.steps, self.diffloss.noise = DiffLoss, config.diffusion_steps, noise
        vae = StandInVAE(own.tokenizer)
        self.vae_proxy: tuple[nn.Module] = (vae,)
        self.vae_quant_proxy: tuple[nn.Module] = (vae.quantize,)
        self.eval().requires_grad_(False)

    def get_logits(self, x: Tensor, cond_BD: Tensor) -> Tensor:
        return self.logits(x, self.head_nm.ada_lin(cond_BD.amax(1, keepdim=True)))

    def run_blocks(self, x: Tensor, **given: Any) -> Tensor:
        for block in self.blocks:
            x = block(x=x, attn_bias=None, **given)
        return x

    @torch.no_grad()
    def autoregressive_infer_cfg(
        self, B: int, label_B: Tensor, g_seed: int | None = None, cfg: float = 1.5, top_k: int = 0, top_p: float = 0.0,
        more_smooth: bool = False, context_position_ids: Any = None, context_mask: Any = None, final_stage: int = 0,
        num_maskgit_iters: int = 1,
    ) -> Tensor:  # fmt: skip
        generator = None if g_seed is None else torch.Generator().manual_seed(g_seed)
        null = HartText(label_B, context_mask).dropped(torch.ones(B, dtype=torch.bool))
        cond_BD = torch.cat([self.context(label_B), self.context(null.features)])
        places = torch.cat([context_position_ids, null.positions])
        mask = torch.cat([context_mask, null.mask])
        levels, sides, quantizer = self.levels(), self.patch_nums, self.vae_quant_proxy[0]
        last, self.diffloss.batch = len(sides) - 1, B
        given = {"cond_BD": cond_BD, "context_position_ids": places, "context_mask": mask}
        x = cond_BD + levels[0]
        f_hat = x.new_zeros(B, self.config.latents, sides[-1], sides[-1])
        for block in self.blocks:
            block.attn.kv_caching(True)
        for si, side in enumerate(sides[:-1]):
            ratio = si / last
            x = self.run_blocks(x, si=si, m_maskgit=None, **given)
            logits = self.get_logits(x, cond_BD)
            logits = ((1 + cfg * ratio) * logits[:B] - cfg * ratio * logits[B:])[:, -side * side :]
            h = self._read(logits, ratio, top_k, more_smooth, generator)
            h = h.mT.reshape(B, -1, side, side)
            f_hat, following = quantizer.get_next_autoregressive_input(si, len(sides), f_hat, h, patch_nums=sides)
            x = self.embed(following.flatten(2).mT, levels[si + 1]).repeat(2, 1, 1)
        tokens = f_hat.new_zeros(B, sides[-1] ** 2, self.config.latents)
        for chosen in self._passes(num_maskgit_iters, generator):
            rows = None if num_maskgit_iters == 1 else chosen.expand(2 * B, -1)
            here, self.diffloss.places = x[:, chosen], chosen
            out = self.run_blocks(here, si=last, m_maskgit=rows, **given)
            logits = self.get_logits(out, cond_BD)
            t = cfg * ratio  # that of the stage before
            logits = (1 + t) * logits[:B] - t * logits[B:]
            tokens[:, chosen] = self._read(logits, ratio, top_k, more_smooth, generator)
            if final_stage == 0:
                idx = logits.argmax(-1)
                z = self.residual_condition(out, quantizer.embedding(idx))
                d = self.diffloss.sample(z=z.flatten(0, 1), temperature=1.0, cfg=t)
                tokens[:, chosen] += d.chunk(2)[0].view(B, -1, self.config.latents)
        f_hat += tokens.mT.reshape(f_hat.shape)
        for block in self.blocks:
            block.attn.kv_caching(False)
        return self.vae_proxy[0].fhat_to_img(f_hat).add_(1).mul_(0.5)

    def _passes(self, count: int, generator: Any) -> list[Tensor]:
        """Places of each pass: the cosine rule, an order drawn once."""
        length = self.patch_nums[-1] ** 2
        if self.turns is not None:
            return [(self.turns == it).nonzero().squeeze(-1) for it in range(count)]
        order, masked, parts = torch.randperm(length, generator=generator), length, []
        for it in range(1, count + 1):
            wanted = math.floor(length * math.cos(math.pi / 2 * it / count))
            left = max(1, min(masked - 1, wanted)) if it < count else 0
            parts.append(order[left:masked].sort().values)
            masked = left
        return parts

    def _read(self, logits: Tensor, ratio: float, top_k: int, smooth: bool, generator: Any) -> Tensor:
        quantizer = self.vae_quant_proxy[0]
        if smooth:
            return F.softmax((1 + ratio) * logits / 0.1, -1) @ quantizer.embedding.weight
        if top_k == 1:
            return quantizer.embedding(logits.argmax(-1))
        index = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator)
        return quantizer.embedding(index.view(logits.shape[:-1]))

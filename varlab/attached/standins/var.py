"""A sampler under VAR's released names: canvas written in place, learned positions, smoothing convolutions."""

# Modules become others by their class, as no type checker can follow.
# mypy: ignore-errors

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.attached.standins.caching import Caching
from varlab.models.layers import attention, modulate
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.vqvae import Quantizer, VQTokenizer
from varlab.models.var import Block, SelfAttention, VARTransformer
from varlab.models.var_model import VAR


class Attention(Caching, SelfAttention):
    scale = 1.0

    def forward(self, x: Tensor, attn_bias: Any) -> Tensor:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, *self.grown(k, v), scale=self.scale)

        return super().forward(x, attend)


class StandInBlock(Block):
    def forward(self, x: Tensor, cond_BD: Tensor, attn_bias: Any) -> Tensor:
        shared = hasattr(self, "ada_gss")
        six = self.ada_gss.float() + cond_BD if shared else self.ada_lin(cond_BD).view(-1, 1, 6, self.width)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = six.unbind(2)
        x = x + self.attn(modulate(x, scale1, shift1), attn_bias=attn_bias).mul_(gamma1)
        return x + self.ffn(modulate(x, scale2, shift2)).mul(gamma2)


class StandInQuantizer(Quantizer):
    def get_next_autoregressive_input(self, si: int, SN: int, f_hat: Tensor, h_BChw: Tensor) -> tuple[Tensor, Tensor]:
        from varlab.models.tokenizers.vqvae import phi_index

        side, phis = f_hat.shape[-1], self.phis()
        h = h_BChw if si == SN - 1 else F.interpolate(h_BChw, size=(side, side), mode="bicubic")
        f_hat.add_(phis[phi_index(SN, len(phis))[si]](h))
        return f_hat, f_hat if si == SN - 1 else area(f_hat, (self.sides[si + 1],) * 2)


class StandInVAE(VQTokenizer):
    def __init__(self, own: VQTokenizer, sides: tuple[int, ...]) -> None:
        super().__init__(own.config)
        self.load_state_dict(own.state_dict())
        self.quantize.__class__, self.quantize.sides = StandInQuantizer, sides
        self.eval().requires_grad_(False)

    def fhat_to_img(self, f_hat: Tensor) -> Tensor:
        return self.decode(f_hat)


class StandIn(VARTransformer):
    """``own``: the model of ours whose weights it takes."""

    def __init__(self, own: VAR) -> None:
        super().__init__(own.transformer.config)
        for block in self.blocks:
            block.__class__, block.attn.__class__ = StandInBlock, Attention
            block.attn.scale = own.attention_scale
        self.load_state_dict(own.transformer.state_dict())
        self.num_heads, self.patch_nums = own.transformer.config.heads, own.transformer.config.sides
        vae = StandInVAE(own.tokenizer, self.patch_nums)
        self.vae_proxy: tuple[nn.Module] = (vae,)
        self.vae_quant_proxy: tuple[nn.Module] = (vae.quantize,)
        self.eval().requires_grad_(False)

    def get_logits(self, h_or_h_and_residual: Any, cond_BD: Tensor) -> Tensor:
        return self.logits(h_or_h_and_residual, self.head_modulation(cond_BD))

    # What forks change.

    def run_blocks(self, x: Tensor, si: int, cond_BD: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x=x, cond_BD=cond_BD, attn_bias=None)
        return x

    @torch.no_grad()
    def autoregressive_infer_cfg(
        self, B: int, label_B: Any, g_seed: int | None = None, cfg: float = 1.5, top_k: int = 0, top_p: float = 0.0,
        more_smooth: bool = False,
    ) -> Tensor:  # fmt: skip
        generator = None if g_seed is None else torch.Generator().manual_seed(g_seed)
        label_B = torch.full((B,), label_B) if isinstance(label_B, int) else label_B
        null = torch.full_like(label_B, self.config.classes)
        label = cond_BD = self.class_emb(torch.cat([label_B, null])).float()
        if self.config.shared_modulation:
            cond_BD = self.shared_ada_lin(label).float().view(-1, 1, 6, self.config.width)
        quantizer, sides = self.vae_quant_proxy[0], self.patch_nums
        x = self.start(label)
        f_hat = label.new_zeros(B, self.config.code_width, sides[-1], sides[-1])
        for block in self.blocks:
            block.attn.kv_caching(True)
        for si, side in enumerate(sides):
            x = self.run_blocks(x, si, cond_BD)
            logits = self.get_logits(x, label)
            t = cfg * si / (len(sides) - 1)
            logits = (1 + t) * logits[:B] - t * logits[B:]
            if more_smooth:
                h = ((1 + si / (len(sides) - 1)) * logits / 0.2).softmax(-1) @ quantizer.embedding.weight
            else:
                h = quantizer.embedding(self._sample(logits, top_k, generator))
            h = h.mT.reshape(B, -1, side, side)
            f_hat, following = quantizer.get_next_autoregressive_input(si, len(sides), f_hat, h)
            if si + 1 < len(sides):
                x = self.embed(following.flatten(2).mT, self.positions(si + 1)).repeat(2, 1, 1)
        for block in self.blocks:
            block.attn.kv_caching(False)
        return self.vae_proxy[0].fhat_to_img(f_hat).add_(1).mul_(0.5)

    def _sample(self, logits: Tensor, top_k: int, generator: Any) -> Tensor:
        if top_k == 1:
            return logits.argmax(-1)
        flat = logits.softmax(-1).flatten(0, 1)
        return torch.multinomial(flat, 1, generator=generator).view(logits.shape[:-1])

"""A sampler under Infinity's released names: one long loop with guidance, codes and canvas as inline statements."""

# Modules become others by their class, as no type checker can follow.
# mypy: ignore-errors

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.attached.standins.caching import Caching
from varlab.models.infinity import Block, CrossAttention, InfinityTransformer, SelfAttention, TextBatch, text_attention
from varlab.models.infinity_model import Infinity
from varlab.models.layers import attention, layer_norm, merge_heads, modulate, split_heads
from varlab.models.tokenizers.bsq import BSQTokenizer


class Attention(Caching, SelfAttention):
    def forward(
        self, x: Tensor, attn_bias_or_two_vector: Any, attn_fn: Any = None, scale_schedule: Any = None,
        rope2d_freqs_grid: Any = None, scale_ind: int = 0, places: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        start = sum(h * w for _, h, w in scale_schedule[:scale_ind])
        _, h, w = scale_schedule[scale_ind]
        table = rope2d_freqs_grid[str(tuple(scale_schedule))][start : start + h * w]
        q, k, v = self.queries_keys_values(x, table if places is None else table[places])
        return self.proj(merge_heads(attention(q, *self.grown(k, v), scale=1.0)))


class TextAttention(CrossAttention):
    def forward(self, q: Tensor, ca_kv: tuple[Tensor, Tensor, int]) -> Tensor:
        compact, ends, _ = ca_kv
        lengths = ends.diff().tolist()
        rows, mask = TextBatch(compact, tuple(lengths)).padded()
        keys, values = self.keys_values(rows)
        query = split_heads(self.mat_q(q.to(self.mat_q.weight.dtype)), self.config.heads)
        return self.proj(merge_heads(text_attention(query, keys, values, mask, False)))


class StandInBlock(Block):
    """Shared modulation, gates outside of the sublayers, that of the attention in place."""

    def forward(
        self, x: Tensor, cond_BD: Tensor, ca_kv: Any, attn_bias_or_two_vector: Any, attn_fn: Any = None,
        scale_schedule: Any = None, rope2d_freqs_grid: Any = None, scale_ind: int = 0, **more: Any,
    ) -> Tensor:  # fmt: skip
        gamma1, gamma2, scale1, scale2, shift1, shift2 = (self.ada_gss.float() + cond_BD).unbind(2)
        attended = self.sa(
            modulate(x, scale1, shift1), attn_bias_or_two_vector, attn_fn, scale_schedule, rope2d_freqs_grid,
            scale_ind=scale_ind, **more,
        )  # fmt: skip
        x = x + attended.mul_(gamma1)
        norm = F.layer_norm(x.float(), x.shape[-1:], self.ca_norm.weight.float(), self.ca_norm.bias.float(), 1e-6)
        x = x + self.ca(norm, ca_kv).float()
        return x + self.ffn(modulate(x, scale2, shift2)).mul(gamma2)


class LookupFree(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def indices_to_codes(self, indices: Tensor, label_type: str = "int_label") -> Tensor:
        """Bits [B, 1, h, w, d] -> [B, d, 1, h, w]."""
        assert label_type == "bit_label"
        return ((indices.movedim(-1, 1).float() * 2 - 1) * indices.shape[-1] ** -0.5).contiguous()


class StandInVAE(BSQTokenizer):
    def __init__(self, own: BSQTokenizer) -> None:
        super().__init__(own.config)
        self.load_state_dict(own.state_dict())
        self.quantizer.lfq = LookupFree(own.quantizer.lfq.mask.clone())
        self.quantizer.z_interplote_up = "trilinear"
        self.eval().requires_grad_(False)


class StandIn(InfinityTransformer):
    """``own``: the model of ours whose weights it takes."""

    exact = True

    def __init__(self, own: Infinity) -> None:
        super().__init__(own.transformer.config)
        for chunk in self.block_chunks:
            for block in chunk.module:
                block.__class__, block.sa.__class__, block.ca.__class__ = StandInBlock, Attention, TextAttention
        self.load_state_dict(own.transformer.state_dict())
        self.unregistered_blocks = [block for chunk in self.block_chunks for block in chunk.module]
        self.extent = own.schedule.extent
        scales = tuple((1, h, w) for h, w in own.schedule.grids)
        self.rope2d_freqs_grid = {str(scales): torch.cat(list(own.rotary))}
        self.eval().requires_grad_(False)

    def get_logits(self, h: Tensor, cond_BD: Tensor) -> Tensor:
        scale, shift = self.head_nm.ada_lin(cond_BD.float())[:, None].chunk(2, -1)
        return self.head(layer_norm(h) * (1 + scale) + shift)

    # What forks change.

    def skips(self, si: int) -> bool:
        return False

    def resize(self, latent: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
        """Trilinear over one frame is bilinear but for rounding; ours, so that all else can be compared to the bit."""
        if self.exact and mode == "trilinear":
            return F.interpolate(latent.squeeze(2), size=size[1:], mode="bilinear").unsqueeze(2)
        return F.interpolate(latent, size=size, mode=mode)

    def run_blocks(self, x: Tensor, si: int, B: int, cfg: float, layers: Sequence[int], **given: Any) -> Tensor:
        for i, block in enumerate(self.unregistered_blocks):
            x = block(x=x, scale_ind=si, **given)
            if cfg != 1 and x.shape[0] == 2 * B and i - len(self.unregistered_blocks) in layers:
                mixed = cfg * x[:B] + (1 - cfg) * x[B:]
                x = torch.cat([mixed, mixed])
        return x

    @torch.no_grad()
    def autoregressive_infer_cfg(
        self, vae: Any = None, scale_schedule: Any = None, label_B_or_BLT: Any = None, B: int = 1,
        negative_label_B_or_BLT: Any = None, g_seed: int | None = None, cfg_list: Any = (), tau_list: Any = (),
        cfg_sc: float = 3, top_k: int = 0, top_p: float = 0.0, cfg_insertion_layer: Sequence[int] = (-5,),
        gt_leak: int = 0, gt_ls_Bl: Any = None, inference_mode: bool = False, **_: Any,
    ) -> tuple[list[Any], list[Any], Tensor]:  # fmt: skip
        cfg_list = cfg_list if isinstance(cfg_list, list) else [cfg_list] * len(scale_schedule)
        tau_list = tau_list if isinstance(tau_list, list) else [tau_list] * len(scale_schedule)
        generator = None if g_seed is None else torch.Generator().manual_seed(g_seed)
        features, lengths, _, _ = label_B_or_BLT
        batch = TextBatch(features, tuple(lengths))
        if any(value != 1 for value in cfg_list):
            batch = batch + self.unconditional(batch.lengths)
        rows, mask = batch.padded()
        normed = self.text_norm(rows)
        cond_BD = self.text_proj_for_sos.ca(normed, mask)
        shared = self.shared_ada_lin(cond_BD).float().view(-1, 1, 6, self.config.width)
        tokens = self.text_proj_for_ca(normed)
        compact = torch.cat([row[:n] for row, n in zip(tokens, batch.lengths, strict=True)])
        ends = F.pad(torch.tensor(batch.lengths).cumsum(0), (1, 0))
        for block in self.unregistered_blocks:
            block.sa.kv_caching(True)
        patch = 2 if self.config.patchify else 1
        sizes = [(1, h * patch, w * patch) for _, h, w in scale_schedule]
        x, summed = cond_BD[:, None] + self.pos_start, 0
        for si, (_, h, w) in enumerate(scale_schedule):
            if not self.skips(si):
                x = x + self.lvl_embed.weight[si]
                cfg = cfg_list[si]
                x = self.run_blocks(
                    x, si, B, cfg, cfg_insertion_layer, cond_BD=shared, ca_kv=(compact, ends, max(batch.lengths)),
                    attn_bias_or_two_vector=None, attn_fn=None, scale_schedule=scale_schedule,
                    rope2d_freqs_grid=self.rope2d_freqs_grid,
                )  # fmt: skip
                if cfg != 1 and 0 in cfg_insertion_layer and x.shape[0] == 2 * B:
                    logits = self.get_logits(x, cond_BD) / tau_list[si]
                    logits = cfg * logits[:B] + (1 - cfg) * logits[B:]
                else:
                    logits = self.get_logits(x[:B], cond_BD[:B]) / tau_list[si]
                bits = self._sample(logits.reshape(B, h * w, -1, 2), top_k, generator)
                idx = self._to_grid(bits, h, w)
                if si < gt_leak:
                    idx = gt_ls_Bl[si]
                codes = vae.quantizer.lfq.indices_to_codes(idx, label_type="bit_label")
                if sizes[si] != sizes[-1]:
                    codes = self.resize(codes, sizes[-1], vae.quantizer.z_interplote_up)
                summed = summed + codes
            if si + 1 < len(scale_schedule):
                last = self.resize(summed, sizes[si + 1], vae.quantizer.z_interplote_up).squeeze(2)
                last = F.pixel_unshuffle(last, 2) if patch == 2 else last
                x = self.word_embed(last.flatten(2).mT).repeat(len(shared) // B, 1, 1)
        for block in self.unregistered_blocks:
            block.sa.kv_caching(False)
        image = (vae.decode(summed.squeeze(-3).contiguous()) + 1) / 2
        return [], [], image.permute(0, 2, 3, 1).mul_(255).to(torch.uint8).flip(dims=(3,))

    def _sample(self, logits: Tensor, top_k: int, generator: Any) -> Tensor:
        if top_k == 1:
            return logits.argmax(-1)
        flat = logits.softmax(-1).reshape(-1, 2)
        return torch.multinomial(flat, 1, generator=generator).view(logits.shape[:-1])

    def _to_grid(self, bits: Tensor, h: int, w: int) -> Tensor:
        """[B, n, d] -> [B, 1, h', w', b]."""
        grid = bits.unflatten(1, (h, w))
        if self.config.patchify:
            grid = F.pixel_shuffle(grid.movedim(-1, 1).float(), 2).movedim(1, -1).to(bits.dtype)
        return grid.unsqueeze(1)


def arguments(own: Infinity, text: TextBatch, **more: Any) -> dict[str, Any]:
    """Keywords of the sampler for these texts."""
    ends = F.pad(torch.tensor(text.lengths).cumsum(0), (1, 0))
    return {
        "scale_schedule": [(1, h, w) for h, w in own.schedule.grids],
        "label_B_or_BLT": (text.features, list(text.lengths), ends, max(text.lengths)),
        "B": len(text.lengths),
        "g_seed": 0,
        "cfg_list": 2.0,
        "tau_list": 1.0,
        "top_k": 1,
        "cfg_insertion_layer": [0],
        "inference_mode": True,
        "sampling_per_bits": 1,
    } | more

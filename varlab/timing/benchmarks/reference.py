"""A plain eager sampler of Infinity, the yardstick of the engine: same weights and noise, nothing kept but the caches.

It follows the loop of the official sampler: caches grow by concatenation, and every stage computes the modulations and
the keys and values of the text anew. Attention to the text is padded and masked, since the official varlen kernel has
no CPU form. Source: Infinity (arXiv 2412.04431), its released sampler.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.context import fixed_context
from varlab.engine.randomness import Noise
from varlab.models.base import Distribution, Draw
from varlab.models.infinity import Block, CrossAttention, SelfAttention, TextBatch, TextState
from varlab.models.infinity_model import Infinity

Cache = dict[int, tuple[Tensor, Tensor]]  # block -> keys, values [R, H, N, c]


def reference(model: Infinity, text: TextBatch, samples: Sequence[int], noise: Noise, autocast: bool = False) -> Tensor:
    """Canvas [B, b, H, W] of the model's own schedule and settings, not yet decoded.

    ``autocast``: the whole of it under bf16 autocast, as the official run does; the weights keep their types.
    """
    context: AbstractContextManager[object] = nullcontext()
    if autocast:
        context = torch.autocast(model.device.type, torch.bfloat16)
    with fixed_context(tf32=model.precision == "bf16"), torch.inference_mode(), context:
        return _sample(model, text, samples, noise)


def _sample(model: Infinity, text: TextBatch, samples: Sequence[int], noise: Noise) -> Tensor:
    net, settings = model.transformer, model.settings
    guided = settings.guided
    rows = text + net.unconditional(text.lengths) if guided else text
    state = net.read_text(rows)
    canvas, cache = model.new_canvas(len(samples)), Cache()
    for k, grid in enumerate(model.schedule.grids):
        if k == 0:
            x = net.start(state.pooled)
        else:
            x = net.word_embed(model.next_input(k, canvas)).repeat(2 if guided else 1, 1, 1)
            x = x + net.lvl_embed.weight[k]
        for i, block in enumerate(net.blocks):
            x = _block(block, i, x, state, model.rotary[k], cache)
        guidance = model.guidance(k, settings, guided)
        out = model.readout(x, _Pooled(state), guided, guidance)  # type: ignore[arg-type]
        labels = model.draw(k, out.guided, settings, _draw(noise, k, samples, grid[0] * grid[1], model.device))
        canvas = model.accumulate(k, canvas, model.code_map(k, model.codes(k, labels)))
    return canvas


class _Pooled:
    """What the read-out asks of a conditioning."""

    def __init__(self, state: TextState) -> None:
        self.text = state


def _draw(noise: Noise, k: int, samples: Sequence[int], tokens: int, device: torch.device) -> Draw:
    def draw(kind: str, width: int, distribution: Distribution = "uniform") -> Tensor:
        drawn: Tensor = getattr(noise, distribution)(kind, k, samples, (tokens, width))
        return drawn.to(device)

    return draw


def _block(block: Block, i: int, x: Tensor, state: TextState, rotary: Tensor, cache: Cache) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        gamma1, gamma2, scale1, scale2, shift1, shift2 = (block.ada_gss + state.shared).unbind(2)
    x = x + _self_attention(block.sa, i, _modulated(x, scale1, shift1), rotary, cache).mul_(gamma1)
    norm = block.ca_norm
    h = F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
    x = x + _cross_attention(block.ca, h, state).float()
    h = _modulated(x, scale2, shift2)
    h = block.ffn.fc2(F.gelu(block.ffn.fc1(h), approximate="tanh"))
    return x + h.mul(gamma2)


def _modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x.float(), x.shape[-1:], eps=1e-6).mul(scale.add(1)).add_(shift)


def _self_attention(layer: SelfAttention, i: int, x: Tensor, rotary: Tensor, cache: Cache) -> Tensor:
    rows, tokens, width = x.shape
    bias = torch.cat([layer.q_bias, torch.zeros_like(layer.q_bias), layer.v_bias])
    qkv = F.linear(x, layer.mat_qkv.weight, bias).view(rows, tokens, 3, layer.heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    scale = layer.scale_mul_1H11.clamp_max(math.log(100)).exp()
    q, k = F.normalize(q, dim=-1).mul(scale).contiguous(), F.normalize(k, dim=-1).contiguous()
    v = v.contiguous()
    with torch.autocast(x.device.type, enabled=False):
        q, k = _rotated(q, rotary), _rotated(k, rotary)
    if i in cache:
        k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
    cache[i] = k, v
    out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return layer.proj(out.transpose(1, 2).reshape(rows, tokens, width))


def _rotated(x: Tensor, rotary: Tensor) -> Tensor:
    a, b = x.float()[..., 0::2], x.float()[..., 1::2]
    cosine, sine = rotary.unbind(-1)
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(-2)


def _cross_attention(layer: CrossAttention, x: Tensor, state: TextState) -> Tensor:
    rows, tokens, width = x.shape
    heads = layer.config.heads
    q = layer.mat_q(x).view(rows, tokens, heads, -1).transpose(1, 2)
    bias = torch.cat([torch.zeros_like(layer.v_bias), layer.v_bias])
    kv = F.linear(state.tokens, layer.mat_kv.weight, bias).view(rows, -1, 2, heads, width // heads)
    k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, state.mask)
    return layer.proj(out.transpose(1, 2).reshape(rows, tokens, width))

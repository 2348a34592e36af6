"""Sizes and variants of a module of others, from the shapes of its tensors; where these are silent, its attributes."""

import re
from typing import Any

import torch
from torch import nn

from varlab.errors import VarlabError, quoted
from varlab.models.hart import HartConfig
from varlab.models.infinity import InfinityConfig
from varlab.models.tokenizers.bsq import BSQConfig
from varlab.models.tokenizers.hybrid import HybridConfig
from varlab.models.tokenizers.vqvae import VQConfig
from varlab.models.var import VARConfig
from varlab.weights import hart_variants
from varlab.weights.hart_variants import count, detect

Shapes = dict[str, tuple[int, ...]]


def shapes_of(module: nn.Module) -> Shapes:
    return hart_variants.shapes_of(module.state_dict())


def _shape(shapes: Shapes, name: str, what: str) -> tuple[int, ...]:
    if name not in shapes:
        raise VarlabError(f"The {what} has no {name}, from which its sizes are read.")
    return shapes[name]


def heads_of(module: nn.Module, shapes: Shapes) -> int | None:
    """Of the attention: a learned scale has one entry a head; without it the module must say ``num_heads``."""
    scales = (shape for name, shape in shapes.items() if name.endswith("scale_mul_1H11"))
    if shape := next(scales, None):
        return shape[1]
    heads = (getattr(part, "num_heads", None) for part in module.modules())
    return next((int(value) for value in heads if isinstance(value, int)), None)


def sides_of(module: Any) -> tuple[int, ...]:
    """The sides of VAR's and HART's grids."""
    sides = tuple(module.patch_nums)
    if not all(isinstance(side, int) for side in sides):
        raise VarlabError(
            f"patch_nums lists the sides of square grids as whole numbers, not {quoted(module.patch_nums)}."
        )
    return sides


# Infinity


def latent_bits(vae: nn.Module) -> int:
    """Bits of a latent of Infinity's tokenizer: its quantiser counts them, else the decoder's first layer."""
    mask = getattr(getattr(getattr(vae, "quantizer", None), "lfq", None), "mask", None)
    if isinstance(mask, torch.Tensor) and mask.ndim == 1:
        return int(mask.shape[0])
    shapes = shapes_of(vae)
    first = next((n for n in ("decoder.conv_in.conv.weight", "decoder.conv_in.weight") if n in shapes), None)
    if first is None:
        raise VarlabError(
            f"{type(vae).__name__} has neither quantizer.lfq.mask nor decoder.conv_in: its bits are hidden."
        )
    return shapes[first][1]


def infinity_config(module: Any, depth: int, vae: nn.Module) -> InfinityConfig:
    shapes = shapes_of(module)
    width, bits = _shape(shapes, "word_embed.weight", "transformer")
    latent = latent_bits(vae)
    if bits not in (latent, 4 * latent):
        raise VarlabError(
            f"The transformer reads tokens of {bits} bits, the tokenizer has {latent} a latent: they fit if these are "
            "equal, or four times as many (patchified). Give the tokenizer that the model was trained with."
        )
    length, text = _shape(shapes, "cfg_uncond", "transformer")
    chunks = len(getattr(module, "block_chunks", ())) or 1
    return InfinityConfig(
        depth, width, heads_of(module, shapes) or 1, bits, chunks, text, length, patchify=bits != latent
    )


def bsq_config(vae: nn.Module) -> BSQConfig:
    """Of a tokenizer under the released keys, whose convolutions and norms may lack their wrapper's name."""
    shapes = {re.sub(r"\.(conv|norm)\.(weight|bias)$", r".\2", name): s for name, s in shapes_of(vae).items()}
    channels, multipliers, blocks, _ = _convnet(vae, shapes)
    halvings = count(shapes, r"encoder\.down\.(\d+)\.downsample")
    return BSQConfig(latent_bits(vae), 1 << halvings, channels, multipliers, blocks, _groups(vae))


def _groups(vae: nn.Module) -> int | None:
    """Groups of the norms where they are other than the official rule's."""
    norms = [part for part in vae.modules() if isinstance(part, nn.GroupNorm)]
    official = all(norm.num_groups == (32 if norm.num_channels % 32 == 0 else 24) for norm in norms)
    return None if official else norms[0].num_groups


# VAR


def var_config(module: Any, depth: int) -> VARConfig:
    shapes = shapes_of(module)
    width, code_width = _shape(shapes, "word_embed.weight", "transformer")
    return VARConfig(
        depth=depth,
        width=width,
        heads=heads_of(module, shapes) or 1,
        classes=_shape(shapes, "class_emb.weight", "transformer")[0] - 1,
        codes=_shape(shapes, "head.weight", "transformer")[0],
        code_width=code_width,
        sides=sides_of(module),
        shared_modulation="blocks.0.ada_gss" in shapes,
        cosine="blocks.0.attn.scale_mul_1H11" in shapes,
    )


def vq_config(vae: nn.Module, stages: int) -> VQConfig:
    shapes = shapes_of(vae)
    codes, width = _shape(shapes, "quantize.embedding.weight", "tokenizer")
    channels, multipliers, blocks, groups = _convnet(vae, shapes)
    shared = count(shapes, r"quantize\.quant_resi\.qresi_ls\.(\d+)\.")
    phis = shared or int("quantize.quant_resi.qresi.weight" in shapes)
    return VQConfig(codes, width, channels, multipliers, blocks, groups, stages, phis)


def _convnet(vae: nn.Module, shapes: Shapes) -> tuple[int, tuple[int, ...], int, int]:
    """Channels, multipliers, residual blocks a level and groups of the norms."""
    channels = _shape(shapes, "encoder.conv_in.weight", "tokenizer")[0]
    levels = count(shapes, r"encoder\.down\.(\d+)\.block")
    if not levels:
        raise VarlabError(f"{type(vae).__name__} has no encoder.down.*.block.*, from which its sizes are read.")
    widths = [_shape(shapes, f"encoder.down.{i}.block.0.norm2.weight", "tokenizer")[0] for i in range(levels)]
    blocks = count(shapes, r"encoder\.down\.0\.block\.(\d+)\.")
    groups = next((part.num_groups for part in vae.modules() if isinstance(part, nn.GroupNorm)), 32)
    return channels, tuple(width // channels for width in widths), blocks, groups


# HART


def hart_config(module: Any, text_length: int) -> HartConfig:
    """``text_length``: text tokens of stage 1, which no weight tells."""
    shapes = shapes_of(module)
    heads = heads_of(module, shapes)
    given = {"num_heads": heads or 1, "patch_nums": list(sides_of(module)), "context_token": text_length}
    for name in ("num_sampling_steps", "sep_aln_pooling_mode"):
        if isinstance(value := getattr(module, name, None), str | int):
            given[name] = value
    return detect(shapes, given, f"The attached {type(module).__name__}")[0]


def hybrid_config(vae: nn.Module) -> HybridConfig:
    shapes = shapes_of(vae)
    vocabulary, latents = _shape(shapes, "quantize.embedding.weight", "tokenizer")
    channels, multipliers, blocks, groups = _convnet(vae, shapes)
    phis = [s for n, s in shapes.items() if re.match(r"quantize\.quant_resi\.qresi_ls\.\d+\.weight", n)]
    kernel = phis[0][-1] if phis else HybridConfig.kernel
    return HybridConfig(
        vocabulary, latents, channels, multipliers, blocks, len(phis), kernel=kernel, norm_groups=groups
    )

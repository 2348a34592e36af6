"""What a HART's weights are: sizes and variants from the names and shapes of its tensors.

``config.json`` adds what they cannot tell: the number of heads, the scales, the pooling, the diffusion steps. Source:
the release of HART (arXiv 2410.10812).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from varlab.errors import VarlabError, quoted
from varlab.models.hart import HartConfig
from varlab.models.tokenizers.hybrid import HybridConfig
from varlab.schedules import Schedule, square

Shape = tuple[int, ...]
WHOLE = re.compile(r"[1-9]\d*")


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def detect(shapes: Mapping[str, Shape], given: Mapping[str, Any], where: Path | str) -> tuple[HartConfig, Schedule]:
    """The architecture of a transformer: from its keys, and from its ``config.json`` what they cannot tell.

    Raises VarlabError for keys that are no HART and for a config that says other than the keys.
    """
    needed = {"head.weight", "word_embed.weight", "context_embed.weight", "blocks.0.attn.qkv_proj.weight"}
    if missing := needed - shapes.keys():
        raise VarlabError(f"{where}: the weights beside it lack {', '.join(sorted(missing))}: they are no HART.")
    if unsaid := {"num_heads", "patch_nums"} - given.keys():
        raise VarlabError(f"{where} lacks {', '.join(sorted(unsaid))}, which no weight can tell. Copy the release's.")
    _refuse_unknown(given, where)
    sides = _sides(given["patch_nums"], where)
    width, latents = shapes["word_embed.weight"]
    gate = shapes.get("blocks.0.ffn.gate_proj.weight", (0,))[0]
    config = HartConfig(
        depth=count(shapes, r"blocks\.(\d+)\."),
        width=width,
        heads=int(given["num_heads"]),
        vocabulary=shapes["head.weight"][0],
        latents=latents,
        text_length=int(given.get("context_token", HartConfig.text_length)),
        text_width=shapes["context_embed.weight"][1],
        stages=len(sides),
        diffusion_width=shapes.get("diffloss.net.input_proj.weight", (HartConfig.diffusion_width,))[0],
        diffusion_depth=count(shapes, r"diffloss\.net\.res_blocks\.(\d+)\."),
        diffusion_steps=int(given.get("num_sampling_steps", HartConfig.diffusion_steps)),
        unit_attention="blocks.0.attn.scale_mul_1H11" in shapes,
        modulation="shared" if "blocks.0.scale_shift_table" in shapes
        else "block" if "blocks.0.ada_lin.1.weight" in shapes else "none",
        pooling="max" if given.get("sep_aln_pooling_mode", "max") == "max" else "mean",
        learned_levels="lvl_embed.weight" in shapes,
        context_norm="context_norm.weight" in shapes,
        mlp_ratio=_ratio(gate, width, _number(given, "mlp_ratio", HartConfig.mlp_ratio, where)),
    )  # fmt: skip
    _refuse_contradictions(config, given, where, shapes)
    return config, square(sides, "hart-1024" if sides[-1] == 64 else f"hart-{sides[-1]}")


def _sides(value: Any, where: Path | str) -> tuple[int, ...]:
    """Scales as a list, or as the official command line writes them: 1_2_3."""
    sides = value.split("_") if isinstance(value, str) else value
    if not isinstance(sides, list) or not sides or not all(WHOLE.fullmatch(str(side)) for side in sides):
        raise VarlabError(f"{where}: patch_nums is a list of whole numbers above 0, not {quoted(value)}.")
    return tuple(map(int, sides))


def count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """How many numbers stand in the names that begin so."""
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


def _ratio(hidden: int, width: int, stated: float) -> float:
    """The stated ratio where it gives the stored width of the feed-forward layer, else one that does."""
    if (int(stated * width * 2 / 3) + 255) // 256 * 256 == hidden:
        return stated
    return 1.5 * hidden / width


def _differences(found: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What a config says other than the weights."""
    return [
        f"{name} {quoted(given[name])} for {quoted(value)}"
        for name, value in found.items()
        if given.get(name, value) != value
    ]


def _refuse_contradictions(
    config: HartConfig, given: Mapping[str, Any], where: Path | str, shapes: Mapping[str, Shape]
) -> None:
    found: dict[str, Any] = {
        "depth": config.depth,
        "embed_dim": config.width,
        "context_dim": config.text_width,
        "mlp_ratio": config.mlp_ratio,
        "attn_l2_norm": config.unit_attention,
        "shared_aln": config.modulation == "shared",
        "use_timestep_embed": not config.learned_levels,
        "use_context_norm": config.context_norm,
        "diff_width": config.diffusion_width,
        "diff_depth": config.diffusion_depth,
    }
    if config.modulation != "shared":
        found["disable_aln"] = config.modulation == "none"
    wrong = _differences(found, given)
    heads = shapes.get("blocks.0.attn.scale_mul_1H11", (1, config.heads))[1]
    levels = shapes.get("lvl_embed.weight", (config.stages,))[0]
    wrong += [f"num_heads {config.heads} for {heads}"] if config.heads != heads else []
    wrong += [f"{config.stages} patch_nums for {levels}"] if config.stages != levels else []
    positions = config.text_length - 1 + sum(side**2 for side in _sides(given["patch_nums"], where))
    if (held := shapes.get("lvl_1L", (1, positions))[-1]) != positions:
        wrong.append(f"patch_nums and a context_token of {config.text_length} make {positions} positions for {held}")
    if wrong:
        raise VarlabError(f"{where} contradicts the weights beside it: {', '.join(wrong)}. Are they of one release?")


KNOWN: dict[str, tuple[Any, ...]] = {
    "mlp_type": ("llama",), "attn_type": ("llama",), "sep_aln_pooling_mode": ("max", "avg"), "sampler": ("iddpm",),
    "norm_eps": (1e-6,),
}  # fmt: skip


def _refuse_unknown(given: Mapping[str, Any], where: Path | str) -> None:
    """Variants of the official code that are none of those we build."""
    for name, values in KNOWN.items():
        if given.get(name, values[0]) not in values:
            known = " or ".join(map(repr, values))
            raise VarlabError(f"{where}: {name} {quoted(given[name])} is not supported, only {known} as released.")
    if given.get("use_cross_attn", False):
        raise VarlabError(f"{where}: use_cross_attn is not supported; the released model has none.")
    for name, most in {"num_heads": math.inf, "num_sampling_steps": 1000, "context_token": math.inf}.items():
        if not WHOLE.fullmatch(text := str(given.get(name, 1))) or int(text) > most:
            limit = "above 0" if most == math.inf else f"from 1 to {most}"
            raise VarlabError(f"{where}: {name} must be a whole number {limit}, not {quoted(given[name])}.")


def _number(given: Mapping[str, Any], name: str, default: float, where: Path | str) -> float:
    try:
        return float(given.get(name, default))
    except (TypeError, ValueError):
        raise VarlabError(f"{where}: {name} must be a number, not {quoted(given[name])}. Copy the release's.") from None


def detect_tokenizer(shapes: Mapping[str, Shape], where: Path | str, given: Mapping[str, Any]) -> HybridConfig:
    """The architecture of a tokenizer from its keys, and from its ``config.json``, where there is one, the mix of its
    phi convolutions."""
    needed = {"quantize.embedding.weight", "encoder.conv_in.weight", "quant_conv.weight"}
    if missing := needed - shapes.keys():
        raise VarlabError(f"{where} lacks {', '.join(sorted(missing))}: it is no tokenizer of HART.")
    if given.get("using_znorm", False):
        raise VarlabError(f"{where}: using_znorm is not supported; the released tokenizer compares codes as they are.")
    vocabulary, latents = shapes["quantize.embedding.weight"]
    channels = shapes["encoder.conv_in.weight"][0]
    levels = count(shapes, r"decoder\.up\.(\d+)\.")
    widths = [shapes.get(f"decoder.up.{i}.block.0.conv1.weight", (channels,))[0] for i in range(levels)]
    config = HybridConfig(
        vocabulary,
        latents,
        channels,
        tuple(width // channels for width in widths),
        blocks=count(shapes, r"decoder\.up\.0\.block\.(\d+)\.") - 1,
        phis=count(shapes, r"quantize\.quant_resi\.qresi_ls\.(\d+)\."),
        kernel=shapes["quant_conv.weight"][-1],
        mix=abs(_number(given, "quant_resi", HybridConfig.mix, where)),
    )
    found = {"vocab_size": config.vocabulary, "z_channels": config.latents, "ch": config.channels,
             "ch_mult": list(config.multipliers), "quant_conv_ks": config.kernel}  # fmt: skip
    if wrong := _differences(found, given):
        raise VarlabError(f"{where}: config.json contradicts the weights: {', '.join(wrong)}. Are they of one release?")
    return config

"""The released models: sizes, file names, schedules, and which of them a file looks like.

Sources: the registries of the released codes of Infinity (arXiv 2412.04431) and VAR (2404.02905), the release of HART
(2410.10812).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from varlab import schedules
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.hart import HartConfig
from varlab.models.hart_settings import HartSettings
from varlab.models.infinity import InfinityConfig
from varlab.models.tokenizers.bsq import BSQConfig
from varlab.models.tokenizers.hybrid import HybridConfig
from varlab.models.tokenizers.vqvae import VQConfig
from varlab.models.var import VARConfig
from varlab.schedules import Schedule
from varlab.weights.families import TokenizerConfig, TransformerConfig

HUB = "FoundationVision/Infinity"
VAR_HUB = "FoundationVision/var"
VAR_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)  # sides of the 512 px schedule
# The setting of VAR's published FID; the official demonstration uses cfg 4 and top_p 0.95.
VAR_SETTINGS = Settings(cfg=1.5, tau=1.0, top_k=900, top_p=0.96)


@dataclass(frozen=True)
class ModelEntry:
    """A name's model. ``file`` and ``tokenizer_file`` are the official names, empty where nothing was released."""

    name: str
    transformer: TransformerConfig
    tokenizer: TokenizerConfig
    schedule: Callable[[str | None, float], Schedule]  # (pixels, height / width)
    settings: Settings
    description: str
    file: str = ""
    tokenizer_file: str = ""
    hub: str = HUB
    text: str = "flan-t5-xl"
    family: str = "infinity"
    folder: Path | None = None  # of a mini


def _released(default: str, pixels: str | None, ratio: float) -> Schedule:
    if not (math.isfinite(ratio) and 0.33 <= ratio <= 3.03):
        raise VarlabError(f"ratio is height / width from 1/3 to 3, not {ratio}.")
    return schedules.infinity(pixels or default, ratio)


def _hart_schedule(pixels: str | None, ratio: float) -> Schedule:
    if pixels not in (None, "1M") or ratio != 1:
        raise VarlabError("hart-0.7b knows one schedule, 1024 x 1024 pixels: leave pixels and ratio out.")
    return schedules.hart()


def _official(
    name: str,
    depth: int,
    width: int,
    heads: int,
    description: str,
    *,
    bits: int = 32,
    chunks: int = 4,
    pixels: str = "1M",
    tau: float = 0.5,
    file: str = "",
    tokenizer_file: str = "infinity_vae_d32reg.pth",
    patchify: bool = False,
) -> ModelEntry:
    """``bits`` of a token; a patchified model folds 2x2 latents of the stride-8 tokenizer into one."""
    config = InfinityConfig(depth, width, heads, bits, chunks, patchify=patchify)
    tokenizer = BSQConfig(bits // 4, 8, multipliers=(1, 2, 4, 4)) if patchify else BSQConfig(bits)
    schedule, settings = partial(_released, pixels), Settings(cfg=3.0, tau=tau)
    return ModelEntry(name, config, tokenizer, schedule, settings, description, file, tokenizer_file)


def _var(depth: int, pixels: int = 256) -> ModelEntry:
    """d16 to d30 modulate block by block, d36 by one projection for all; one tokenizer serves both resolutions."""
    large = pixels == 512
    config = VARConfig(depth, 64 * depth, depth, shared_modulation=large)
    config = replace(config, sides=VAR_512) if large else config

    def only(given: str | None, ratio: float) -> Schedule:
        if given is not None or ratio != 1:
            raise VarlabError(f"var-d{depth} knows one schedule, {pixels} px square: leave pixels and ratio out.")
        return schedules.square(config.sides, f"var-{pixels}px")

    return ModelEntry(
        f"var-d{depth}",
        config,
        VQConfig(),
        only,
        VAR_SETTINGS,
        f"class-conditional, 1000 ImageNet classes, {pixels} px",
        f"var_d{depth}.pth",
        "vae_ch160v4096z32.pth",
        VAR_HUB,
        text="classes",
        family="var",
    )


_big = partial(
    _official, bits=56, chunks=8, patchify=True, tau=1.0, tokenizer_file="infinity_vae_d56_f8_14_patchify.pth"
)
OFFICIAL = [
    _official("infinity-125m", 12, 768, 8, "smallest release, 256 px", bits=16, pixels="0.06M",
              file="infinity_125M_256x256.pth", tokenizer_file="infinity_vae_d16.pth"),
    _official("infinity-layer16", 16, 1152, 12, "size of the scaling study, weights not released"),
    _official("infinity-1b", 24, 1536, 16, "layer24 of the scaling study, weights not released"),
    _official("infinity-layer32", 32, 2080, 20, "size of the scaling study, weights not released"),
    _official("infinity-layer40", 40, 2688, 24, "size of the scaling study, weights not released"),
    _official("infinity-layer48", 48, 3360, 28, "size of the scaling study, weights not released"),
    _official("infinity-2b", 32, 2048, 16, "the release most papers accelerate, 1024 px", chunks=8,
              file="infinity_2b_reg.pth"),
    _big("infinity-8b", 40, 3584, 28, "1024 px, patchified", file="infinity_8b_weights"),
    _big("infinity-8b-512", 40, 3584, 28, "a stage of the 8B's training, 512 px, patchified", pixels="0.25M",
         file="infinity_8b_512x512_weights"),
    ModelEntry("hart-0.7b", HartConfig(), HybridConfig(), _hart_schedule, HartSettings(),
               "text as a prefix, diffusion residual, 1024 px", "hart-0.7b-1024px/llm", "hart-0.7b-1024px/tokenizer",
               hub="mit-han-lab/hart-0.7b-1024px", text="qwen2", family="hart"),
    *map(_var, (16, 20, 24, 30)),
    _var(36, pixels=512),
]  # fmt: skip


def infinities() -> list[tuple[str, InfinityConfig, BSQConfig]]:
    """Name and architectures of the Infinity models."""
    return [
        (entry.name, entry.transformer, entry.tokenizer)
        for entry in OFFICIAL
        if isinstance(entry.transformer, InfinityConfig) and isinstance(entry.tokenizer, BSQConfig)
    ]


def _likely_var(shapes: Mapping[str, tuple[int, ...]]) -> str:
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    classes, width = shapes["class_emb.weight"]
    released = [e.name for e in OFFICIAL if e.transformer.depth == depth and e.transformer.width == width]
    size = f"the size of {' and '.join(released)}" if released else "a size of no known model"
    stages, tokens = shapes.get("lvl_embed.weight", (0,))[0], shapes.get("pos_1LC", (0, 0))[1]
    return (
        f"This looks like a VAR of depth {depth}, width {width} and {classes - 1} classes with {stages} stages of "
        f"{tokens} tokens in all, {size}."
    )


ANCHORS = ("class_emb.weight", "context_embed.weight", "text_norm.weight", "quantize.embedding.weight",
           "decoder.conv_in.conv.weight", "decoder.conv_in.weight")  # fmt: skip


def _unwrapped(shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]]:
    """Without the prefix before the first name that tells a family."""
    for anchor in ANCHORS:
        for name in shapes:
            if name.endswith(f".{anchor}") or name == anchor:
                prefix = name.removesuffix(anchor)
                return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    return shapes


def likely_cause(tensors: Mapping[str, Tensor]) -> str:
    """What a file that does not fit seems to be, in one sentence: its sizes and the names they belong to."""
    shapes = _unwrapped({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if "class_emb.weight" in shapes:
        return _likely_var(shapes)
    if "context_embed.weight" in shapes:
        return "This looks like a part of HART."
    if "quantize.embedding.weight" in shapes:
        codes, width = shapes["quantize.embedding.weight"]
        return f"This looks like the tokenizer of VAR or HART, {codes} codes of {width} channels."
    blocks = {name.split(".sa.")[0] for name in shapes if ".sa." in name}
    if blocks and {"pos_start", "head.weight", "text_norm.weight"} <= shapes.keys():
        depth, width, bits = len(blocks), shapes["pos_start"][-1], shapes["head.weight"][0] // 2
        if not any(name.startswith("block_chunks.") for name in blocks):
            return "Its blocks are not grouped in chunks: it was trained with block_chunks=1, which is not supported."
        sizes = depth, width, bits
        fits = [name for name, config, _ in infinities() if (config.depth, config.width, config.bits) == sizes]
        what = f"a transformer of depth {depth}, width {width} and {bits} bits a token"
    elif "decoder.conv_in.conv.weight" in shapes or "decoder.conv_in.weight" in shapes:
        bits = (shapes.get("decoder.conv_in.conv.weight") or shapes["decoder.conv_in.weight"])[1]
        halvings = len({name.split(".downsample")[0] for name in shapes if ".downsample" in name})
        fits = [name for name, _, config in infinities() if (config.bits, config.halvings) == (bits, halvings)]
        what = f"a tokenizer of {bits} bits and stride {2**halvings}"
    elif any(name.startswith(("transformer.", "tokenizer.")) for name in shapes):
        return "This looks like a mini: give its folder, with model.json."
    elif any(name.startswith("encoder.block.") for name in shapes):
        return "This looks like a T5 text encoder: give its folder as text=."
    else:
        return "It looks like no file of the Infinity or VAR family."
    return f"This looks like {what}, {'the size of ' + ' and '.join(fits) if fits else 'a size of no known model'}."

"""HART from its official folder, from random weights or as shapes: ``llm/`` and ``tokenizer/``, read strictly.

What the weights can tell (sizes, variants) is taken from them; ``config.json`` adds what they cannot: the number of
heads, the scales, the pooling, the diffusion steps. The averaged weights (``ema_model.bin``) are those that the
official program samples with. Source: the release of HART (arXiv 2410.10812).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from varlab.errors import VarlabError
from varlab.models.checkpoints import INDICES, Checkpoint, checkpoint_folder, load_into, read
from varlab.models.hart import HartConfig, HartText, HartTransformer
from varlab.models.hart_model import Hart, HartEncoder
from varlab.models.initialise import randomise
from varlab.models.official import ModelEntry
from varlab.models.text import checked
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.writing import hash_tensors
from varlab.schedules import Schedule, square

AVERAGED = ("ema_model.safetensors", "ema_model.bin")
PLAIN = ("model.safetensors", "pytorch_model.bin", *INDICES)
UNUSED = re.compile(r"disc\.|decoder2\.|post_quant_conv2\.|quantize\.ema_vocab_hit_SV$")  # of the tokenizer's training
Shape = tuple[int, ...]


class RandomHartText:
    """Features drawn from N(0, 1), the same for a prompt in every batch; they mean nothing, and ``label`` says so."""

    def __init__(self, length: int, width: int, seed: int = 0, device: str = "cpu") -> None:
        self.length, self.width, self.seed, self.device = length, width, seed, device
        self.label = f"random text features (seed {seed})"

    def __call__(self, prompts: Sequence[str]) -> HartText:
        rows = []
        for prompt in checked(prompts):
            number = int.from_bytes(hashlib.sha256(f"{self.seed}/{prompt}".encode()).digest()[:7], "big")
            rows.append(torch.randn(self.length, self.width, generator=torch.Generator().manual_seed(number)))
        mask = torch.ones(len(rows), self.length, dtype=torch.bool)
        return HartText(torch.stack(rows).to(self.device), mask.to(self.device))


def load_hart(
    entry: ModelEntry,
    init: str = "checkpoint",
    *,
    device: str = "cpu",
    precision: str = "fp32",
    checkpoint: str | Path | None = None,
    tokenizer: str | Path | None = None,
    text: str | HartEncoder | None = None,
    seed: int = 0,
    averaged: bool = True,
) -> Hart:
    """HART, in eval mode and without gradients.

    init: "checkpoint" reads the folder ``checkpoint`` (a path or hub id; by default the one in the checkpoint folder)
    and ``tokenizer`` (by default the one beside ``llm/``), "random" and "empty" read nothing. averaged: the EMA
    weights. text: an encoder, or "random"; without one, features are given in place of prompts.
    Raises VarlabError for a folder that is incomplete, contradicts its ``config.json`` or does not fit.
    """
    encoder = _encoder(entry, init, text, device, seed)
    if init == "checkpoint":
        files = official_files(entry, checkpoint, tokenizer, averaged)
        model = _from_files(files, entry, precision, device)
    else:
        model = _without_files(entry, init, precision, device, seed)
    if isinstance(encoder, RandomHartText) and init == "checkpoint":
        model.weights += f", {encoder.label}"
    model.text = encoder
    return model


def _encoder(
    entry: ModelEntry, init: str, text: str | HartEncoder | None, device: str, seed: int
) -> HartEncoder | None:
    assert isinstance(entry.transformer, HartConfig)
    if callable(text):
        return text
    if text == "random" or (text is None and init == "random"):
        return RandomHartText(entry.transformer.text_length, entry.transformer.text_width, seed, device)
    if text not in (None, "features"):
        raise VarlabError(f"{entry.name} reads no text={text!r}: give an encoder, 'random', or features (a HartText).")
    return None


def _without_files(entry: ModelEntry, init: str, precision: str, device: str, seed: int) -> Hart:
    assert isinstance(entry.transformer, HartConfig) and isinstance(entry.tokenizer, HybridConfig)
    modules = _empty(entry.transformer, entry.tokenizer)
    for module in modules if init == "random" else ():
        randomise(module, seed, precision, device)
    weights = f"random (seed {seed})" if init == "random" else "empty (shapes only)"
    return _built(modules, entry.schedule(None, 1.0), entry, weights)


def _empty(config: HartConfig, images: HybridConfig) -> tuple[HartTransformer, HybridTokenizer]:
    with torch.device("meta"):
        return HartTransformer(config), HybridTokenizer(images)


def _built(
    modules: tuple[HartTransformer, HybridTokenizer], schedule: Schedule, entry: ModelEntry, weights: str
) -> Hart:
    transformer, tokenizer = (module.eval().requires_grad_(False) for module in modules)
    return Hart(transformer, tokenizer, schedule, None, entry.name, weights, entry.settings)  # type: ignore[arg-type]


# Files


@dataclass(frozen=True)
class HartFiles:
    """The weight files of both parts and the transformer's ``config.json``."""

    transformer: Path
    config: Path
    tokenizer: Path


def official_files(
    entry: ModelEntry, checkpoint: str | Path | None = None, tokenizer: str | Path | None = None, averaged: bool = True
) -> HartFiles:
    """Where everything lies; nothing is read. One error names what is missing and how the folder should look."""
    root = _root(entry, checkpoint)
    llm = root / "llm" if (root / "llm").is_dir() else root
    images = llm.parent / "tokenizer" if tokenizer is None else Path(tokenizer).expanduser()
    names = AVERAGED if averaged else PLAIN
    transformer, decoder = _first(llm, names), images if images.is_file() else _first(images, PLAIN)
    missing = [
        what
        for what, found in (
            (f"{llm}/{' or '.join(names[-1:] if averaged else PLAIN[:2])}", transformer),
            (f"{llm}/config.json", llm / "config.json" if (llm / "config.json").is_file() else None),
            (f"{images}/{' or '.join(PLAIN[:2])}", decoder),
        )
        if found is None
    ]
    if transformer is None or decoder is None or missing:
        other = " (averaged=False reads the other weights)" if averaged and _first(llm, PLAIN) else ""
        raise VarlabError(
            f"{entry.name}: missing {', '.join(missing)}{other}. Give checkpoint= the released folder, which holds "
            "llm/ and tokenizer/, or both apart as checkpoint= and tokenizer=, or init='random' for untrained weights."
        )
    return HartFiles(transformer, llm / "config.json", decoder)


def _root(entry: ModelEntry, checkpoint: str | Path | None) -> Path:
    if checkpoint is None:
        return checkpoint_folder() / Path(entry.file).parent
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if path.is_file() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(checkpoint)):
        raise VarlabError(f"{path} is no folder. Give the released folder with llm/ and tokenizer/, or a hub id.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(checkpoint)))
    except Exception as error:  # the hub's client has a dozen unrelated classes for "not there" and "no network"
        raise VarlabError(
            f"{checkpoint} is neither a folder here nor reachable on huggingface.co ({type(error).__name__})."
        ) from error


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    return folder if found is not None and found.name in INDICES else found  # a sharded folder is read as one


def _from_files(files: HartFiles, entry: ModelEntry, precision: str, device: str) -> Hart:
    stored, images = read(files.transformer), tokenizer_tensors(read(files.tokenizer))
    given = _json(files.config)
    config, schedule = detect(shapes_of(stored.tensors), given, files.config)
    modules = _empty(config, detect_tokenizer(shapes_of(images.tensors), files.tokenizer))
    for module, part in zip(modules, (stored, images), strict=True):
        load_into(module, part.tensors, f"{part.label} (for {entry.name})", precision, device)
    hashes = [hash_tensors(module.state_dict())[:8] for module in modules]
    label = f"checkpoint ({stored.label} {hashes[0]}, tokenizer {images.label} {hashes[1]})"
    return _built(modules, schedule, entry, label)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def tokenizer_tensors(stored: Checkpoint) -> Checkpoint:
    """Under our names: without the official prefix, the discriminator and what only training used."""
    named = {name.removeprefix("vae."): tensor for name, tensor in stored.tensors.items()}
    return replace(stored, tensors={name: tensor for name, tensor in named.items() if not UNUSED.match(name)})


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise VarlabError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise VarlabError(f"{path} must be a JSON object.")
    return value


# What the weights are


def detect(shapes: Mapping[str, Shape], given: Mapping[str, Any], where: Path | str) -> tuple[HartConfig, Schedule]:
    """The architecture of a transformer: from its keys, and from its ``config.json`` what they cannot tell.

    Raises VarlabError for keys that are no HART and for a config that says other than the keys.
    """
    needed = {"head.weight", "word_embed.weight", "context_embed.weight", "blocks.0.attn.qkv_proj.weight"}
    if missing := needed - shapes.keys():
        raise VarlabError(f"{where}: the weights beside it lack {', '.join(sorted(missing))}: they are no HART.")
    if unsaid := {"num_heads", "patch_nums"} - given.keys():
        raise VarlabError(f"{where} lacks {', '.join(sorted(unsaid))}, which no weight can tell. Copy the release's.")
    sides = tuple(_sides(given["patch_nums"]))
    width, latents = shapes["word_embed.weight"]
    gate = shapes.get("blocks.0.ffn.gate_proj.weight", (0,))[0]
    text_length = (shapes.get("lvl_1L", (1, 0))[1] or 0) + 1 - sum(side * side for side in sides)
    config = HartConfig(
        depth=_count(shapes, r"blocks\.(\d+)\."),
        width=width,
        heads=int(given["num_heads"]),
        vocabulary=shapes["head.weight"][0],
        latents=latents,
        text_length=text_length if "lvl_1L" in shapes else int(given.get("context_token", HartConfig.text_length)),
        text_width=shapes["context_embed.weight"][1],
        stages=len(sides),
        diffusion_width=shapes.get("diffloss.net.input_proj.weight", (HartConfig.diffusion_width,))[0],
        diffusion_depth=_count(shapes, r"diffloss\.net\.res_blocks\.(\d+)\."),
        diffusion_steps=int(given.get("num_sampling_steps", HartConfig.diffusion_steps)),
        unit_attention="blocks.0.attn.scale_mul_1H11" in shapes,
        modulation="shared" if "blocks.0.scale_shift_table" in shapes
        else "block" if "blocks.0.ada_lin.1.weight" in shapes else "none",
        pooling="max" if given.get("sep_aln_pooling_mode", "max") == "max" else "mean",
        learned_levels="lvl_embed.weight" in shapes,
        context_norm="context_norm.weight" in shapes,
        mlp_ratio=_ratio(gate, width, float(given.get("mlp_ratio", 4.0))),
    )  # fmt: skip
    _refuse_contradictions(config, given, where)
    return config, square(sides, "hart-1024" if sides[-1] == 64 else f"hart-{sides[-1]}")


def _sides(value: Any) -> list[int]:
    """Scales as a list, or as the official command line writes them: 1_2_3."""
    return [int(side) for side in (value.split("_") if isinstance(value, str) else value)]


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


def _ratio(hidden: int, width: int, stated: float) -> float:
    """The stated ratio where it gives the stored width of the feed-forward layer, else one that does."""
    if (int(stated * width * 2 / 3) + 255) // 256 * 256 == hidden:
        return stated
    return 1.5 * hidden / width


def _refuse_contradictions(config: HartConfig, given: Mapping[str, Any], where: Path | str) -> None:
    found: dict[str, Any] = {
        "depth": config.depth,
        "embed_dim": config.width,
        "context_token": config.text_length,
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
    wrong = [f"{name} {given[name]} for {value}" for name, value in found.items() if given.get(name, value) != value]
    if wrong:
        raise VarlabError(f"{where} contradicts the weights beside it: {', '.join(wrong)}. Are they of one release?")
    for name in ("mlp_type", "attn_type"):
        if given.get(name, "llama") != "llama":
            raise VarlabError(f"{where}: {name} {given[name]!r} is not supported, only 'llama' as released.")
    if given.get("use_cross_attn", False):
        raise VarlabError(f"{where}: use_cross_attn is not supported; the released model has none.")


def detect_tokenizer(shapes: Mapping[str, Shape], where: Path | str) -> HybridConfig:
    """The architecture of a tokenizer from its keys."""
    needed = {"quantize.embedding.weight", "encoder.conv_in.weight", "quant_conv.weight"}
    if missing := needed - shapes.keys():
        raise VarlabError(f"{where} lacks {', '.join(sorted(missing))}: it is no tokenizer of HART.")
    vocabulary, latents = shapes["quantize.embedding.weight"]
    channels = shapes["encoder.conv_in.weight"][0]
    levels = _count(shapes, r"decoder\.up\.(\d+)\.")
    widths = [shapes.get(f"decoder.up.{i}.block.0.conv1.weight", (channels,))[0] for i in range(levels)]
    return HybridConfig(
        vocabulary,
        latents,
        channels,
        tuple(width // channels for width in widths),
        blocks=_count(shapes, r"decoder\.up\.0\.block\.(\d+)\.") - 1,
        phis=_count(shapes, r"quantize\.quant_resi\.qresi_ls\.(\d+)\."),
        kernel=shapes["quant_conv.weight"][-1],
    )

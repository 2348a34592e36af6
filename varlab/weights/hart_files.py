"""HART from its official folder, from random weights or as shapes: ``llm/`` and ``tokenizer/``, read strictly.

The averaged weights (``ema_model.bin``) are those that the official program samples with. Source: the release of HART
(arXiv 2410.10812).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from varlab.errors import VarlabError
from varlab.models.hart import HartConfig, HartText, HartTransformer
from varlab.models.hart_model import Hart, HartEncoder, Savings
from varlab.models.qwen import HUB, QwenText
from varlab.models.text import random_text
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.schedules import Schedule
from varlab.weights.checkpoints import INDICES, Checkpoint, checkpoint_folder, load_into, read
from varlab.weights.hart_variants import detect, detect_tokenizer, shapes_of
from varlab.weights.initialise import randomise
from varlab.weights.official import ModelEntry
from varlab.weights.writing import hash_tensors

AVERAGED = ("ema_model.safetensors", "ema_model.bin")
PLAIN = ("model.safetensors", "pytorch_model.bin", *INDICES)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
UNUSED = re.compile(r"disc\.|decoder2\.|post_quant_conv2\.|quantize\.ema_vocab_hit_SV$")  # of the tokenizer's training


class RandomHartText:
    """Features drawn from N(0, 1), the same for a prompt in every batch; they mean nothing, and ``label`` says so."""

    def __init__(self, length: int, width: int, seed: int = 0, device: str = "cpu") -> None:
        self.length, self.width, self.seed, self.device = length, width, seed, device
        self.label = f"random text features (seed {seed})"

    def __call__(self, prompts: Sequence[str]) -> HartText:
        drawn = random_text(prompts, self.width, self.length, self.seed).features
        features = drawn.unflatten(0, (-1, self.length)).to(self.device)
        return HartText(features, torch.ones(features.shape[:2], dtype=torch.bool, device=self.device))


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
    savings: Savings | None = None,
) -> Hart:
    """HART, in eval mode and without gradients.

    init: "checkpoint" reads the folder ``checkpoint`` (a path or hub id; by default the one in the checkpoint folder)
    and ``tokenizer`` (by default the one beside ``llm/``), "random" and "empty" read nothing. averaged: the EMA
    weights. text: an encoder, the folder or hub id of the official one (the default), "random", or "features", which
    are then given in place of prompts. savings: work left out, by default what ``Savings`` says.
    Raises VarlabError for a folder that is incomplete, contradicts its ``config.json`` or does not fit.
    """
    encoder = _encoder(entry, init, text, checkpoint, device, precision, seed)
    if checkpoint is not None and _on_hub(checkpoint):
        _require(encoder)  # before gigabytes come over the network
    files = official_files(entry, checkpoint, tokenizer, averaged) if init == "checkpoint" else None
    _require(encoder)
    if files is not None:
        model = _from_files(files, entry, precision, device)
    else:
        model = _without_files(entry, init, precision, device, seed)
    if isinstance(encoder, RandomHartText) and init == "checkpoint":
        model.weights += f", {encoder.label}"
    model.text, model.savings = encoder, savings or model.savings
    return model


def _encoder(
    entry: ModelEntry,
    init: str,
    text: str | HartEncoder | None,
    checkpoint: str | Path | None,
    device: str,
    precision: str,
    seed: int,
) -> HartEncoder | None:
    """The text encoder, of which nothing is read yet; None where features are given and for shapes alone."""
    config = entry.transformer
    assert isinstance(config, HartConfig)
    if callable(text):
        return text
    if text == "features" or (text is None and init == "empty"):
        return None
    if text == "random" or (text is None and init == "random"):
        return RandomHartText(config.text_length, config.text_width, seed, device)
    source = HUB if text in (None, entry.text) else text
    given = () if checkpoint is None else (Path(checkpoint).expanduser(),)
    folders = (*given, *(folder.parent for folder in given if folder.name == "llm"), *prompt_folders(entry))
    return QwenText(source, config.text_length, config.text_width, device, precision, folders=folders)


def prompt_folders(entry: ModelEntry) -> tuple[Path, Path]:
    """Where the official system prompt is looked for when it lies neither with the encoder nor with the weights."""
    return checkpoint_folder(), (checkpoint_folder() / entry.file).parent


def _require(encoder: HartEncoder | None) -> None:
    """Raises VarlabError where the official encoder lacks its library, folder or system prompt."""
    if isinstance(encoder, QwenText):
        encoder.require()


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
    channels_last(tokenizer)
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
    llm, images = _places(entry, checkpoint, tokenizer)
    names = AVERAGED if averaged else PLAIN
    transformer, decoder = _first(llm, names), images if images.is_file() else _first(images, PLAIN)
    found = (transformer, llm / "config.json" if (llm / "config.json").is_file() else None, decoder)
    missing = [what for what, path in zip(_expected(llm, images, averaged), found, strict=True) if path is None]
    if transformer is None or decoder is None or missing:
        plain = transformer is None and averaged and _first(llm, PLAIN) is not None
        other = " (load_hart(averaged=False) reads the others)" if plain else ""
        raise VarlabError(
            f"{entry.name}: missing {', '.join(missing)}{other}. Give checkpoint= the released folder, which holds "
            "llm/ and tokenizer/, or both apart as checkpoint= and tokenizer=, or init='random' for untrained weights."
        )
    return HartFiles(transformer, llm / "config.json", decoder)


def _expected(llm: Path, images: Path, averaged: bool = True) -> list[str]:
    """The three files of a release, in words."""
    weights = " or ".join(AVERAGED[1:] if averaged else PLAIN[:2])
    return [f"{llm}/{weights}", f"{llm}/config.json", f"{images}/{' or '.join(PLAIN[:2])}"]


def availability(entry: ModelEntry) -> tuple[bool, str]:
    """Whether the checkpoint folder holds a whole release, and the files that make one."""
    expected = ", ".join(_expected(*_places(entry)))
    try:
        official_files(entry)
    except VarlabError:
        return False, expected
    return True, expected


def _places(
    entry: ModelEntry, checkpoint: str | Path | None = None, tokenizer: str | Path | None = None
) -> tuple[Path, Path]:
    """The folder of the transformer, and the folder or file of the tokenizer."""
    if checkpoint is None:
        llm = checkpoint_folder() / entry.file
    else:
        root = _root(checkpoint)
        bare = not (root / "llm").is_dir() and ((root / "config.json").exists() or root.name == "llm")
        llm = root if bare else root / "llm"
    return llm, llm.parent / "tokenizer" if tokenizer is None else Path(tokenizer).expanduser()


def _on_hub(checkpoint: str | Path) -> bool:
    """Whether it is the id of a release, and nothing here has its name."""
    return not Path(checkpoint).expanduser().exists() and HUB_ID.fullmatch(str(checkpoint)) is not None


def _root(checkpoint: str | Path) -> Path:
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if not _on_hub(checkpoint):
        raise VarlabError(f"{path} is no folder. Give the released folder with llm/ and tokenizer/, or a hub id.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(checkpoint), allow_patterns=["llm/*", "tokenizer/*"]))
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
    modules = _empty(config, detect_tokenizer(shapes_of(images.tensors), files.tokenizer, _beside(files.tokenizer)))
    for module, part in zip(modules, (stored, images), strict=True):
        load_into(module, part.tensors, f"{part.label} (for {entry.name})", precision, device)
    hashes = [hash_tensors(module.state_dict())[:8] for module in modules]
    label = f"checkpoint ({stored.label} {hashes[0]}, tokenizer {images.label} {hashes[1]})"
    return _built(modules, schedule, entry, label)


def tokenizer_tensors(stored: Checkpoint) -> Checkpoint:
    """Under our names: without the official prefix, the discriminator and what only training used."""
    named = {name.removeprefix("vae."): tensor for name, tensor in stored.tensors.items()}
    return replace(stored, tensors={name: tensor for name, tensor in named.items() if not UNUSED.match(name)})


def _beside(weights: Path) -> dict[str, Any]:
    """The ``config.json`` of a tokenizer's file or folder, empty where there is none."""
    path = (weights if weights.is_dir() else weights.parent) / "config.json"
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise VarlabError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise VarlabError(f"{path} must be a JSON object.")
    return value


# One part, for conversion


def weights_in(source: Path) -> Path:
    """The weight file to read of a folder ``llm/`` or ``tokenizer/``: the averaged ones where there are such."""
    found = _first(source, (*AVERAGED, *PLAIN)) if source.is_dir() else source
    if found is None:
        raise VarlabError(f"{source} holds none of {', '.join((*AVERAGED, *PLAIN))}. Give llm/ or tokenizer/ itself.")
    return found


def part_of(stored: Checkpoint) -> tuple[str, nn.Module, Checkpoint]:
    """Which part of HART a file holds, that part empty, and the tensors under our names.

    The variant of a transformer is told by the ``config.json`` beside its weights.
    """
    file = stored.files[0]
    with torch.device("meta"):
        if any(name.removeprefix("vae.").startswith("decoder.") for name in stored.tensors):
            stored = tokenizer_tensors(stored)
            found = detect_tokenizer(shapes_of(stored.tensors), file, _beside(file))
            return "tokenizer", HybridTokenizer(found), stored
        config = file.parent / "config.json"
        if not config.is_file():
            raise VarlabError(f"{config} is missing: the weights beside it do not tell the number of heads.")
        return "transformer", HartTransformer(detect(shapes_of(stored.tensors), _json(config), config)[0]), stored

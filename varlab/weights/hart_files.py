"""HART from its official folder, from random weights or as shapes: ``llm/`` and ``tokenizer/``, read strictly.

The averaged weights (``ema_model.bin``) are those that the official program samples with. Source: the release of HART
(arXiv 2410.10812).
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from varlab.context import shapes_only
from varlab.errors import VarlabError
from varlab.json_files import read_json
from varlab.machine import DIFFUSION
from varlab.models.hart import HartConfig, HartText, HartTransformer
from varlab.models.hart_model import Hart, HartEncoder
from varlab.models.hart_settings import Savings
from varlab.models.qwen import HUB, QwenText
from varlab.models.text import random_text
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.schedules import Schedule
from varlab.weight_labels import EMPTY, RANDOM, WeightsLabel
from varlab.weights.choosing import choose, coverage
from varlab.weights.content import content_of
from varlab.weights.fitting import load_into, retype
from varlab.weights.hart_places import AVERAGED, HartFiles, official_files, on_hub
from varlab.weights.hart_variants import detect, detect_tokenizer, shapes_of
from varlab.weights.initialise import randomise
from varlab.weights.official import ModelEntry
from varlab.weights.pairs import Part, labelled
from varlab.weights.places import checkpoint_folder, weight_file
from varlab.weights.precision import text_precision
from varlab.weights.reading import Checkpoint, read
from varlab.weights.registry import empty

UNUSED = re.compile(r"disc\.|decoder2\.|post_quant_conv2\.|quantize\.ema_vocab_hit_SV$")  # of the tokenizer's training
AGAIN = "Copy or download it again."


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
    if on_hub(checkpoint) and isinstance(encoder, QwenText):
        encoder.require()  # before gigabytes come over the network
    files = official_files(entry, checkpoint, tokenizer, averaged) if init == "checkpoint" else None
    if isinstance(encoder, QwenText):
        encoder.require()
    if files is not None:
        if averaged:
            _say_if_plain(files)
        model = _from_files(files, entry, precision, device)
    else:
        model = _without_files(entry, init, precision, device, seed)
    if isinstance(encoder, RandomHartText) and isinstance(model.weights, WeightsLabel) and init == "checkpoint":
        model.weights = model.weights.and_text(encoder.label)
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
    return QwenText(source, config.text_length, config.text_width, device, text_precision(precision), folders=folders)


def prompt_folders(entry: ModelEntry) -> tuple[Path, Path]:
    """Where the official system prompt is looked for when it lies neither with the encoder nor with the weights."""
    return checkpoint_folder(), (checkpoint_folder() / entry.file).parent


def _say_if_plain(files: HartFiles) -> None:
    """The official program samples with the averaged weights."""
    folder = files.config.parent
    if files.transformer.parent == folder and not any((folder / name).exists() for name in AVERAGED):
        warnings.warn(
            f"{files.transformer} was taken; the averaged weights ({AVERAGED[1]}), with which the official program "
            "samples, are not beside it.",
            stacklevel=3,
        )


def _without_files(entry: ModelEntry, init: str, precision: str, device: str, seed: int) -> Hart:
    assert isinstance(entry.transformer, HartConfig) and isinstance(entry.tokenizer, HybridConfig)
    modules = _empty(entry.transformer, entry.tokenizer)
    for module in modules:
        if init == "empty":
            retype(module, precision)
        else:
            randomise(module, seed, precision, device)
    weights = WeightsLabel.of(RANDOM, f"seed {seed}") if init == "random" else WeightsLabel.of(EMPTY, "shapes only")
    return _built(modules, entry.schedule(None, 1.0), entry, weights)


def _empty(config: HartConfig, images: HybridConfig) -> tuple[HartTransformer, HybridTokenizer]:
    with shapes_only():
        return HartTransformer(config), HybridTokenizer(images)


def _built(
    modules: tuple[HartTransformer, HybridTokenizer], schedule: Schedule, entry: ModelEntry, weights: WeightsLabel
) -> Hart:
    transformer, tokenizer = (module.eval().requires_grad_(False) for module in modules)
    channels_last(tokenizer)
    return Hart(transformer, tokenizer, schedule, None, entry.name, weights, entry.settings)  # type: ignore[arg-type]


def _from_files(files: HartFiles, entry: ModelEntry, precision: str, device: str) -> Hart:
    usual = empty(entry).named()
    stored = choose(read(files.transformer), usual["transformer"].state_dict())
    images = tokenizer_tensors(choose(read(files.tokenizer), usual["tokenizer"].state_dict()))
    config, schedule = detect(shapes_of(stored.tensors), read_json(files.config, AGAIN), files.config)
    modules = _empty(config, detect_tokenizer(shapes_of(images.tensors), files.tokenizer, _beside(files.tokenizer)))
    parts = []
    for module, part in zip(modules, (stored, images), strict=True):
        words = f"{part.label} (for {entry.name})"
        load_into(module, part.tensors, words, precision.removesuffix(DIFFUSION), device)
        parts.append(Part(_released(entry, part), content_of(module, part.files, part.part)))
    head = nn.ModuleDict({"diffloss": modules[0].diffloss})  # last: the hash is that of every precision
    load_into(head, head.state_dict(), parts[0].stored.label, precision, device)
    return _built(modules, schedule, entry, labelled(entry, *parts))


def _released(entry: ModelEntry, stored: Checkpoint) -> Checkpoint:
    """With the place in a release as its source, where it lies in a folder of that name: the files have none."""
    folder, release = stored.files[0].resolve().parent, Path(entry.file).parent.name
    known = any(release in part for part in folder.parts[:-1])
    return replace(stored, metadata={"source": f"{release}/{folder.name}" if known else stored.name})


def tokenizer_tensors(stored: Checkpoint) -> Checkpoint:
    """Without the discriminator and what only training used."""
    return replace(stored, tensors={name: t for name, t in stored.tensors.items() if not UNUSED.match(name)})


def _beside(weights: Path) -> dict[str, Any]:
    """The ``config.json`` of a tokenizer's file or folder, empty where there is none."""
    path = (weights if weights.is_dir() else weights.parent) / "config.json"
    return read_json(path, AGAIN) if path.is_file() else {}


# One part, for conversion


def part_of(entry: ModelEntry, source: Path, ema: bool) -> tuple[str, nn.Module, Checkpoint]:
    """Which part of HART a file or folder holds, that part empty, and the tensors under our names.

    The variant of a transformer is told by the ``config.json`` beside its weights.
    """
    stored = read(weight_file(source, AVERAGED) if source.is_dir() else source)
    kind = part_held(entry, stored)
    stored = choose(stored, empty(entry).named()[kind].state_dict(), ema)
    file = stored.files[0]
    with shapes_only():
        if kind == "tokenizer":
            stored = tokenizer_tensors(stored)
            return kind, HybridTokenizer(detect_tokenizer(shapes_of(stored.tensors), file, _beside(file))), stored
        config = file.parent / "config.json"
        if not config.is_file():
            raise VarlabError(f"{config} is missing: the weights beside it do not tell the number of heads.")
        return kind, HartTransformer(detect(shapes_of(stored.tensors), read_json(config, AGAIN), config)[0]), stored


def part_held(entry: ModelEntry, stored: Checkpoint) -> str:
    """Which part of a model a file holds: transformer or tokenizer. Raises VarlabError where it holds both."""
    shares = {kind: coverage(stored, module.state_dict()) for kind, module in empty(entry).named().items()}
    if min(shares.values()) > 0.5:
        raise VarlabError(
            f"{stored.label} holds transformer and tokenizer: say which, as {stored.name}#PART, e.g. "
            f"{stored.name}#{choose(stored, empty(entry).transformer.state_dict()).part}."
        )
    return max(shares, key=lambda kind: shares[kind])

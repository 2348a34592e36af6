"""The trained minis that ship with the project: ``data/<name>/model.safetensors`` beside ``model.json``.

The weights are bf16 under the prefixes transformer, tokenizer and text; the json says what they are: architecture,
vocabulary, schedule, sampling settings, the scenes' version, samples seen and the hash of the weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from varlab.context import shapes_only
from varlab.errors import VarlabError, unknown
from varlab.json_files import read_json
from varlab.models.captions import CaptionEncoder
from varlab.models.guidance import Settings
from varlab.resources import refuse_shipped
from varlab.schedules import Schedule
from varlab.weights.families import FAMILIES, TokenizerConfig, TransformerConfig, build, family_of
from varlab.weights.fitting import learnt, load_into
from varlab.weights.places import data_folder, mini_folders
from varlab.weights.reading import listing, read
from varlab.weights.writing import hash_tensors, write_safetensors
from varlab.writing import write_text

SCENE_VERSIONS = ("1", "2")  # of varlab.scenes, which models do not import; a test holds the two together
SCENE_VERSION = SCENE_VERSIONS[0]
T = TypeVar("T")
KEYS = ("family", "transformer", "tokenizer", "text", "vocabulary", "schedule", "settings", "scene_version", "weights")


def mini_folder(source: str | Path) -> Path:
    """The folder of a mini, given as that, as one of its two files, or by the name of a mini that is there."""
    path = Path(source).expanduser()
    if not path.exists() and str(source) in mini_folders():
        return mini_folders()[str(source)]
    return path.parent if path.is_file() and path.name in ("model.json", "model.safetensors") else path


def card_folder(name: str) -> Path:
    """The folder of a mini that a card is written to; refused where there is none, or that of an installed package."""
    folder = data_folder() / name
    if not (folder / "model.json").is_file():
        raise VarlabError(f"{name} is not a shipped mini: {folder / 'model.json'} is missing.")
    refuse_shipped(folder)
    return folder


@dataclass(frozen=True)
class Parts:
    """The modules of a model; ``text`` is None where the checkpoint holds no text encoder."""

    transformer: nn.Module
    tokenizer: nn.Module
    text: CaptionEncoder | None

    def named(self) -> dict[str, nn.Module]:
        """By the prefix in files."""
        parts = {"transformer": self.transformer, "tokenizer": self.tokenizer, "text": self.text}
        return {name: module for name, module in parts.items() if module is not None}


@dataclass(frozen=True)
class MiniFacts:
    """What ``model.json`` says. ``extra`` holds whatever else training noted, such as samples seen.

    ``vocabulary``: the words of captions, or the names of the classes where ``text`` is None.
    """

    family: str
    transformer: TransformerConfig
    tokenizer: TokenizerConfig
    text: dict[str, int] | None
    vocabulary: tuple[str, ...]
    schedule: Schedule
    settings: Settings
    scene_version: str
    weights: str
    extra: dict[str, Any]

    def empty(self) -> Parts:
        """The modules on the meta device."""
        with shapes_only():
            text = None if self.text is None else CaptionEncoder(self.vocabulary, **self.text)
            return Parts(build(self.transformer), build(self.tokenizer), text)


def save_mini(
    folder: str | Path,
    parts: Parts,
    schedule: Schedule,
    settings: Settings,
    facts: Mapping[str, Any],
    classes: Sequence[str] = (),
) -> str:
    """Write a mini in bf16 and return the hash of its weights. A former mini in the folder is replaced.

    ``facts`` are kept in the json as given (samples seen, seeds, losses). ``classes``: their names, where the model
    reads classes. Raises VarlabError for weights that are not finite and for facts under a name that the format uses
    itself.
    """
    folder = Path(folder)
    if taken := facts.keys() & (set(KEYS) - {"scene_version"}):
        raise VarlabError(f"facts may not hold {listing(taken)}: the format fills that in itself.")
    # What was learnt, by its name in the file; constants follow from the config.
    tensors = {f"{part}.{name}": t for part, module in parts.named().items() for name, t in learnt(module).items()}
    if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise VarlabError(f"{folder.name} is not saved: {listing(bad)} hold values that are not finite.")
    half = {k: t.detach().cpu().bfloat16() if t.is_floating_point() else t.cpu() for k, t in tensors.items()}
    transformer: Any = parts.transformer.config
    tokenizer: Any = parts.tokenizer.config
    text = parts.text
    record = {
        "family": family_of(transformer),
        "scene_version": SCENE_VERSION,
        **facts,
        "transformer": asdict(transformer),
        "tokenizer": asdict(tokenizer),
        "text": text and {"width": text.word.embedding_dim, "layers": len(text.layers.layers)},
        "vocabulary": tuple(classes) if text is None else text.vocabulary,
        "schedule": asdict(schedule),
        "settings": asdict(settings),
        "weights": hash_tensors(half),
    }
    described = json.dumps(record, indent=1) + "\n"  # what cannot be described is refused before the weights are there
    typed = {name: (tensor, tensor.dtype) for name, tensor in half.items()}
    write_safetensors(folder / "model.safetensors", typed, {"weights": str(record["weights"])}, lambda *_: None)
    write_text(folder / "model.json", described)
    return str(record["weights"])


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _built(kind: type[T], values: Any, where: str) -> T:
    """A config dataclass from its json, every field named; else what differs."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    given = values.keys() if isinstance(values, dict) else set()
    if names != given:
        raise VarlabError(
            f"{where} does not fit {kind.__name__}: missing {listing(names - given) or 'nothing'}, "
            f"unexpected {listing(given - names) or 'nothing'}. It was written by another version of varlab."
        )
    return kind(**{name: _tuples(value) for name, value in values.items()})


def read_facts(folder: str | Path, scene_versions: Sequence[str] | None = SCENE_VERSIONS) -> MiniFacts:
    """``model.json`` of a mini, checked. ``scene_versions``: those accepted; None accepts any.

    Raises VarlabError, naming the difference, for a missing or damaged file, another architecture format or
    scenes of an unknown version, whose words and pictures the weights were not trained on.
    """
    path = Path(folder) / "model.json"
    if not path.exists():
        raise VarlabError(
            f"{folder} is no trained mini, which is a folder with model.json and model.safetensors. Give the folder "
            "that holds them."
        )
    record: dict[str, Any] = read_json(path, "Train or copy the mini again.")
    if missing := set(KEYS) - record.keys():
        raise VarlabError(f"{path} lacks {listing(missing)}.")
    if record["family"] not in FAMILIES:
        raise VarlabError(f"{path}: {unknown('family', str(record['family']), FAMILIES)}")
    family = FAMILIES[record["family"]]
    if scene_versions is not None and record["scene_version"] not in scene_versions:
        raise VarlabError(
            f"{path} was trained on scenes of version {record['scene_version']}; this varlab draws version "
            f"{' and '.join(scene_versions)}. Train it again, or use the varlab that trained it."
        )
    return MiniFacts(
        record["family"],
        _built(family.transformer, record["transformer"], f"{path}: transformer"),
        _built(family.tokenizer, record["tokenizer"], f"{path}: tokenizer"),
        record["text"],
        tuple(record["vocabulary"]),
        _built(Schedule, record["schedule"], f"{path}: schedule"),
        _built(family.settings, record["settings"], f"{path}: settings"),
        record["scene_version"],
        record["weights"],
        {key: value for key, value in record.items() if key not in KEYS},
    )


def load_mini(
    folder: str | Path,
    precision: str = "fp32",
    device: str = "cpu",
    scene_versions: Sequence[str] | None = SCENE_VERSIONS,
) -> tuple[Parts, MiniFacts]:
    """A mini from its folder, in eval mode; "fp32" holds the stored bf16 values exactly.

    Raises VarlabError when a file is missing, the hash differs, or architecture and tensors do not agree.
    """
    facts, path = read_facts(folder, scene_versions), Path(folder) / "model.safetensors"
    tensors = read(path).tensors
    if (found := hash_tensors(tensors)) != facts.weights:
        raise VarlabError(
            f"{path} has the hash {found}, model.json names {facts.weights}: one of the two files is damaged or of "
            "another training."
        )
    parts = facts.empty()
    if foreign := [name for name in tensors if name.split(".")[0] not in parts.named()]:
        raise VarlabError(f"{path} holds {listing(foreign)}, which belong to no part of a mini.")
    for part, module in parts.named().items():
        own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        load_into(module, own, f"{part} of {path}", precision, device)
        module.eval().requires_grad_(False)
    return parts, facts

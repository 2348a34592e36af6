"""What a run was made of, as records say it: the model's architecture, its text encoder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from varlab.accelerators import ACCELERATORS
from varlab.accelerators import build as build_accelerators
from varlab.engine.hooks import Accelerator
from varlab.errors import VarlabError
from varlab.machine import device_name
from varlab.models.base import NextScaleModel
from varlab.probes import PROBES, LoggingProbe
from varlab.probes import build as build_probes
from varlab.resources import git_state
from varlab.scenes.grammar import SCENE_VERSION, require_version
from varlab.specs import spec_of, written
from varlab.weight_labels import DIGITS
from varlab.weights.content import digest_of_files


def architecture(model: NextScaleModel) -> dict[str, Any]:
    """The configurations of the transformer and the tokenizer, of a model that has them."""
    configs = {part: getattr(getattr(model, part, None), "config", None) for part in ("transformer", "tokenizer")}
    return {part: asdict(c) for part, c in configs.items() if is_dataclass(c) and not isinstance(c, type)}


def text_encoder(model: NextScaleModel) -> str:
    """What reads the prompts: the encoder's own label, else its class."""
    encoder = getattr(model, "text", None)
    return "none" if encoder is None else str(getattr(encoder, "label", type(encoder).__name__))


def contents(model: NextScaleModel, methods: Iterable[Accelerator] = ()) -> dict[str, Any]:
    """Digests of what decides the pictures and no label or spec tells: of weights, text encoder and methods' files.

    Nothing where labels and specs tell all, as those of minis do.
    """
    files = {spec_of(method): digest_of_files(method.files(model.name)) for method in methods}
    found = {
        "weights": untold(model.weights, getattr(model.weights, "content", {})),
        "text_encoder": digest_of_files(getattr(getattr(model, "text", None), "files", ())),
        "methods": {spec: digest for spec, digest in files.items() if digest},
    }
    return {name: value for name, value in found.items() if value}


def untold(label: str, content: Mapping[str, str]) -> dict[str, str]:
    """The hashes of weights that their label does not show."""
    return {part: digest for part, digest in content.items() if digest[:DIGITS] not in label}


def made_with(model: NextScaleModel, **more: Any) -> dict[str, Any]:
    """What a file must say of the model, the machine and the code behind it, with ``more`` of its own."""
    return {
        "model": model.name,
        "weights": model.weights,
        **scenes_of(model),
        "precision": model.precision,
        **more,
        "settings": asdict(model.settings),
        "device": device_name(model.device),
        "threads": torch.get_num_threads(),
        **signed(),
    }


def scenes_of(model: NextScaleModel) -> dict[str, str]:
    """The version of the scenes that a model knows; records of version 1 name none, as those from before version 2."""
    return {} if model.scene_version == SCENE_VERSION else {"scene_version": model.scene_version}


def scene_version(record: Mapping[str, Any], asked: str | None = None) -> str:
    """The version of the scenes that the pictures of a record show; of pictures without one, the one ``asked`` for.

    Raises VarlabError where the two differ.
    """
    known = record.get("scene_version", SCENE_VERSION if "weights" in record else asked or SCENE_VERSION)
    if asked is not None and require_version(asked) != known:
        raise VarlabError(
            f"{record.get('model', 'The model')} draws scenes of version {known}, and version {asked} is asked for. "
            "Leave the version out, or take a model of those scenes."
        )
    return str(known)


def signed() -> dict[str, Any]:
    """What any file must say of the code behind it, also one that needed no model."""
    return {
        "versions": {"varlab": version("varlab"), "torch": version("torch")},
        "git": git_state(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def plugin_options(
    probes: Sequence[str | LoggingProbe], accelerators: Sequence[str | Accelerator]
) -> dict[str, dict[str, str]]:
    """Every option of every probe and method, defaults included; of a class that is not registered also its place."""
    known = {*PROBES.values(), *(entry.kind for entry in ACCELERATORS.values())}
    return {
        spec_of(hook): written(hook)
        | ({} if type(hook) in known else {"class": f"{type(hook).__module__}.{type(hook).__qualname__}"})
        for hook in (*build_probes(probes), *build_accelerators(accelerators))
    }

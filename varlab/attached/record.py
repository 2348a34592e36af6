"""What a log of an attached run says of its origin."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from varlab.attached.hearing import Face
from varlab.attached.structure import Structure
from varlab.models.guidance import Settings
from varlab.probes import LoggingProbe
from varlab.probes.log import LOG_VERSION
from varlab.runs.origins import plugin_options, untold
from varlab.runs.provenance import machine_and_code
from varlab.specs import spec_of
from varlab.weights.writing import hash_tensors

SOURCE = "attached"


def hashes(structure: Structure, vae: nn.Module | None) -> dict[str, str]:
    """16 hexadecimal digits of each part's tensors; takes seconds a gigabyte."""
    parts = {"transformer": structure.module} | ({} if vae is None else {"tokenizer": vae})
    return {name: hash_tensors(part.state_dict()) for name, part in parts.items()}


def class_of(module: nn.Module) -> dict[str, str]:
    """Class and file of a module."""
    kind = type(module)
    try:
        file = inspect.getsourcefile(kind) or "unknown"
    except (TypeError, OSError):  # of a notebook's cell
        file = "unknown"
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "file": file}


def model_name(structure: Structure, given: str | None) -> str:
    """Of the model in tables and figures."""
    return given or f"attached-{type(structure.module).__name__}"


def contents_of(content: Mapping[str, str]) -> dict[str, Any]:
    """What decides a run and the label does not tell."""
    weights = untold(weights_label(content), content)
    return {"weights": weights} if weights else {}


def weights_label(content: Mapping[str, str]) -> str:
    return f"checkpoint (of an attached module, content {content['transformer']})"


def provenance(
    structure: Structure,
    face: Face,
    probes: Sequence[LoggingProbe],
    settings: Settings | None,
    content: Mapping[str, str],
    label: str | None,
) -> dict[str, Any]:
    """As of a run of varlab's own, with ``source`` and ``module``; prompts and seed are the caller's to add.

    Under ``settings`` is what was seen of them; none where the call did not say.
    """
    return {
        "source": SOURCE,
        "module": class_of(structure.module),
        "model": model_name(structure, label),
        "family": structure.family,
        "weights": weights_label(content),
        "weights_content": dict(content),
        "contents": contents_of(content),
        "architecture": {"transformer": asdict(face.transformer.config)},
        "text_encoder": "not seen",
        "precision": face.precision,
        "execution": "attached",
        "schedule": [list(grid) for grid in face.schedule.grids],
        "prompt_set": "custom",
        "negative": None,
        "settings": {} if settings is None else asdict(settings),
        "probes": [spec_of(probe) for probe in probes],
        "accelerators": [],
        "options": plugin_options(probes, ()),
        "log_version": LOG_VERSION,
        **machine_and_code(face.device),
    }

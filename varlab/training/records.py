"""What a run was told, part by part: a run that is resumed with other settings says from which update on they hold."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from varlab.machine import device_name
from varlab.training.precision import product_type
from varlab.training.recipe import CorrectionConfig, Recipe

Part = dict[str, Any]


def settings_of(recipe: Recipe, workers: int, device: str, compiled: bool) -> Part:
    """All that decides the updates of a transformer beside its data, and the device; ``batch`` is per worker."""
    return {
        **asdict(recipe.correction), "learning_rate": recipe.loop.learning_rate, "warmup": recipe.loop.warmup,
        "decay": recipe.loop.decay, "updates": recipe.loop.steps, "pool": recipe.pool, "pool_seed": recipe.pool_seed,
        "scene_version": recipe.scene_version, "categories": recipe.categories,
        "workers": workers, "device": device_name(torch.device(device)), "compiled": compiled,
        "products": str(product_type(device)).removeprefix("torch."),
    }  # fmt: skip


def note(folder: Path, step: int, settings: Part) -> None:
    """One more part from update ``step`` on where the settings differ from the last one's."""
    path = folder / "settings.json"
    parts: list[Part] = json.loads(path.read_text()) if path.exists() else []
    if parts and {key: value for key, value in parts[-1].items() if key != "from"} == settings:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps([*(part for part in parts if part["from"] < step), {"from": step, **settings}], indent=1)
    )


def _whole(part: Part, step: int) -> bool:
    known = {field.name for field in fields(CorrectionConfig)} & part.keys()  # a former run has fewer
    return CorrectionConfig(**{name: part[name] for name in known}).whole(step)


def parts_of(folder: Path, before: int, steps: int) -> list[Part]:
    """The parts of a run of ``steps`` updates, counted on from ``before``: their ``first`` and ``last`` update, and how
    many of them trained on whole stages."""
    path = folder / "settings.json"
    parts: list[Part] = json.loads(path.read_text()) if path.exists() else []
    ends = [part["from"] for part in parts[1:]] + [steps]
    return [
        {
            "first": before + part["from"] + 1,
            "last": before + end,
            "whole_updates": sum(_whole(part, step) for step in range(part["from"], end)),
        }
        | {key: value for key, value in part.items() if key != "from"}
        for part, end in zip(parts, ends, strict=True)
        if end > part["from"]
    ]

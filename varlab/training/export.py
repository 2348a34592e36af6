"""A training run -> a mini's folder: averaged weights in bf16, facts, and the logs of its parts."""

import shutil
from pathlib import Path
from typing import Any

import torch

from varlab.models.embedded import save_mini
from varlab.models.guidance import Settings
from varlab.runs import device_name
from varlab.scenes import SCENE_VERSION
from varlab.training.pipeline import PARTS, load_average, new_transformer, start_of, trained_tokenizer
from varlab.training.recipes import Recipe


def export(recipe: Recipe, run: Path, folder: Path, device: str = "cpu") -> str:
    """Write the mini and return the hash of its weights. Works on an unfinished run too; the facts say the steps."""
    tokenizer, trained = trained_tokenizer(recipe, run), new_transformer(recipe)
    load_average(trained, run / "transformer")
    parameters = sum(p.numel() for module in (tokenizer, trained) for p in module.parameters())
    facts = _facts(recipe, run, device) | {"parameters": parameters, "bytes": 2 * parameters}
    settings = Settings(cfg=recipe.cfg, tau=recipe.tau)
    weights = save_mini(folder, trained.transformer, tokenizer, trained.text, recipe.schedule, settings, facts)
    (folder / "training").mkdir(exist_ok=True)
    for part in PARTS:
        if (run / part / "log.csv").exists():
            shutil.copy(run / part / "log.csv", folder / "training" / f"{part}.csv")
    return weights


def _facts(recipe: Recipe, run: Path, device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "scene_version": SCENE_VERSION,
        "image_size": recipe.image_size,
        "pool": recipe.pool,
        "pool_seed": recipe.pool_seed,
        "device": device_name(torch.device(device)),
    }
    images = recipe.tokenizer_batch
    batches = {"tokenizer": images, "decoder": images, "transformer": recipe.correction.batch}
    before = start_of(run)
    for part in PARTS:
        state = {"step": 0, "seconds": 0.0, "world": 1}
        if (run / part / "state.pt").exists():
            state = torch.load(run / part / "state.pt", map_location="cpu", weights_only=True)
        facts |= {
            "workers": state["world"],
            f"{part}_steps": state["step"] + before[f"{part}_steps"],
            f"{part}_samples": state["step"] * batches[part] * state["world"] + before[f"{part}_samples"],
            f"{part}_hours": round(state["seconds"] / 3600 + before[f"{part}_hours"], 3),
        }
    return facts

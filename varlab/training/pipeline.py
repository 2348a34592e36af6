"""From nothing to a trained mini: scenes, tokenizer, latents, transformer. Every part resumes where it stopped."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from varlab.errors import VarlabError
from varlab.scenes import VOCABULARY
from varlab.training.latents import encode_pool
from varlab.training.launch import launch
from varlab.training.loop import Loop, Progress
from varlab.training.pool import ScenePool, build_pool
from varlab.training.recipe import Material, Recipe, Trained
from varlab.training.records import note, settings_of
from varlab.weights.embedded import MiniFacts, data_folder, load_mini, mini_folder, read_facts

Report = Callable[[str, Progress], None]
PARTS = ("tokenizer", "transformer")
FROM = "from"  # of a run's folder: the mini that it continues
NOTHING_BEFORE = {f"{part}_{what}": 0 for part in PARTS for what in ("steps", "samples", "hours")}


def silent(part: str, progress: Progress) -> None:
    """A reporter that says nothing."""


def unseen(step: int) -> None:
    """What is called at a checkpoint that nobody looks at."""


def new_tokenizer(recipe: Recipe, pool: ScenePool, folder: Path) -> Any:
    """Fresh, or with the weights of the mini whose tokenizer it starts from, or that the run fine-tunes."""
    tokenizer = recipe.new_tokenizer()
    if (folder / FROM).exists():
        tokenizer.load_state_dict(load_mini(folder / FROM)[0].tokenizer.state_dict())
    elif recipe.tokenizer_from is not None:
        recipe.adopt(tokenizer, *load_mini(data_folder() / recipe.tokenizer_from), pool)
    return tokenizer


def load_average(module: nn.Module, folder: Path) -> None:
    """The averaged weights of a training run."""
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["average"])
    module.eval()


def begin_from(recipe: Recipe, folder: Path, mini: Path) -> None:
    """The run continues from shipped weights, of which it keeps a copy: they may be replaced by what comes of it.

    Their tokenizer is kept, their transformer trained on; where they know other scenes than a recipe that fine-tunes,
    both are, and updates count from 0.
    """
    mini = mini_folder(mini)
    _, facts = load_mini(mini)
    if different := _differences(facts, recipe):
        raise VarlabError(
            f"{mini} is of another architecture or of other scenes than the recipe {recipe.name}: "
            f"{'; '.join(different)}."
        )
    known = facts.extra if facts.scene_version == recipe.scene_version else {}
    record = {"weights": facts.weights} | {k: known.get(k, 0) for k in NOTHING_BEFORE}
    path, begun = folder / "start.json", any((folder / part).exists() for part in PARTS)
    if path.exists() and begun:
        found = json.loads(path.read_text())
        if found != record:
            raise VarlabError(f"{folder} continues from other weights ({found}, not {record}). Give another --folder.")
        return
    if begun:
        raise VarlabError(f"{folder} holds a run from nothing. Give another --folder for --init-from.")
    shutil.rmtree(folder / FROM, ignore_errors=True)
    shutil.copytree(mini, folder / FROM)
    path.write_text(json.dumps(record))


def _differences(facts: MiniFacts, recipe: Recipe) -> list[str]:
    """What parts a mini from a recipe, setting by setting."""
    whole = {
        "schedule": (facts.schedule.grids, recipe.schedule.grids),
        "image_size": (facts.extra.get("image_size"), recipe.image_size),
        "scene_version": (facts.scene_version, facts.scene_version if recipe.fine_tunes else recipe.scene_version),
        "words": (facts.vocabulary, recipe.classes or VOCABULARY),
    }
    for part in PARTS:
        found, asked = asdict(getattr(facts, part)), asdict(getattr(recipe, part))
        whole |= {f"{part}.{key}": (found.get(key), asked.get(key)) for key in found | asked}
    return [f"{name} {found}, not {asked}" for name, (found, asked) in whole.items() if found != asked]


def start_of(folder: Path) -> dict[str, Any]:
    """What was trained before this folder: nothing, or a mini."""
    path = folder / "start.json"
    return json.loads(path.read_text()) if path.exists() else dict(NOTHING_BEFORE)


def continued(recipe: Recipe, folder: Path) -> bool:
    """Whether the run goes on from a mini of the same scenes, whose tokenizer it keeps."""
    return (folder / FROM).exists() and read_facts(folder / FROM).scene_version == recipe.scene_version


def trained_tokenizer(recipe: Recipe, folder: Path) -> Any:
    tokenizer = recipe.new_tokenizer()
    if continued(recipe, folder):
        tokenizer.load_state_dict(load_mini(folder / FROM)[0].tokenizer.state_dict())
        return tokenizer.eval()
    load_average(tokenizer, folder / "tokenizer")
    return recipe.settle(tokenizer, ScenePool(folder / "pool"))


def starting_transformer(recipe: Recipe, folder: Path) -> Trained:
    module = recipe.new_transformer()
    if (folder / FROM).exists():
        mini, _ = load_mini(folder / FROM)
        module.load_state_dict(Trained(mini.text, mini.transformer).state_dict())
    return module


def encoded(recipe: Recipe, pool: ScenePool, folder: Path, device: str) -> np.ndarray:
    tokenizer = trained_tokenizer(recipe, folder).to(device)
    return encode_pool(pool, partial(recipe.latents_of, tokenizer), folder / "latents.npy", device)


def train_tokenizer(rank: int, world: int, recipe: Recipe, folder: Path, device: str, report: Report) -> None:
    pool = ScenePool(folder / "pool")
    task = recipe.tokenizer_task(new_tokenizer(recipe, pool, folder).to(device), pool, device)
    loop = Loop(task, recipe.tokenizer_loop, folder / "tokenizer", rank, world)
    loop.run(lambda progress: report("tokenizer", progress))


def train_transformer(
    rank: int,
    world: int,
    recipe: Recipe,
    folder: Path,
    device: str,
    report: Report,
    compiled: bool,
    saved: Callable[[int], None],
) -> None:
    pool = ScenePool(folder / "pool")
    latents = encoded(recipe, pool, folder, device)
    module, seen = starting_transformer(recipe, folder).to(device), start_of(folder)["transformer_steps"]
    tokenizer = trained_tokenizer(recipe, folder).requires_grad_(False).to(device)
    material = Material(tokenizer, recipe.schedule, latents, pool.captions, recipe.correction, seen, device, compiled)
    task = recipe.transformer_task(module, material)
    loop = Loop(task, recipe.loop, folder / "transformer", rank, world)
    if rank == 0:
        note(folder / "transformer", loop.step, settings_of(recipe, world, device, compiled))
    loop.run(lambda progress: report("transformer", progress), saved)


def finished(folder: Path, steps: int) -> bool:
    path = folder / "state.pt"
    return path.exists() and torch.load(path, map_location="cpu", weights_only=True)["step"] >= steps


def train(
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
    workers: int | None = None,
    report: Report = silent,
    init_from: Path | None = None,
    compiled: bool = False,
    saved: Callable[[int], None] = unseen,
) -> bool:
    """True when all parts are done, False when stopped before; a second call goes on.

    ``report``, at every log line, and ``saved``, at every checkpoint of the transformer, are called in the worker of
    rank 0, so they must pickle.
    """
    count = recipe.workers if workers is None else workers
    if init_from is None and recipe.fine_tunes is not None and not (folder / "start.json").exists():
        init_from = data_folder() / recipe.fine_tunes
    if init_from is not None:
        begin_from(recipe, folder, init_from)
    pool = build_pool(
        folder / "pool",
        recipe.pool,
        recipe.pool_seed,
        recipe.image_size,
        recipe.make_scenes,
        recipe.scene_version,
        recipe.categories,
    )
    steps = recipe.tokenizer_loop.steps
    if not continued(recipe, folder) and not finished(folder / "tokenizer", steps):
        launch(count, train_tokenizer, recipe, folder, device, report)
        if not finished(folder / "tokenizer", steps):
            return False
    encoded(recipe, pool, folder, device)
    launch(count, train_transformer, recipe, folder, device, report, compiled, saved)
    return finished(folder / "transformer", recipe.loop.steps)

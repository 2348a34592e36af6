"""From nothing to a trained mini: scenes, tokenizer, latents, transformer. Every part resumes where it stopped."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from varlab.errors import VarlabError
from varlab.models.embedded import data_folder, load_mini
from varlab.training.latents import encode_pool
from varlab.training.launch import launch
from varlab.training.loop import Loop, Progress
from varlab.training.pool import ScenePool, build_pool
from varlab.training.recipe import Recipe, Trained

Report = Callable[[str, Progress], None]
PARTS = ("tokenizer", "transformer")
NOTHING_BEFORE = {f"{part}_{what}": 0 for part in PARTS for what in ("steps", "samples", "hours")}


def silent(part: str, progress: Progress) -> None:
    """A reporter that says nothing."""


def new_tokenizer(recipe: Recipe) -> Any:
    """Fresh, or with the weights of the mini whose tokenizer it starts from."""
    tokenizer = recipe.new_tokenizer()
    if recipe.tokenizer_from is not None:
        parts, facts = load_mini(data_folder() / recipe.tokenizer_from)
        if facts.tokenizer != recipe.tokenizer:
            raise VarlabError(
                f"{recipe.name} starts from the tokenizer of {recipe.tokenizer_from}, which is another one: "
                f"{facts.tokenizer}, not {recipe.tokenizer}."
            )
        tokenizer.load_state_dict(parts.tokenizer.state_dict())
    return tokenizer


def load_average(module: nn.Module, folder: Path) -> None:
    """The averaged weights of a training run."""
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["average"])
    module.eval()


def begin_from(recipe: Recipe, folder: Path, mini: Path) -> None:
    """Note that the run continues from shipped weights: its tokenizer is kept, its transformer trained on."""
    _, facts = load_mini(mini)
    if (facts.transformer, facts.tokenizer) != (recipe.transformer, recipe.tokenizer):
        raise VarlabError(
            f"{mini} is of another architecture than the recipe {recipe.name}: "
            f"{facts.transformer} and {facts.tokenizer}, not {recipe.transformer} and {recipe.tokenizer}."
        )
    record = {"init_from": str(mini), "weights": facts.weights} | {k: facts.extra.get(k, 0) for k in NOTHING_BEFORE}
    path = folder / "start.json"
    if path.exists() and json.loads(path.read_text()) != record:
        raise VarlabError(f"{folder} continues from other weights ({path.read_text()}). Give another --folder.")
    if (folder / "transformer").exists() and not path.exists():
        raise VarlabError(f"{folder} holds a run from nothing. Give another --folder for --init-from.")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def start_of(folder: Path) -> dict[str, Any]:
    """What was trained before this folder: nothing, or a mini."""
    path = folder / "start.json"
    return json.loads(path.read_text()) if path.exists() else dict(NOTHING_BEFORE)


def trained_tokenizer(recipe: Recipe, folder: Path) -> Any:
    start, tokenizer = start_of(folder), recipe.new_tokenizer()
    if "init_from" in start:
        tokenizer.load_state_dict(load_mini(start["init_from"])[0].tokenizer.state_dict())
        return tokenizer.eval()
    load_average(tokenizer, folder / "tokenizer")
    return recipe.settle(tokenizer, ScenePool(folder / "pool"))


def starting_transformer(recipe: Recipe, folder: Path) -> Trained:
    module, start = recipe.new_transformer(), start_of(folder)
    if "init_from" in start:
        mini, _ = load_mini(start["init_from"])
        module.load_state_dict(Trained(mini.text, mini.transformer).state_dict())
    return module


def encoded(recipe: Recipe, pool: ScenePool, folder: Path, device: str) -> np.ndarray:
    tokenizer = trained_tokenizer(recipe, folder).to(device)
    return encode_pool(pool, partial(recipe.latents_of, tokenizer), folder / "latents.npy", device)


def train_tokenizer(rank: int, world: int, recipe: Recipe, folder: Path, device: str, report: Report) -> None:
    task = recipe.tokenizer_task(new_tokenizer(recipe).to(device), ScenePool(folder / "pool"), device)
    loop = Loop(task, recipe.tokenizer_loop, folder / "tokenizer", rank, world)
    loop.run(lambda progress: report("tokenizer", progress))


def train_transformer(
    rank: int, world: int, recipe: Recipe, folder: Path, device: str, report: Report, compiled: bool
) -> None:
    pool = ScenePool(folder / "pool")
    latents = encoded(recipe, pool, folder, device)
    module, seen = starting_transformer(recipe, folder).to(device), start_of(folder)["transformer_steps"]
    tokenizer = trained_tokenizer(recipe, folder).requires_grad_(False).to(device)
    task = recipe.transformer_task(module, tokenizer, latents, pool, seen, device, compiled)
    loop = Loop(task, recipe.loop, folder / "transformer", rank, world)
    loop.run(lambda progress: report("transformer", progress))


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
) -> bool:
    """True when all parts are done, False when stopped before; a second call goes on.

    ``report`` must be importable by name, for it is called in the worker of rank 0.
    """
    count = recipe.workers if workers is None else workers
    if init_from is not None:
        begin_from(recipe, folder, init_from)
    pool = build_pool(folder / "pool", recipe.pool, recipe.pool_seed, recipe.image_size, recipe.make_scenes)
    steps = recipe.tokenizer_loop.steps
    if "init_from" not in start_of(folder) and not finished(folder / "tokenizer", steps):
        launch(count, train_tokenizer, recipe, folder, device, report)
        if not finished(folder / "tokenizer", steps):
            return False
    encoded(recipe, pool, folder, device)
    launch(count, train_transformer, recipe, folder, device, report, compiled)
    return finished(folder / "transformer", recipe.loop.steps)

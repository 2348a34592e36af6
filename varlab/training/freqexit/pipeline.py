"""From a shipped VAR mini to one fine-tuned for early exits: its scenes as latents, the run, the export."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from varlab.errors import VarlabError
from varlab.figures import training as figures
from varlab.locks import one_writer
from varlab.machine import device_name
from varlab.models.tokenizers.vqvae import VQTokenizer
from varlab.models.var import VARTransformer
from varlab.scenes import SCENE_VERSION
from varlab.training.freqexit.recipes import FineTuning, freqexit_recipe
from varlab.training.freqexit.task import FreqExitTask, Student, new_objective
from varlab.training.latents import encode_pool
from varlab.training.launch import launch
from varlab.training.loop import Loop, Progress
from varlab.training.pool import ScenePool, build_pool
from varlab.training.recipe import CorrectionConfig, Material
from varlab.training.var import Batches, class_scenes
from varlab.weights.embedded import MiniFacts, Parts, load_mini, save_mini
from varlab.weights.registry import find

Report = Callable[[Progress], None]
NAME = "freqexit"


@dataclass(frozen=True)
class Plan:
    """A fine-tuning run. ``batch`` is per worker; ``swap`` bounds the share of swapped codes in the inputs, as in the
    mini's own training; ``pool``: scenes learnt from, the first of those that the mini was trained on."""

    model: str = "mini-var"
    recipe: str = "corrected"
    steps: int = 180
    batch: int = 8
    learning_rate: float = 1e-3
    seed: int = 0
    pool: int = 8000
    swap: float = 0.1
    drop: float = 0.1

    @property
    def label(self) -> str:
        """Of folders: recipe, its switches, seed."""
        return f"{self.recipe.replace(':', '-').replace(',', '-')}-seed{self.seed}"

    def loop(self) -> FineTuning:
        decay = freqexit_recipe(self.recipe).weight_decay
        return FineTuning(self.steps, self.learning_rate, weight_decay=decay, seed=self.seed)


def base_of(model: str) -> tuple[MiniFacts, Parts]:
    """The shipped mini that a run starts from; anything but a VAR mini is refused."""
    entry = find(model)
    if entry.folder is None or entry.family != "var":
        raise VarlabError(f"FreqExit trains a VAR mini that ships with varlab, such as mini-var; {model} is none.")
    parts, facts = load_mini(entry.folder)
    return facts, parts


def prepare(plan: Plan, folder: Path, device: str) -> None:
    """Scenes and their latents under ``folder``, once for all runs that share it."""
    facts, parts = base_of(plan.model)
    size, seed = facts.extra["image_size"], facts.extra["pool_seed"]
    pool = build_pool(folder / "pool", plan.pool, seed, size, lambda n, first: class_scenes(n, seed, size, first))
    record, path = folder / "latents.json", folder / "latents.npy"
    if path.exists() and json.loads(record.read_text()) != {"weights": facts.weights}:
        raise VarlabError(f"{path} was encoded by other weights than {plan.model} now has. Give another --folder.")
    record.write_text(json.dumps({"weights": facts.weights}))
    encode_pool(pool, cast(VQTokenizer, parts.tokenizer.to(device)).latent, path, device)


def worker(rank: int, world: int, plan: Plan, folder: Path, device: str, report: Report) -> None:
    """One data-parallel process of a run."""
    facts, parts = base_of(plan.model)
    recipe, teacher = freqexit_recipe(plan.recipe), cast(VARTransformer, parts.transformer.to(device))
    torch.manual_seed(plan.seed)
    student = VARTransformer(teacher.config)
    student.load_state_dict(teacher.state_dict())
    module = Student(student, new_objective(recipe, teacher)).to(device)
    pool, config = (
        ScenePool(folder / "pool"),
        CorrectionConfig(plan.batch, swap=plan.swap, drop=plan.drop, seed=plan.seed),
    )
    latents = np.load(folder / "latents.npy", mmap_mode="r")
    tokenizer = cast(VQTokenizer, parts.tokenizer.to(device))
    material = Material(tokenizer, facts.schedule, latents, pool.captions, config, device=device)
    batches = Batches(material, facts.vocabulary)
    task = FreqExitTask(module, teacher, batches, recipe, plan.steps, device)
    Loop(task, plan.loop(), folder / plan.label, rank, world).run(partial(_live, folder / plan.label, report))


def _live(folder: Path, report: Report, progress: Progress) -> None:
    """The figure beside the log, rewritten at every log line."""
    log = pd.read_csv(folder / "log.csv")
    figures.write(figures.training_progress(log, progress.steps), folder / "progress.png")
    report(progress)


def state_of(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run folder."""
    if not (folder / "state.pt").exists():
        return {"step": 0}
    return dict(torch.load(folder / "state.pt", map_location="cpu", weights_only=True))


def train_freqexit(plan: Plan, folder: Path, workers: int, device: str, report: Report, wait: bool = True) -> bool:
    """True when the last update is done, False when stopped before; a second call goes on.

    Runs side by side share the scenes of ``folder``; each has one writer: a second process waits, or is refused
    without ``wait``.

    ``report`` must be importable by name. Raises VarlabError for a model that is no VAR mini, an unknown recipe or
    switch, and for the official recipe on a schedule without its ten stages, before anything is computed.
    """
    _, parts = base_of(plan.model)
    new_objective(freqexit_recipe(plan.recipe), cast(VARTransformer, parts.transformer))
    run = folder / plan.label
    with one_writer(run, wait=wait):
        _save_plan(plan, run)
        with one_writer(folder, wait=wait):
            prepare(plan, folder, device)
        if state_of(run)["step"] < plan.steps:
            launch(workers, worker, plan, folder, device, report)
        return bool(state_of(run)["step"] >= plan.steps)


def _save_plan(plan: Plan, run: Path) -> None:
    """The plan beside its run; a run of another plan is refused, once it has a checkpoint."""
    path = run / "plan.json"
    if path.exists() and (run / "state.pt").exists() and (found := json.loads(path.read_text())) != asdict(plan):
        raise VarlabError(f"{run} holds another run: {found}, asked for {asdict(plan)}. Give another --folder.")
    path.write_text(json.dumps(asdict(plan), indent=1))


def export_freqexit(plan: Plan, folder: Path, out: Path, device: str = "cpu") -> str:
    """Write the averaged student as a mini and return the hash of its weights."""
    facts, parts = base_of(plan.model)
    state, transformer = state_of(folder / plan.label), cast(VARTransformer, parts.transformer)
    own = {k.removeprefix("transformer."): v for k, v in state["average"].items() if k.startswith("transformer.")}
    transformer.load_state_dict(own)
    settings = facts.settings
    record = {
        "scene_version": SCENE_VERSION,
        **{k: facts.extra[k] for k in ("image_size", "pool_seed", "parameters", "bytes")},
        "fine_tuned_from": {"model": plan.model, "weights": facts.weights},
        "freqexit": asdict(plan) | {"losses": asdict(freqexit_recipe(plan.recipe).losses)},
        "freqexit_steps": state["step"],
        "freqexit_samples": state["step"] * plan.batch * state["world"],
        "freqexit_hours": round(state["seconds"] / 3600, 3),
        "workers": state["world"],
        "device": device_name(torch.device(device)),
    }
    weights = save_mini(out, parts, facts.schedule, settings, record, facts.vocabulary)
    (out / "training").mkdir(exist_ok=True)
    log = pd.read_csv(folder / plan.label / "log.csv")
    log.to_csv(out / "training" / f"{NAME}.csv", index=False, float_format="%.5g")
    return weights

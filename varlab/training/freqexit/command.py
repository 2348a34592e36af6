"""What ``varlab train freqexit`` does: a run folder, progress, and the finished mini."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError
from varlab.training.command import show
from varlab.training.freqexit.pipeline import NAME, Plan, export_freqexit, train_freqexit
from varlab.training.freqexit.recipes import freqexit_recipe
from varlab.training.loop import Progress


def show_freqexit(progress: Progress) -> None:
    show(NAME, progress)


def plan_of(
    model: str,
    recipe: str,
    seed: int = 0,
    steps: int | None = None,
    pool: int | None = None,
    learning_rate: float | None = None,
) -> Plan:
    """The plan of a run; None keeps its own sizes. An unknown recipe or switch is refused, and a rate of no use."""
    freqexit_recipe(recipe)
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise VarlabError(f"learning_rate must be positive and finite, such as 1e-3, not {learning_rate}.")
    asked: dict[str, Any] = {"steps": steps, "pool": pool, "learning_rate": learning_rate}
    return replace(Plan(model, recipe, seed=seed), **{name: x for name, x in asked.items() if x is not None})


def freqexit_command(
    plan: Plan, folder: Path | None, workers: int, device: str, out: Path | None, wait: bool = True
) -> str:
    """Fine-tune, and export when done. Returns what to tell the user. ``wait`` as in ``train_command``."""
    if workers < 1:
        raise VarlabError(f"--workers must be at least 1, not {workers}.")
    place = folder or Path("runs") / "train" / NAME
    run = place / plan.label
    if not train_freqexit(plan, place, workers, device, show_freqexit, wait):
        return f"stopped; the state is in {run}; the same command goes on"
    target = out or run / f"{plan.model}-{NAME}"
    weights = export_freqexit(plan, place, target, device)
    return f"{target} holds {plan.model}-{NAME} ({weights}); log and figure: {run / 'log.csv'}, {run / 'progress.png'}"

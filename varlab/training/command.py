"""What ``varlab train`` does: a run folder, progress, and the finished mini."""

import sys
from pathlib import Path

from varlab.errors import VarlabError
from varlab.locks import one_writer
from varlab.resources import checkout
from varlab.training.export import export
from varlab.training.loop import Progress
from varlab.training.pipeline import train
from varlab.training.recipe import Recipe
from varlab.training.recipes import recipe as find_recipe


def show(part: str, progress: Progress) -> None:
    """One line of progress, written over the last."""
    figures = "  ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
    minutes = progress.seconds_left / 60
    line = f"{part} {progress.step}/{progress.steps}  {figures}  {minutes:.0f} min left"
    sys.stdout.write(f"\r\x1b[2K{line}" if sys.stdout.isatty() else line + "\n")
    sys.stdout.flush()


def train_command(
    name: str,
    folder: Path | None,
    workers: int | None,
    device: str,
    init_from: Path | None,
    steps: int | None,
    pool: int | None,
    out: Path | None,
    compiled: bool = False,
    wait: bool = True,
) -> str:
    """Train, and export: to ``out``, or into the run's folder when stopped before. Returns what to tell the user.

    A folder has one writer: while another process trains in it, this one waits, or is refused without ``wait``.
    """
    recipe = find_recipe(name).with_sizes(steps, pool)
    if workers is not None and workers < 1:
        raise VarlabError(f"--workers must be at least 1, not {workers}.")
    run = folder or Path("runs") / "train" / name
    with one_writer(run, wait=wait):
        return _train(recipe, run, workers, device, init_from, out, compiled)


def _train(
    recipe: Recipe,
    run: Path,
    workers: int | None,
    device: str,
    init_from: Path | None,
    out: Path | None,
    compiled: bool,
) -> str:
    name = recipe.name
    done = train(recipe, run, device, workers, show, init_from, compiled)
    told = f"stopped; the state is in {run}; the same command goes on"
    if not done and not (run / "transformer" / "state.pt").exists():
        return told
    target = out if done and out else run / name
    weights = export(recipe, run, target, device)
    if not done:
        return f"{told}; {target} holds the average so far ({weights})"
    ships = f"; the same command with --out data/{name} ships it" if checkout() else ""
    return f"{target} holds {name} ({weights}){ships}"

"""What ``varlab train`` does: a run folder, progress, and the finished mini."""

import sys
from bisect import bisect
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from varlab.errors import VarlabError
from varlab.locks import one_writer
from varlab.resources import checkout
from varlab.training.export import export
from varlab.training.loop import Progress
from varlab.training.pipeline import PARTS, train
from varlab.training.recipe import Recipe
from varlab.training.recipes import recipe as find_recipe
from varlab.training.strip import add_row
from varlab.weights.embedded import data_folder, read_facts


def show(part: str, progress: Progress, *more: str) -> None:
    """One line of progress, written over the last."""
    figures = (f"{name} {value:.4g}" for name, value in progress.figures.items())
    words = (f"{part} {progress.step}/{progress.steps}", *figures, *more, f"{progress.seconds_left / 60:.0f} min left")
    line = "  ".join(words)
    sys.stdout.write(f"\r\x1b[2K{line}" if sys.stdout.isatty() else line + "\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Reporter:
    """Progress with samples a second, and beside the loss that of the shipped mini's own run at as many samples.

    ``batches``: samples an update, by part. ``former``: by part the samples seen and the loss of each logged update.
    """

    batches: dict[str, int]
    former: dict[str, tuple[list[float], list[float]]]

    def __call__(self, part: str, progress: Progress) -> None:
        show(part, progress, *self.beside(part, progress), f"{progress.pace * self.batches[part]:.1f} samples/s")

    def beside(self, part: str, progress: Progress) -> list[str]:
        """The former loss, where that run came so far; smoothed over as many log lines as fit a twentieth of it."""
        samples, losses = self.former.get(part, ([], []))
        place = bisect(samples, progress.step * self.batches[part])
        if not 0 < place < len(samples):
            return []
        near = losses[max(0, place - 1 - len(losses) // 40) : place + len(losses) // 40]
        return [f"(former {sum(near) / len(near):.4g})"]


def reporter(recipe: Recipe, workers: int, mini: Path | None) -> Reporter:
    """``mini``: the folder of the recipe's shipped weights, whose logs are the former run's; it may be missing."""
    batches = {"tokenizer": recipe.tokenizer_batch * workers, "transformer": recipe.correction.batch * workers}
    if mini is None or not (mini / "model.json").exists():
        return Reporter(batches, {})
    extra, former = read_facts(mini).extra, {}
    for part in PARTS:
        log = mini / "training" / f"{part}.csv"
        if log.exists() and extra.get(f"{part}_steps"):
            rows = pd.read_csv(log)
            each = extra[f"{part}_samples"] / extra[f"{part}_steps"]
            former[part] = (rows.step * each).tolist(), rows.loss.tolist()
    return Reporter(batches, former)


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
    former = None if init_from else data_folder() / name  # a continued run does not begin where that one did
    report = reporter(recipe, workers or recipe.workers, former)
    done = train(recipe, run, device, workers, report, init_from, compiled, partial(add_row, recipe, run))
    told = f"stopped; the state is in {run}; the same command goes on"
    if not done and not (run / "transformer" / "state.pt").exists():
        return told
    target = out if done and out else run / name
    weights = export(recipe, run, target, device)
    if not done:
        return f"{told}; {target} holds the average so far ({weights})"
    ships = f"; the same command with --out data/{name} ships it" if checkout() else ""
    return f"{target} holds {name} ({weights}){ships}"

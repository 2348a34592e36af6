"""Reports of a batch file with their progress: a bar each in a terminal, lines in a log."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic

import typer
from rich.progress import Progress, TextColumn

from varlab.cli.options import console, resumable, say

EVERY = 5.0  # seconds between two lines on one report


def make_all(batch: Path, out: Path, *, workers: int, fresh: bool, overwrite: bool) -> None:
    """Every report of a batch file; exit code 1 where one failed, after all others."""
    from varlab.report_inputs import check_inputs, digests, shared_minis
    from varlab.reports import make_batch, read_batch
    from varlab.runs.inputs import at_least

    at_least(1, workers=workers)
    orders = read_batch(batch, check_inputs, digests)
    with resumable(), _board([order.name for order in orders]) as told:
        failed = make_batch(
            orders, out, workers=workers, fresh=fresh, overwrite=overwrite, told=told, models=shared_minis(orders)
        )
    say(f"{len(orders) - len(failed)} of {len(orders)} reports are made; index: {out / 'index.html'}")
    if failed:
        raise typer.Exit(1)


@contextmanager
def _board(names: Sequence[str]) -> Iterator[Callable[[str, str, float | None], None]]:
    """What is told of each report, and how long all need yet."""
    if not console.is_terminal:
        yield Lines()
        return
    with Progress(TextColumn("{task.description}"), console=console, transient=True) as progress:
        rows = {name: progress.add_task("") for name in names}
        total = progress.add_task("")

        def told(name: str, state: str, left: float | None) -> None:
            running = state.startswith("cell ")
            progress.update(rows[name], description=f"{name}: {state}", visible=running)
            if not running:
                say(f"{name}: {state}")
            if left is not None:
                progress.update(total, description=_remaining(left))

        yield told


class Lines:
    """A line whenever a report begins or ends, else at most one in ``EVERY`` seconds on each."""

    def __init__(self) -> None:
        self.start = monotonic()
        self.last: dict[str, float] = {}

    def __call__(self, name: str, state: str, left: float | None) -> None:
        now = monotonic()
        if state.startswith("cell ") and now - self.last.get(name, -EVERY) < EVERY:
            return
        self.last[name] = now
        say(f"{now - self.start:5.0f} s  {name}: {state}{'' if left is None else f'; {_remaining(left)}'}")


def _remaining(seconds: float) -> str:
    return f"about {timedelta(seconds=round(seconds))} left"

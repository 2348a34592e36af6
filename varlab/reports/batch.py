"""Many reports from one file: two at a time, an unchanged one not made again, a failed one in nobody's way."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic
from typing import Any

from varlab.errors import VarlabError
from varlab.reports.forked import Kernel, new_kernel, processes, take
from varlab.reports.index import write_index
from varlab.reports.notebooks import read_notebook
from varlab.reports.orders import Order, refuse_others
from varlab.reports.run import INLINE, report_key, run_report
from varlab.runs.watched import WATCHED

EVERY = 0.5  # seconds after which the prompts done are looked at
PATIENCE = 10.0  # seconds for a report to stop
Told = Callable[[str, str, float | None], None]  # a report's name, how it stands, seconds left of all, if known


def make_batch(
    orders: Sequence[Order],
    out: Path | str = "reports",
    *,
    workers: int = 2,
    fresh: bool = False,
    overwrite: bool = False,
    told: Told | None = None,
    models: Sequence[str] = (),
) -> dict[str, str]:
    """Make the reports, ``workers`` at a time, and renew the index. Returns why reports failed, by name.

    A finished report of the same notebook, inputs and code is left as it is, unless ``fresh``. ``told`` takes a name,
    how it stands (``unchanged``, ``cell 3 of 12, prompt 5 of 24``, ``done``, or what went wrong), and about how many
    seconds all need yet. Each report's kernel gets its share of the cores. ``models``: minis that the first batch of
    a process loads once for all its reports; later batches take them too, unless their files have changed.
    Raises VarlabError, before one is made, where reports of other inputs have these names, unless ``overwrite``.
    """
    if workers < 1:
        raise VarlabError(f"workers must be at least 1, not {workers}.")
    place, tell = Path(out).resolve(), told or (lambda name, state, left: None)
    if not overwrite:
        refuse_others(orders, place)
    waiting = [order for order in orders if fresh or not _is_made(order, place)]
    for order in orders:
        if order not in waiting:
            tell(order.name, "unchanged", None)
    failed = _made(waiting, place, workers, overwrite, tell, models) if waiting else {}
    if place.is_dir():
        write_index(place)
    return failed


def _made(
    waiting: Sequence[Order], place: Path, workers: int, overwrite: bool, tell: Told, models: Sequence[str]
) -> dict[str, str]:
    """Why reports failed, by name."""
    pace = Pace({order.name: _seconds(order, place) for order in waiting})
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    environment = {"OMP_NUM_THREADS": threads}
    context = processes(INLINE | environment, models)
    orders, running, failed = list(reversed(waiting)), list[Making](), dict[str, str]()
    with TemporaryDirectory() as folder:
        try:
            while orders or running:
                while orders and len(running) < workers:
                    running.append(Making(context, orders.pop(), place, overwrite, environment, Path(folder)))
                wait_for([making.said for making in running], timeout=EVERY)
                for making in list(running):
                    if (news := making.news()) is not None:
                        tell(making.name, news[0], pace.left(making.name, news[1]))
                    if making.error is not None:
                        running.remove(making)
                        failed |= {making.name: making.error} if making.error else {}
        finally:
            for making in running:  # after Ctrl-C, which each takes as one made alone does
                making.process.terminate()
            for making in running:
                making.process.join(PATIENCE)
                making.process.kill()
    return failed


class Making:
    """One report, made in a process of its own.

    ``error``: what went wrong, empty where nothing did, None while it is being made.
    """

    error: str | None = None

    def __init__(
        self, context: Any, order: Order, out: Path, overwrite: bool, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name, self.prompts = order.name, folder / order.name
        self.said, saying = context.Pipe(duplex=False)
        kernel, seen = new_kernel(context), {**os.environ, **environment, WATCHED: str(self.prompts)}
        self.process = context.Process(target=_make_one, args=(order, out, overwrite, seen, saying, kernel))
        self.process.start()
        for connection in (saying, *([kernel.line] if kernel else [])):  # its process alone holds them now
            connection.close()
        self._cells, self._told = (0.0, 0), ""

    def news(self) -> tuple[str, float] | None:
        """How it stands, and the share that is done, where it stood otherwise before."""
        while self.error is None and self.said.poll():
            heard = self._heard()
            self.error = heard if isinstance(heard, str) else None
            self._cells = self._cells if isinstance(heard, str) else heard
        if self.error is not None:
            self.process.join()
            return self.error or "done", 1.0
        with suppress(OSError):  # there while a run tells, and removed after each cell
            return self._new(*_stands(*self._cells, self.prompts.read_text("utf-8")))
        return self._new(*_stands(*self._cells, "")) if self._cells[1] else None

    def _heard(self) -> Any:
        try:
            return self.said.recv()
        except EOFError:
            self.process.join()
            return f"its process died (exit code {self.process.exitcode}). Not enough memory is the usual cause."

    def _new(self, state: str, share: float) -> tuple[str, float] | None:
        told, self._told = self._told, state
        return None if state == told else (state, share)


def _is_made(order: Order, out: Path) -> bool:
    """Whether the folder holds this very report, finished."""
    path = out / order.name / f"{order.name}.ipynb"
    if not path.is_file() or not path.with_suffix(".html").is_file():
        return False
    try:
        held = read_notebook(path).metadata.get("varlab", {})
    except VarlabError:
        return False
    return held.get("status") == "complete" and held.get("key") == report_key(
        order.notebook, order.all_inputs, order.read
    )


def _seconds(order: Order, out: Path) -> float | None:
    """How long the report took when it was last made."""
    path = out / order.name / f"{order.name}.ipynb"
    try:
        return read_notebook(path).metadata.get("varlab", {}).get("seconds") if path.is_file() else None
    except VarlabError:
        return None


class Pace:
    """How long all reports will need yet, by what is done of each and how long each took before."""

    def __init__(self, seconds: Mapping[str, float | None]) -> None:
        known = [value for value in seconds.values() if value]
        usual = sum(known) / len(known) if known else 1.0
        self.weights = {name: value or usual for name, value in seconds.items()}
        self.shares, self.start = dict.fromkeys(seconds, 0.0), monotonic()

    def left(self, name: str, share: float) -> float | None:
        """Seconds, once a fiftieth of all is done."""
        self.shares[name] = share
        done = sum(self.weights[name] * share for name, share in self.shares.items()) / sum(self.weights.values())
        return (monotonic() - self.start) * (1 - done) / done if done >= 0.02 else None


def _make_one(
    order: Order, out: Path, overwrite: bool, environment: Mapping[str, str], saying: Connection, kernel: Kernel | None
) -> None:
    """In a process of its own: says (cells done, all), and in the end what went wrong, or an empty text."""
    signal.signal(signal.SIGINT, lambda *_: None)  # of a terminal: who makes the batch gets it too, and sends the other
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Thread(target=_stop_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    take(kernel)
    prompts = Path(environment[WATCHED])

    def progress(done: float, total: int) -> None:
        prompts.unlink(missing_ok=True)
        saying.send((done, total))

    try:
        run_report(
            order.notebook, order.inputs, out, name=order.name, progress=progress, overwrite=overwrite, read=order.read
        )
        saying.send("")
    except VarlabError as error:
        saying.send(str(error))
    except Exception as error:
        saying.send(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        pass


def _stop_with_parent() -> None:
    """Where who makes the batch was killed, nobody waits for the report."""
    if parent := parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _stands(done: float, total: float, prompts: str) -> tuple[str, float]:
    """``cell 3 of 12, prompt 5 of 24`` and the share of the report that is done."""
    state = f"cell {min(done + 1, total):.0f} of {total:.0f}"
    if not prompts:
        return state, done / total
    seen, of = map(float, prompts.split())
    return f"{state}, prompt {seen:.0f} of {of:.0f}", min(1.0, (done + seen / of) / total)

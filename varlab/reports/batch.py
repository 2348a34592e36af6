"""Many reports from one file: two at a time, an unchanged one not made again, a failed one in nobody's way."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic
from typing import Any

from varlab.errors import VarlabError
from varlab.reports.index import write_index
from varlab.reports.notebooks import read_notebook
from varlab.reports.orders import Order, refuse_others
from varlab.reports.run import INLINE, report_key, run_report
from varlab.runs.watched import WATCHED

Told = Callable[[str, str, float | None], None]  # a report's name, how it stands, seconds left of all, if known


def make_batch(
    orders: Sequence[Order],
    out: Path | str = "reports",
    *,
    workers: int = 2,
    fresh: bool = False,
    overwrite: bool = False,
    told: Told | None = None,
) -> dict[str, str]:
    """Make the reports, ``workers`` at a time, and renew the index. Returns why reports failed, by name.

    A finished report of the same notebook, inputs and code is left as it is, unless ``fresh``. ``told`` takes a name,
    how it stands (``unchanged``, ``cell 3 of 12, prompt 5 of 24``, ``done``, or what went wrong), and about how many
    seconds all need yet. Each report's kernel gets its share of the cores.
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
    failed = _made(waiting, place, workers, overwrite, tell) if waiting else {}
    if place.is_dir():
        write_index(place)
    return failed


def _made(waiting: Sequence[Order], place: Path, workers: int, overwrite: bool, tell: Told) -> dict[str, str]:
    """Why reports failed, by name."""
    pace = Pace({order.name: _seconds(order, place) for order in waiting})
    failed: dict[str, str] = {}
    context = multiprocessing.get_context("spawn")  # a kernel is started from a process without threads of torch
    with context.Manager() as manager, ProcessPoolExecutor(workers, mp_context=context) as pool:
        queue = manager.Queue()
        running: dict[Future[str], str] = {
            pool.submit(_make_one, order, place, overwrite, workers, queue): order.name for order in waiting
        }
        while running:
            ended, _ = wait_for(running, timeout=0.2)
            _pass_on(queue, tell, pace)
            for future in ended:
                name, error = running.pop(future), future.exception()
                state = f"{type(error).__name__}: {error}" if error else future.result()
                if state:
                    failed[name] = state
                tell(name, state or "done", pace.left(name, 1.0))
    return failed


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


def _make_one(order: Order, out: Path, overwrite: bool, workers: int, queue: Any) -> str:
    """In a process of its own: what went wrong, or nothing."""
    from varlab.reports.forked import serve

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    serve(INLINE)
    with TemporaryDirectory() as folder:
        prompts, cells = Path(folder) / "prompts", [0.0, 0.0]
        os.environ[WATCHED] = str(prompts)

        def progress(done: float, total: int) -> None:
            prompts.unlink(missing_ok=True)
            cells[:] = [done, total]
            queue.put((order.name, *_stands(done, total, "")))

        ended = Event()

        def look() -> None:
            seen = ""
            while not ended.wait(0.5):
                text = prompts.read_text("utf-8") if prompts.is_file() else ""
                if text and text != seen and cells[1]:
                    queue.put((order.name, *_stands(cells[0], cells[1], text)))
                seen = text

        watcher = Thread(target=look, daemon=True)
        watcher.start()
        try:
            run_report(
                order.notebook, order.inputs, out, name=order.name, progress=progress, overwrite=overwrite,
                read=order.read,
            )  # fmt: skip
        except VarlabError as error:
            return str(error)
        finally:
            ended.set()
            watcher.join()
    return ""


def _stands(done: float, total: float, prompts: str) -> tuple[str, float]:
    """``cell 3 of 12, prompt 5 of 24`` and the share of the report that is done."""
    state = f"cell {min(done + 1, total):.0f} of {total:.0f}"
    if not prompts:
        return state, done / total
    seen, of = map(float, prompts.split())
    return f"{state}, prompt {seen:.0f} of {of:.0f}", min(1.0, (done + seen / of) / total)


def _pass_on(queue: Any, tell: Told, pace: Pace) -> None:
    while True:
        try:
            name, state, share = queue.get_nowait()
        except Empty:
            return
        tell(name, state, pace.left(name, share))

"""Work on several processors: in processes that start anew, as forks of one with the threads of zarr would hang."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TypeVar

from varlab.writing import DRAFT

T = TypeVar("T", bound=Sized)
R = TypeVar("R")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """Some processes, which begin at once with what comes ``first``, say imports."""

    def __init__(self, number: int, first: Callable[[], object]) -> None:
        self.pool, others = ProcessPoolExecutor(number, get_context("spawn")), set(active_children())
        with _uninterrupted():
            for _ in range(number):
                self.pool.submit(first)
        self.children = [(child, child.pid) for child in set(active_children()) - others]

    def each(self, work: Callable[[T], R], tasks: Sequence[T], lost: Callable[[T], R]) -> list[R]:
        """What the work gives for each of the tasks, the longest of which begin; ``lost`` where a process was ended."""
        with _uninterrupted():
            found: dict[int, Future[R]] = {}
            with suppress(BrokenProcessPool):  # by a process that did not even begin
                for i in sorted(range(len(tasks)), key=lambda i: -len(tasks[i])):
                    found[i] = self.pool.submit(work, tasks[i])
        return [_result(found.get(i), lost, task) for i, task in enumerate(tasks)]


@contextmanager
def processes(number: int, first: Callable[[], object], place: Path) -> Iterator[Processes]:
    """So many processes, which end with the block, in the middle of their work too where it raises; no unfinished file
    of theirs is left in the folder ``place``."""
    mine = Processes(number, first)
    try:
        yield mine
    except BaseException:
        for child, _ in mine.children:
            child.terminate()
        raise
    finally:
        mine.pool.shutdown(cancel_futures=True)
        for draft in [draft for _, pid in mine.children for draft in place.glob(f"{DRAFT}{pid}-*")]:
            draft.unlink(missing_ok=True)


def _result(found: "Future[R] | None", lost: Callable[[T], R], task: T) -> R:
    if found is not None:
        with suppress(BrokenProcessPool):
            return found.result()
    return lost(task)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started inside does not hear Ctrl-C, which this process hears, and ends it."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set what a signal does
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)

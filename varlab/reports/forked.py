"""Processes of a batch: forks of one that has imported what reports need and loaded the models that several name.

A kernel of its own waits seconds for its imports. Here multiprocessing's fork server, a process without threads, does
that once. A report gets two fresh forks of it: one runs the notebook, the other is its kernel, a process, a namespace
and memory of its own, which ends with the first. What none of them writes to lies in memory once.
"""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from threading import Thread
from typing import ClassVar

from varlab.runs.watched import LOADED

FORKS = sys.platform not in ("darwin", "win32")  # macOS: what its libraries began does not outlive a fork
PRELOADED = (
    "ipykernel.kernelapp", "varlab.api", "varlab.figures", "varlab.claims", "zarr", "dask.array", "distributed",
    "IPython.core.pylabtools", "matplotlib.backends.backend_pdf", "fontTools.subset", "papermill",
    "varlab.reports.page", "varlab.runs.warm",
)  # fmt: skip


def processes(environment: Mapping[str, str], models: Sequence[str] = ()) -> BaseContext:
    """What makes the processes of reports: forks, where the system can, of one that imports with this ``environment``.

    That one stays while this process does, and serves later batches too; it holds about 0.4 GB.
    """
    if not FORKS:
        return multiprocessing.get_context("spawn")
    context, former = multiprocessing.get_context("forkserver"), dict(os.environ)
    context.set_forkserver_preload(["__main__", *PRELOADED])
    os.environ.update(environment, **{LOADED: " ".join(models)})
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(former)
    return context


@dataclass(frozen=True)
class Kernel:
    """A forked kernel as ``subprocess.Popen`` would show it, for the process at the other end of ``line``."""

    pid: int
    line: Connection  # once closed, also by the end of whoever holds it, the kernel ends
    stdin: ClassVar[None] = None
    stdout: ClassVar[None] = None
    stderr: ClassVar[None] = None

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.line.send((list(arguments), dict(environment), folder))

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 1
        return None

    wait = poll  # LocalProvisioner asks once poll says that it ended

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_mine: Kernel | None = None


def new_kernel(context: BaseContext) -> Kernel | None:
    """A fork that waits to be launched; None where kernels are started by their command."""
    if context.get_start_method() != "forkserver":
        return None
    line, other = context.Pipe()
    process = context.Process(target=_run, args=(other,))  # type: ignore[attr-defined]
    process.start()
    other.close()
    return Kernel(process.pid, line)


def take(kernel: Kernel | None) -> None:
    """It is for the notebook that this process runs."""
    global _mine
    _mine = kernel


def taken() -> Kernel | None:
    """That which waits for the notebook of this process."""
    return _mine


def _run(line: Connection) -> None:
    """The kernel, in the forked process."""
    import torch
    from ipykernel import kernelapp

    os.setsid()  # its own children get its signals, and it none of a terminal
    try:
        arguments, environment, folder = line.recv()
    except EOFError:
        return
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads(environment["OMP_NUM_THREADS"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Thread(target=_leave_with, args=(line,), daemon=True).start()
    sys.argv = arguments
    kernelapp.launch_new_instance()
    atexit._run_exitfuncs()  # multiprocessing runs none in a fork of its server


def threads(asked: str) -> int:
    """As many as OpenMP would take: the first of a list, and all where it does not understand what is asked."""
    first = asked.split(",")[0].strip()
    return int(first) if first.isdecimal() and 0 < int(first) < 1 << 31 else os.cpu_count() or 1


def _leave_with(line: Connection) -> None:
    """A kernel whose notebook's runner was killed would wait for ever."""
    try:
        line.recv()
    except (EOFError, OSError):
        os._exit(1)

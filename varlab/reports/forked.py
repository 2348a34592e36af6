"""Kernels of a batch: forked from one process that has imported what reports need.

The first cell of a kernel of its own waits seconds for its imports. Here multiprocessing's fork server, a process
without threads, imports once; each notebook gets a fresh fork of it: a process, a namespace and memory of its own,
which ends with the notebook.
"""

import atexit
import gc
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from threading import Thread
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

PRELOADED = (
    "ipykernel.kernelapp", "varlab.api", "varlab.figures", "varlab.claims", "varlab.reports", "zarr", "dask.array",
    "matplotlib.backends.backend_pdf", "fontTools.subset",
)  # fmt: skip
_served = False


def serve(environment: Mapping[str, str]) -> None:
    """Start this process's fork server; ``environment`` is what the imports are to see. Kernels are forked from now on,
    where the system can."""
    global _served
    if _served or "forkserver" not in multiprocessing.get_all_start_methods():
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    former = dict(os.environ)
    os.environ.update(environment)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(former)
    _served = True


def served() -> bool:
    """Whether kernels are forked in this process."""
    return _served


class Forked(LocalProvisioner):
    """Starts a kernel by a fork, in place of a command."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        arguments = [*cmd[cmd.index("ipykernel_launcher") :], "--IPKernelApp.parent_handle=0"]
        self.cwd = kwargs.get("cwd") or Path.cwd()
        kernel = Kernel(arguments, kwargs["env"], self.cwd)
        self.process = kernel  # type: ignore[assignment]
        self.pid = self.pgid = kernel.pid
        return self.connection_info


class Kernel:
    """A forked kernel as ``subprocess.Popen`` would show it."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run, args=(list(arguments), dict(environment), folder))
        self._process.start()
        self.pid = int(self._process.pid or 0)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """The kernel, in the forked process."""
    import sys

    from ipykernel import kernelapp

    gc.freeze()  # collections need not look through all that was imported
    os.setsid()  # its own children get its signals
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Thread(target=_leave_with_parent, daemon=True).start()
    sys.argv = arguments
    kernelapp.launch_new_instance()
    atexit._run_exitfuncs()  # multiprocessing runs none in a fork of its server


def _leave_with_parent() -> None:
    """A kernel whose notebook's runner was killed would wait for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)

"""Tasks on dask: in this process, on a local cluster, or on one that is there; retried, counted, never doubled."""

import logging
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import dask
from distributed import Client, LocalCluster, as_completed
from distributed.scheduler import KilledWorker
from distributed.utils import get_mp_context, silence_logging_cmgr

from varlab.errors import VarlabError, cause, quoted
from varlab.runs.store import StoreLost
from varlab.sweeps.shards import Task
from varlab.sweeps.work import Outcome, Work, work

TRIES = 3
AHEAD = 4  # tasks a thread that are handed over before they are needed, 64 at least: the rest waits here, not there
CONNECT = 10  # seconds to find a cluster
FORKS = "spawn" if sys.platform == "win32" else "forkserver"  # of one process that has loaded torch: back at once
LOCAL = {
    "distributed.worker.multiprocessing-method": FORKS,
    "distributed.scheduler.allowed-failures": 0,  # a lost worker counts as one try of its task, and is counted here
    "distributed.scheduler.worker-saturation": 1.0,  # a task at a time: only the one that runs is to blame
    "distributed.dashboard.link": "{scheme}://127.0.0.1:{port}/status",
    "distributed.comm.timeouts.connect": f"{CONNECT}s",
}
Tell = Callable[[str], Any]


@dataclass
class Failure:
    """A task that was tried ``TRIES`` times."""

    task: Task
    error: str
    trace: str = ""


@dataclass
class Tally:
    """How far a sweep is: tasks done and in all, failures for good, tries that failed."""

    total: int
    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    retried: int = 0


def followed(move: Callable[[str, float, int], Any], tell: Tell) -> Callable[[Tally], None]:
    """What moves a bar of tasks, and tells each that failed for good."""
    failed = 0

    def progress(tally: Tally) -> None:
        nonlocal failed
        move("tasks", tally.done + len(tally.failures), tally.total)
        for failure in tally.failures[failed:]:
            tell(f"failed: {failure.task.shards[0].label}: {failure.error}")
        failed = len(tally.failures)

    return progress


def _start_forks() -> None:
    """Local workers are forks of a process that Ctrl-C does not reach: the client ends them, and they say nothing."""
    from multiprocessing import forkserver

    get_mp_context().set_forkserver_preload(["distributed", work.__module__])
    if threading.current_thread() is not threading.main_thread():  # which alone may set what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@contextmanager
def connected(workers: int, cluster: str | None, tell: Tell) -> Iterator[Client]:
    """A client of dask; a cluster that is made here ends with it."""
    with ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))  # tracebacks of dask's own for what is told here
        if cluster is not None:
            try:
                client = stack.enter_context(Client(cluster, timeout=CONNECT))
            except (OSError, ValueError) as error:
                raise VarlabError(
                    f"There is no cluster at {cluster} ({cause(error)}). Start it: dask scheduler."
                ) from error
        else:
            stack.enter_context(dask.config.set(LOCAL))
            if FORKS == "forkserver" and workers:
                _start_forks()
            local = LocalCluster(
                n_workers=max(1, workers), threads_per_worker=1, processes=workers > 0,
                memory_limit="auto" if workers else None, dashboard_address="127.0.0.1:0", silence_logs=50,
            )  # fmt: skip
            client = stack.enter_context(Client(stack.enter_context(local)))
        tell(f"dashboard: {client.dashboard_link}")
        yield client


def refuse_cluster(
    client: Client, unfit: Callable[[Any], str], plan: Any, resources: dict[str, float] | None, tell: Tell
) -> None:
    """Raises VarlabError where the workers offer no resource of the kind, or one of them says what it lacks."""
    workers = client.scheduler_info()["workers"].values()
    for name in resources or ():
        if workers and not any(name in worker["resources"] for worker in workers):
            raise VarlabError(f"No worker of the cluster offers a {name}. Start them with --resources {name}=1.")
    if not workers:
        tell("the cluster has no worker yet; waiting for one")
    try:
        said = client.submit(unfit, plan, pure=False, resources=resources).result()
    except Exception as error:  # of dask, or of a worker without varlab
        said = " ".join(cause(error).split())
        raise VarlabError(f"A worker of the cluster cannot run varlab: {said} Install this varlab there.") from error
    if said:
        raise VarlabError(f"A worker of the cluster says: {said}")


def run_all(
    client: Client,
    tasks: Iterable[tuple[Task | None, list[Task]]],
    tally: Tally,
    arguments: tuple[str, ...],
    *,
    progress: Callable[[Tally], Any],
    resources: dict[str, float] | None = None,
    act: Work = work,
) -> None:
    """All tasks; those that need images that another draws come after it.

    A task whose try fails, or whose worker is lost, is tried again up to ``TRIES`` times; then it is noted and the
    rest goes on. One of several methods is tried again method by method, so that only the one to blame is noted.
    Raises StoreLost when nothing can be written any more, and VarlabError when the cluster is gone.
    """
    ready, waiting = deque[Task](), iter(tasks)
    after: dict[Task, list[Task]] = {}
    tries: dict[Task, int] = {}
    running: dict[Any, Task] = {}
    completed = as_completed()
    threads = sum(client.nthreads().values()) or 1

    def fill() -> None:
        while len(running) < max(64, AHEAD * threads):
            if not ready:
                first, rest = next(waiting, (None, []))
                if first is not None:
                    after[first] = rest
                    ready.append(first)
                elif rest:
                    ready.extend(rest)
                else:
                    return
            task = ready.popleft()
            future = client.submit(act, task, *arguments, pure=False, resources=resources)
            running[future] = task
            completed.add(future)

    fill()
    while running:
        future = next(completed)
        task, outcome = running.pop(future), _outcome(future)
        if outcome.stops:
            client.cancel(list(running))
            raise StoreLost(outcome.error)
        if outcome.error and len(task.shards) > 1 and not task.draws:
            ready.extend(replace(task, shards=(shard,)) for shard in task.shards)
            tally.total += len(task.shards) - 1
            tally.retried += 1
        elif outcome.error and tries.setdefault(task, 1) < TRIES:
            tries[task] += 1
            tally.retried += 1
            ready.append(task)
        elif outcome.error:
            tally.failures.append(Failure(task, outcome.error, outcome.trace))
            for needing in after.pop(task, []):
                tally.failures.append(Failure(needing, "its dense images could not be drawn"))
        else:
            tally.done += 1
            ready.extendleft(reversed(after.pop(task, [])))
        progress(tally)
        fill()


def _outcome(future: Any) -> Outcome:
    """What a task answered; of one that could not, why."""
    try:
        answer = future.result()
    except KilledWorker as error:
        last = f" on {error.last_worker.address}" if getattr(error, "last_worker", None) is not None else ""
        return Outcome(f"its worker{last} was lost: it ended, or memory ran out")
    except Exception as error:  # of dask itself
        if future.status in ("cancelled", "lost"):
            raise VarlabError(
                "The cluster is gone. What is done stays; the same command goes on from there."
            ) from error
        return Outcome(f"{type(error).__name__}: {error}")
    finally:
        future.release()
    return answer if isinstance(answer, Outcome) else Outcome(f"unexpected answer {quoted(answer)}")

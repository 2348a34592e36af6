"""A sweep without its pictures: what its scheduler, its workers and its store cost a shard."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from varlab.comparison.bench import FIDELITY
from varlab.machine import peak_mib, reset_peak
from varlab.markup import count
from varlab.runs.inputs import at_least
from varlab.runs.store import Store, sealed, unsealed
from varlab.sweeps.file import read_plan
from varlab.sweeps.run import DENSE_IMAGES, Given, run_shards
from varlab.sweeps.scheduler import Tally
from varlab.sweeps.shards import Shard, Task
from varlab.sweeps.work import RECORD, SHARDS, Outcome, refuse_lost

PARTS = 10  # of a rehearsal: from the first to the last of them, cost must not grow


@dataclass(frozen=True)
class Rehearsal:
    """``milliseconds`` of processor time a shard, this process's own for each tenth, and all with that of its workers;
    ``peak_mib`` of this process; seconds of ``listing`` the store."""

    shards: int
    tasks: int
    tenths: tuple[float, ...]
    milliseconds: float
    peak_mib: float
    listing: float

    def line(self) -> str:
        return (
            f"{count(self.shards, 'shard')} in {count(self.tasks, 'task')}: {self.milliseconds:.2f} ms of processor "
            f"time a shard beside its pictures; {min(self.tenths):.2f} to {max(self.tenths):.2f} in here by tenths, "
            f"the last {self.tenths[-1]:.2f}; at most {self.peak_mib:.0f} MiB, and {self.listing:.2f} s to list the "
            "store"
        )


def rehearse(
    given: Given,
    folder: Path = Path(),
    *,
    workers: int = 0,
    cluster: str | None = None,
    progress: Callable[[Tally], Any] = lambda tally: None,
    tell: Callable[[str], Any] = lambda line: None,
) -> Rehearsal:
    """Run the shards of a plan with tasks that draw nothing: each looks for the record, then writes its rows.

    Parameters
    ----------
    given, workers, cluster, progress, tell
        As ``sweep`` takes them. The processor time is that of this process and of workers of its own.
    folder
        Where a store is made, and removed again; all workers must see it.

    Raises
    ------
    VarlabError
        As ``sweep`` does before any work.
    """
    at_least(0, workers=workers)
    plan, marks, device = read_plan(given), list[tuple[int, float]](), torch.device("cpu")

    def mark(tally: Tally) -> None:
        if tally.done * PARTS >= tally.total * len(marks):
            marks.append((tally.done, time.process_time()))
        progress(tally)

    with TemporaryDirectory(prefix="rehearsal-", dir=folder) as place:
        store = Store.at(place)
        store.write(RECORD, b"{}")
        forgot, before = reset_peak(device), _spent()
        marks.append((0, time.process_time()))
        tally = run_shards(plan, store, store.child(DENSE_IMAGES), workers, cluster, mark, tell, write_rows)
        spent, start = _spent() - before, time.perf_counter()
        there = len(store.names(SHARDS))
        listing = time.perf_counter() - start
    done, seconds = np.diff(np.array(marks), axis=0).T
    tenths = 1000 * seconds / (done * there / tally.done)
    return Rehearsal(there, tally.done, tuple(tenths.tolist()), 1000 * spent / there, peak_mib(device, forgot), listing)


def write_rows(task: Task, place: str, dense: str) -> Outcome:
    """A worker's part beside the pictures."""
    store = Store.at(place)
    refuse_lost(store)
    shards = store.child(SHARDS)
    for shard in task.shards:
        if unsealed(shards.read(shard.name)) is None:
            shards.write(shard.name, sealed(_rows(shard).to_csv(index=False)))
    return Outcome()


def _rows(shard: Shard) -> pd.DataFrame:
    count = len(shard.images.texts)
    numbers = dict.fromkeys((*FIDELITY, "correct"), 0.123456789)
    return pd.DataFrame({"prompt": range(shard.images.first, shard.images.first + count), "flops": 10**11} | numbers)


def _spent() -> float:
    """Seconds of processor time of this process and of those that it began and that ended."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)

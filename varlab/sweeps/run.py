"""One sweep from its file to its tables: checked whole, resumed, shared out, merged."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.errors import VarlabError
from varlab.locks import one_writer
from varlab.markup import count
from varlab.progress import Lines, in_notebook
from varlab.runs.inputs import at_least
from varlab.runs.origins import git_state
from varlab.runs.store import Store
from varlab.sweeps.file import Plan, read_plan, refuse_changes
from varlab.sweeps.merge import as_csv, method_rows, prompt_rows
from varlab.sweeps.predict import refuse_what_cannot_run, refuse_what_has_no_room, unfit
from varlab.sweeps.scheduler import Failure, Tally, connected, followed, refuse_cluster, run_all
from varlab.sweeps.shards import Shard, Task, shards_of, tasks_of
from varlab.sweeps.work import RECORD, SHARDS, Work, work
from varlab.writing import check_writable

TABLE, PROMPTS, DENSE_IMAGES = "table.csv", "prompts.csv", "dense"
OWN = re.compile(r"shards/[0-9a-f]{20}\.csv|dense/[0-9a-f]{20}\.npy")
Given = Path | str | Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """``table``: a row a method on each model, setting, prompt set and seed; ``prompts``: a row a prompt. ``failures``
    were tried three times; their rows are missing. ``place``: the store, with both tables."""

    table: pd.DataFrame
    prompts: pd.DataFrame
    failures: tuple[Failure, ...]
    place: str

    def __repr__(self) -> str:
        shown = ["model", "settings", "seed", "method", "n", "work_ratio", "ssim", "ssim_low", "ssim_high"]
        failed = f", {count(len(self.failures), 'failure')}" if self.failures else ""
        body = self.table[shown].to_string(index=False) if len(self.table) else "no rows"
        return f"Sweep in {self.place}: {count(len(self.table), 'row')}{failed}\n{body}"


def sweep(
    given: Given,
    out: Path | str,
    *,
    workers: int = 0,
    cluster: str | None = None,
    dense: Path | str | None = None,
    extend: bool = False,
    wait: bool = True,
    progress: Callable[[Tally], Any] | None = None,
    tell: Callable[[str], Any] | None = None,
    act: Work = work,
) -> Sweep:
    """Models x specs x settings x prompt sets x seeds, in shards that no interruption loses.

    Parameters
    ----------
    given
        A YAML file, or what one would hold; see ``Plan``.
    out
        A folder that all workers see, or a URL that fsspec knows. The same call goes on where it was stopped.
    workers
        Processes of one torch thread each; 0 is this process. Memory grows with them.
    cluster
        The address of a dask scheduler that is there, in place of workers of one's own.
    dense
        Another store for the dense images, so that several sweeps share them.
    extend
        Whether a store of fewer models, specs, settings, prompt sets or seeds takes the new ones in.
    wait
        Whether to wait while another sweep writes in the folder; else it is refused.
    progress, tell
        Called with the tally after each task, and with lines for people. By default a notebook prints both, with the
        time that is left, and nothing else does.

    Raises
    ------
    VarlabError
        Before any work, for a file that does not fit; a store of another plan; a cluster that is not there or ends; a
        store that cannot be written any more. What is done stays.

    Examples
    --------
    >>> vl.sweep("study.yaml", "runs/study", workers=2)
    """
    at_least(0, workers=workers)
    tell = tell or (print if in_notebook() else lambda line: None)
    progress = progress or (followed(Lines(), tell) if in_notebook() else lambda tally: None)
    plan, store = read_plan(given), Store.at(out)
    held = _record(store)
    if held is not None:
        refuse_changes(held["plan"], plan, extend, store.place)
    elif store.folder is not None and _holds_others(store.folder):
        raise VarlabError(f"{store.place} is not empty and holds no sweep. Give another folder.")
    shards = shards_of(plan)
    refuse_what_has_no_room(plan, shards, store)
    if cluster is None:
        refuse_what_cannot_run(plan, workers)
    images = Store.at(dense) if dense is not None else store.child(DENSE_IMAGES)
    with _alone(store, wait):
        if (held := _record(store)) is not None:  # another process may have begun it meanwhile
            refuse_changes(held["plan"], plan, extend, store.place)
        facts = {"plan": plan.as_dict(), "shards": len(shards), "git": git_state()}
        facts |= {"latency": "not measured in a sweep: see varlab compare"}

        def begin() -> None:  # nothing is written for a cluster that is not there, or cannot run the plan
            if held is None or held["plan"] != facts["plan"]:
                store.write(RECORD, json.dumps(facts, indent=1).encode())

        tally = run_shards(plan, store, images, workers, cluster, progress, tell, act, begin)
        return _merged(store, shards, tally)


def run_shards(
    plan: Plan, store: Store, images: Store, workers: int, cluster: str | None,
    progress: Callable[[Tally], Any], tell: Callable[[str], Any], act: Work, begin: Callable[[], Any] = lambda: None,
) -> Tally:  # fmt: skip
    """Those that are not there, on workers that end with this; ``begin`` is called once these can run the plan."""
    there = store.names(SHARDS)
    todo = list(_missing(plan, there))
    total = sum(1 + len(rest) if first is not None else len(rest) for first, rest in todo)
    tally = Tally(total)
    if not total:
        begin()
        return tally
    with connected(workers, cluster, tell) as client:
        gpu = {"GPU": 1.0} if cluster is not None and plan.device.startswith("cuda") else None
        if cluster is not None:
            refuse_cluster(client, unfit, plan, gpu, tell)
        begin()
        run_all(client, todo, tally, (store.absolute, images.absolute), progress=progress, resources=gpu, act=act)
    return tally


def _missing(plan: Plan, there: set[str]) -> Iterator[tuple[Task | None, list[Task]]]:
    """The tasks with what is not there yet; what is there is read at the end, and made again if it is damaged."""
    for first, rest in tasks_of(plan):
        left = tuple(shard for shard in first.shards if shard.name not in there)
        needing = [task for task in rest if any(shard.name not in there for shard in task.shards)]
        if left or needing:
            yield replace(first, shards=left) if left else None, needing


def _merged(store: Store, shards: Sequence[Shard], tally: Tally) -> Sweep:
    rows, lacking = prompt_rows(store, shards)
    failed = {shard.name for failure in tally.failures for shard in failure.task.shards}
    if lost := [shard for shard in lacking if shard.name not in failed]:
        for shard in lost:
            _drop(store, shard)
        raise VarlabError(
            f"{count(len(lost), 'shard')} of {store.place} cannot be read, the first: {lost[0].label}. "
            "The same command makes them again."
        )
    table = method_rows(rows)
    store.write(PROMPTS, as_csv(rows))
    store.write(TABLE, as_csv(table))
    return Sweep(table, rows, tuple(tally.failures), store.place)


def _drop(store: Store, shard: Shard) -> None:
    """A damaged shard counts as one that is not there."""
    name = f"{SHARDS}/{shard.name}"
    if store.exists(name):
        store.remove(name)


def _record(store: Store) -> dict[str, Any] | None:
    """The record of the sweep that a store was begun with; None where one may begin."""
    data = store.read(RECORD)
    if data is None:
        return None
    try:
        found: dict[str, Any] = json.loads(data)
        found["plan"].items()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise VarlabError(f"{store.place}/{RECORD} is damaged ({error!r}). Give another folder.") from error
    return found


def _holds_others(folder: Path) -> bool:
    """Whether a folder holds more than what is left where a store vanished while it was written in."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return any(not OWN.fullmatch(path.relative_to(folder).as_posix()) for path in files)


@contextmanager
def _alone(store: Store, wait: bool) -> Iterator[None]:
    """One sweep a folder at a time. A store elsewhere has no lock: two sweeps in it do the same work twice, no harm."""
    if store.folder is None:
        yield
        return
    check_writable(store.folder)
    with one_writer(store.folder, wait=wait):
        yield

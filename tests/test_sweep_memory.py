"""A worker that asks for more memory than it has is ended by dask; its task alone is reported, and the rest goes on."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster

from tests.sweep_plans import PLAN
from varlab.sweeps import sweep
from varlab.sweeps.shards import Task
from varlab.sweeps.work import Outcome, work

GREEDY = "sparsevar:keep=0.49"
SMALL = PLAN | {"prompts": [{"set": "scenes", "n": 2}]}


def greedy(task: Task, place: str, dense: str) -> Outcome:
    """As a method that needs more than the machine has."""
    if GREEDY in [shard.spec for shard in task.shards]:
        held = np.ones(2**31, np.uint8)
        time.sleep(120)  # it is ended long before
        assert held.all()
    return work(task, place, dense)


@pytest.mark.slow
def test_a_worker_out_of_memory_is_ended_and_only_its_task_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(**given: Any) -> LocalCluster:
        return LocalCluster(**{**given, "memory_limit": "1400MiB"})

    monkeypatch.setattr("varlab.sweeps.scheduler.LocalCluster", limited)
    made = sweep(SMALL, tmp_path / "s", workers=1, act=greedy)
    assert [failure.task.shards[0].spec for failure in made.failures] == [GREEDY]
    assert "memory ran out" in made.failures[0].error
    assert set(made.table.method) == {"none", *PLAN["specs"]} - {GREEDY}
    again = sweep(SMALL, tmp_path / "s", workers=1)  # as it is meant to be: nothing is lost
    assert not again.failures and set(again.table.method) == {"none", *PLAN["specs"]}

"""What several methods of a sweep share is computed once, and changes no number and no blame."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.minis import nano  # noqa: F401  (a fixture)
from tests.sweep_plans import PLAN
from tests.test_sweeps import fails_on
from varlab.engine.loop import Run
from varlab.sweeps import sweep
from varlab.sweeps.file import read_plan
from varlab.sweeps.shards import TOGETHER, tasks_of

SPARSE = ["sparsevar:keep=0.49", "sparsevar:keep=0.27,last=2", "sparsevar:tau=0.9,last=1+cfg-off:last=2"]
SMALL = PLAN | {"specs": SPARSE, "prompts": [{"set": "scenes", "n": 2}]}
pytestmark = pytest.mark.usefixtures("nano")


def stages_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    ran: list[int] = []
    plain = Run.run_stage

    def counting(self: Run, state: Any, k: int, plan: Any) -> None:
        ran.append(k)
        plain(self, state, k, plan)

    monkeypatch.setattr(Run, "run_stage", counting)
    return ran


def test_methods_that_wait_share_their_first_stages_and_keep_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = stages_run(monkeypatch)
    together = sweep(SMALL, tmp_path / "together")
    shared = len(ran)
    assert ran.count(0) == 2  # once for the dense run, once for all three
    for spec in SPARSE:
        alone = sweep(SMALL | {"specs": [spec]}, tmp_path / spec, dense=tmp_path / "together" / "dense")
        own = together.prompts[together.prompts.method == spec].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone.prompts[alone.prompts.method == spec].reset_index(drop=True))
    assert len(ran) > 2 * shared


def test_many_methods_are_several_tasks() -> None:
    specs = [f"sparsevar:keep={k / 100:g},last=1" for k in range(10, 10 + TOGETHER + 1)]
    ((_, rest),) = list(tasks_of(read_plan(SMALL | {"specs": [*specs, "fastvar"]})))
    assert [len(task.shards) for task in rest] == [TOGETHER, 1, 1]


def test_of_several_that_share_only_the_one_to_blame_fails(tmp_path: Path) -> None:
    made = sweep(SMALL, tmp_path / "s", act=partial(fails_on, SPARSE[1]))
    assert [failure.task.shards[0].spec for failure in made.failures] == [SPARSE[1]]
    assert set(made.table.method) == {"none", SPARSE[0], SPARSE[2]}


def test_work_is_right_where_the_store_lost_the_dense_images(tmp_path: Path) -> None:
    whole = sweep(SMALL | {"specs": ["fastvar-all-scales:ratios=0.5"]}, tmp_path / "s")
    for file in (tmp_path / "s" / "dense").iterdir():
        file.unlink()
    for shard in (tmp_path / "s" / "shards").iterdir():
        if f"{whole.prompts[whole.prompts.method != 'none'].flops.iloc[0]}" in shard.read_text():
            shard.unlink()
    again = sweep(SMALL | {"specs": ["fastvar-all-scales:ratios=0.5"]}, tmp_path / "s")
    pd.testing.assert_frame_equal(again.prompts, whole.prompts)

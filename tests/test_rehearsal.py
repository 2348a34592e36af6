"""A rehearsed sweep runs its shards on the real scheduler, draws nothing and leaves nothing."""

from pathlib import Path
from typing import Any

import pytest

from varlab.errors import VarlabError
from varlab.sweeps import read_plan, rehearse
from varlab.sweeps.run import run_shards
from varlab.sweeps.shards import shards_of, tasks_of

PLAN: dict[str, Any] = {
    "models": ["nano-infinity"], "specs": ["none", "truncate:last=1"], "prompts": [{"set": "scenes", "n": 5}],
    "seeds": [0, 1, 2], "shard": 2,
}  # fmt: skip


def test_every_shard_is_written_and_the_folder_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("varlab.sweeps.work.load", lambda *_, **__: pytest.fail("a model was loaded"))
    written = list[set[str]]()

    def watched(plan: Any, store: Any, *others: Any) -> Any:
        tally = run_shards(plan, store, *others)
        written.append(store.names("shards"))
        return tally

    monkeypatch.setattr("varlab.sweeps.rehearsal.run_shards", watched)
    found = rehearse(PLAN, tmp_path)
    plan = read_plan(PLAN)
    assert written == [{shard.name for shard in shards_of(plan)}] and found.shards == len(written[0]) == 18
    assert found.tasks == sum((first is not None) + len(rest) for first, rest in tasks_of(plan))
    assert found.milliseconds > 0 and all(part >= 0 for part in found.tenths) and "18 shards" in found.line()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(VarlabError, match="truncat"):
        rehearse(PLAN | {"specs": ["truncat"]}, tmp_path)
    assert list(tmp_path.iterdir()) == []

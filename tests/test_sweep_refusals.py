"""What is refused before a sweep begins: files that are none, changes of them, clusters that lack something."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from tests.minis import nano  # noqa: F401  (a fixture)
from tests.sweep_plans import PLAN
from varlab.errors import VarlabError
from varlab.runs.store import StoreLost
from varlab.sweeps import read_plan, sweep
from varlab.sweeps.file import refuse_changes
from varlab.sweeps.scheduler import refuse_cluster
from varlab.sweeps.shards import Task
from varlab.sweeps.work import Outcome

pytestmark = pytest.mark.usefixtures("nano")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modles": ["nano-infinity"]}, "Unknown key of a sweep 'modles'. Did you mean models"),
        ({"models": []}, "needs models"),
        ({"models": ["nano-infinty"]}, "Did you mean nano-infinity"),
        ({"models": [3]}, "models takes texts"),
        ({"specs": ["trunkate:last=1"]}, "Did you mean truncate"),
        ({"specs": ["none", "none"]}, "holds 'none' twice"),
        ({"settings": [{"cgf": 3}]}, "cfg"),
        ({"settings": ["cfg"]}, "settings takes mappings"),
        ({"prompts": [{"set": "scene"}]}, "scenes"),
        ({"prompts": [{"set": "scenes", "m": 2}]}, "Unknown key of prompts 'm'"),
        ({"prompts": [{"set": "scenes", "n": 0}]}, "at least 1"),
        ({"seeds": [-1]}, "at least 0"),
        ({"seeds": [0.5]}, "whole numbers"),
        ({"seeds": []}, "seeds is empty"),
        ({"shard": 0}, "shard must be at least 1"),
        ({"shard": "many"}, "shard must be a whole number"),
        ({"precision": "fp8"}, "precision"),
        ({"precision": "bf16-diffusion"}, "no diffusion head"),
        ({"device": "tpu"}, "cannot be used"),
        ({"init": "checkpont"}, "Did you mean checkpoint"),
    ],
)
def test_a_file_is_checked_whole_before_any_work(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(VarlabError) as error:
        sweep(PLAN | change, tmp_path / "out", workers=2)
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"), [("models: [", "is no YAML"), ("- a", "must hold keys"), (None, "cannot be read")]
)
def test_what_is_no_file_of_a_sweep_is_said(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "study.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(VarlabError, match=said):
        read_plan(file)


def test_a_changed_file_is_refused_by_field_and_may_only_grow() -> None:
    held = json.loads(json.dumps(read_plan(PLAN).as_dict()))
    refuse_changes(held, read_plan(PLAN), False, "x")
    more = read_plan(PLAN | {"seeds": [3, 4]})
    with pytest.raises(VarlabError, match=r"different: seeds; seeds there: \[3\].*--extend"):
        refuse_changes(held, more, False, "x")
    refuse_changes(held, more, True, "x")
    for n in (6, None):
        refuse_changes(held, read_plan(PLAN | {"prompts": [{"set": "scenes", "n": n}]}), True, "x")
    for change in (
        {"seeds": [4]},
        {"shard": 3},
        {"seeds": [3, 4], "shard": 3},
        {"prompts": [{"set": "scenes", "n": 3}]},
        {"prompts": [{"set": "scenes", "n": 6, "first": 1}]},
    ):
        with pytest.raises(VarlabError, match="holds another sweep"):
            refuse_changes(held, read_plan(PLAN | change), True, "x")


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("varlab.sweeps.scheduler.CONNECT", 1)
    with pytest.raises(VarlabError, match="There is no cluster at"):
        sweep(PLAN, tmp_path / "s", cluster="tcp://127.0.0.1:9")
    assert not (tmp_path / "s").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster whose one worker offers a GPU and has none."""
    with LocalCluster(
        n_workers=1, processes=False, resources={"GPU": 1}, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as made:  # type: ignore[no-untyped-call]
        yield made.scheduler.address


def test_what_a_cluster_lacks_is_said_before_anything_is_written(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(VarlabError, match="A worker of the cluster says: device 'cuda:9' cannot be used"):
        sweep(PLAN | {"device": "cuda:9"}, tmp_path / "s", cluster=cluster)
    with Client(cluster) as client:  # type: ignore[no-untyped-call]
        with pytest.raises(VarlabError, match=r"offers a TPU\. Start them with --resources TPU=1"):
            refuse_cluster(client, str, "", {"TPU": 1}, print)
        with pytest.raises(VarlabError, match=r"cannot run varlab: No module named .* Install"):
            refuse_cluster(client, fails_on_import, "", None, print)
    assert not (tmp_path / "s").exists()


def fails_on_import(_: Any) -> str:
    raise ModuleNotFoundError("No module named 'varlab'")


PLACES: list[str] = []


def places_of(task: Task, place: str, dense: str) -> Outcome:
    PLACES.extend((place, dense))
    return Outcome("enough", stops=True)


def test_a_place_that_is_typed_short_is_whole_for_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreLost, match="enough"):
        sweep(PLAN, "s", act=places_of)
    assert set(PLACES) == {str(tmp_path / "s"), str(tmp_path / "s" / "dense")}

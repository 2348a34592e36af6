"""Runs: resumable folders, provenance, prompts and settings that are checked before any work."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import varlab as vl
from tests.minis import refused
from tests.toy_runs import PROBES, PROMPTS, Telling, model  # noqa: F401
from varlab.accelerators.baselines import Truncate
from varlab.accelerators.fastvar import FastVAR
from varlab.engine.hooks import Accelerator
from varlab.errors import VarlabError
from varlab.models.infinity_model import Infinity
from varlab.runs import LOG_VERSION, folders, log_run, sample
from varlab.runs import run as runs
from varlab.runs.folders import open_log
from varlab.runs.provenance import record_of, stage_seconds
from varlab.writing import check_writable


def same(a: xr.DataTree, b: xr.DataTree) -> bool:
    paths = {node.path for node in a.subtree}
    return paths == {node.path for node in b.subtree} and all(
        np.array_equal(values, b[f"{path}/{name}"].to_numpy(), equal_nan=True)
        for path in paths
        for name, values in a[path].data_vars.items()
    )


def test_a_cut_run_goes_on_and_ends_as_an_uncut_one(
    model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = log_run(model, PROMPTS, tmp_path / "whole", probes=PROBES, batch=2)
    work = runs.Job.run

    def cut(self: runs.Job, samples: range):  # type: ignore[no-untyped-def]
        if samples.start == 2:
            raise KeyboardInterrupt
        return work(self, samples)

    monkeypatch.setattr(runs.Job, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        log_run(model, PROMPTS, tmp_path / "cut", probes=PROBES, batch=2)
    monkeypatch.setattr(runs.Job, "run", work)
    again = log_run(model, PROMPTS, tmp_path / "cut", probes=PROBES, batch=2)
    assert same(whole, again)
    assert len(list((tmp_path / "cut" / "images").glob("*.png"))) == len(PROMPTS)


def test_a_cut_run_whose_previews_had_another_size_is_refused_after_one_batch(
    model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stage changes in small previews and in large ones are other numbers, of one shape."""
    work, drawn = runs.Job.run, list[int]()

    def cut(self: runs.Job, samples: range):  # type: ignore[no-untyped-def]
        if samples.start == 1:
            raise KeyboardInterrupt
        return work(self, samples)

    def counted(self: runs.Job, samples: range):  # type: ignore[no-untyped-def]
        drawn.append(samples.start)
        return work(self, samples)

    monkeypatch.setattr(runs.Job, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        log_run(model, PROMPTS, tmp_path / "cut", probes="step-redundancy", batch=1)
    monkeypatch.setattr(runs.Job, "run", counted)
    monkeypatch.setattr("varlab.probes.base.preview_grid", lambda final, stride: (2 * final[0], 2 * final[1]))
    with pytest.raises(VarlabError, match=r"cut was begun with previews of (\d+) x \1 pixels, in 000001.npz they"):
        log_run(model, PROMPTS, tmp_path / "cut", probes="step-redundancy", batch=1)
    assert drawn == [1] and len(PROMPTS) > 2


def test_a_finished_run_is_opened_not_repeated(
    model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_run(model, PROMPTS[:2], tmp_path / "run", probes=PROBES)
    monkeypatch.setattr(runs.Job, "run", lambda *_: pytest.fail("sampled again"))
    tree = log_run(model, PROMPTS[:2], tmp_path / "run", probes=PROBES)
    assert tree.attrs["weights"] == "random (seed 0)" and tree.attrs["n"] == 2


def test_half_a_run_can_be_read(model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = runs.Job.run

    def second_fails(self: runs.Job, samples: range):  # type: ignore[no-untyped-def]
        if samples.start:
            raise KeyboardInterrupt
        return work(self, samples)

    monkeypatch.setattr(runs.Job, "run", second_fails)
    with pytest.raises(KeyboardInterrupt):
        log_run(model, PROMPTS, tmp_path / "run", probes=PROBES, batch=2)
    assert open_log(tmp_path / "run")["token-mse"].sizes["prompt"] == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed"), ({"cfg": 4.0}, "settings"), ({"probes": ("token-mse",)}, "probes")],
)
def test_a_folder_with_another_run_is_refused(
    model: Infinity, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    log_run(model, PROMPTS[:2], tmp_path / "run", probes=PROBES)
    with pytest.raises(VarlabError, match=f"another run .different: {named}"):
        log_run(model, PROMPTS[:2], tmp_path / "run", **{"probes": PROBES, **change})  # type: ignore[arg-type]


def test_a_folder_of_something_else_is_left_alone(model: Infinity, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(VarlabError, match="not empty and holds no run"):
        log_run(model, PROMPTS, tmp_path, probes=PROBES)
    with pytest.raises(VarlabError, match="holds no log"):
        open_log(tmp_path)


def test_a_run_stopped_while_it_is_timed_goes_on(
    model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "stage_seconds", stopped)
        with pytest.raises(KeyboardInterrupt):
            log_run(model, PROMPTS[:2], tmp_path / "run", probes=PROBES)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"{folders.DRAFT}1-0.json").write_text("{")  # cut while the record was written
    assert log_run(model, PROMPTS[:2], tmp_path / "run", probes=PROBES).attrs["n"] == 2


def test_an_unwritable_folder_is_told_before_work_and_leaves_nothing(
    model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "stage_seconds", lambda *_: pytest.fail("work was started"))
    (tmp_path / "file").write_text("")
    with pytest.raises(VarlabError, match="cannot be written in"):
        log_run(model, PROMPTS, tmp_path / "file" / "run", probes=PROBES)
    check_writable(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_runs_of_a_notebook_go_to_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs.runs_folder() == Path("runs")
    repository = Path(runs.__file__).resolve().parents[2]
    monkeypatch.chdir(repository / "notebooks")
    assert runs.runs_folder() == repository / "runs"


def test_the_batch_size_does_not_change_a_log(model: Infinity) -> None:
    one = sample(model, PROMPTS, probes=PROBES, batch=1).log
    all_ = sample(model, PROMPTS, probes=PROBES, batch=5).log
    a, b = one["token-mse"]["mse"].to_numpy(), all_["token-mse"]["mse"].to_numpy()
    assert np.allclose(a, b, rtol=1e-3, equal_nan=True)


def test_provenance_tells_what_was_run(model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "stage_seconds", stage_seconds)
    log_run(model, PROMPTS[:2], tmp_path / "run", probes=PROBES, prompt_set="mine", seed=5, tau=0.5)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["prompts"] == PROMPTS[:2] and record["seed"] == 5 and record["prompt_set"] == "mine"
    assert record["settings"]["tau"] == 0.5 and record["precision"] == "fp32"
    assert record["architecture"]["transformer"]["depth"] == model.depth and record["negative"] is None
    assert record["text_encoder"] == "random text features (seed 0)" and record["log_version"] == LOG_VERSION
    assert {"torch", "python", "varlab"} <= record["versions"].keys()
    assert len(record["stage_seconds"]) == 3 and len(record["stage_seconds"][0]) == len(model.schedule)


def test_a_pass_of_minutes_is_timed_once(model: Infinity) -> None:
    job = runs.Job(model, tuple(PROMPTS[:1]), model.settings)
    assert [len(stage_seconds(job, 1, 2, longest=seconds)) for seconds in (0.0, 60.0)] == [1, 2]


def test_hooks_are_recorded_with_their_options(model: Infinity) -> None:
    given: list[str | Accelerator] = ["truncate:last=1", Truncate(2)]
    log = sample(model, PROMPTS[:1], probes=["residual-spectrum:preview=off"], accelerators=given).log
    assert log.attrs["accelerators"] == ["truncate:last=1", "truncate:last=2"]
    assert log.attrs["probes"] == ["residual-spectrum:preview=off"]
    assert log.attrs["options"]["truncate:last=2"] == {"last": "2"}
    (label,) = list(sample(model, PROMPTS[:1], accelerators=Telling(False)).log.attrs["options"])
    assert label == "telling:each=false"


def test_objects_that_differ_in_a_list_are_two_runs(model: Infinity, tmp_path: Path) -> None:
    """The second run in the folder of the first one must not be given the first one's log."""
    vl.log(model, PROMPTS[:1], folder=tmp_path / "run", probes=(), accelerators=FastVAR((0.4,), drop=1, first=1))
    other = FastVAR((0.1,), drop=1, first=1)
    refused(lambda: vl.log(model, PROMPTS[:1], folder=tmp_path / "run", probes=(), accelerators=other), "another run")
    same = "fastvar:ratios=0.4,drop=1,first=1"
    vl.log(model, PROMPTS[:1], folder=tmp_path / "run", probes=(), accelerators=same)


@pytest.mark.parametrize("name", folders.SAME)
def test_all_that_decides_a_log_is_in_its_key(model: Infinity, name: str) -> None:
    record = record_of(runs.Job(model, tuple(PROMPTS), model.settings), "mine", 8)
    assert folders.run_key(record | {name: "other"}) != record["key"]
    assert folders.run_key(record | {"batch": 1, "prompt_set": "other"}) == record["key"]


def test_the_ledger_of_all_batches_adds_up(model: Infinity) -> None:
    result = sample(model, PROMPTS, batch=2, accelerators=["truncate:last=1"])
    assert [work.images for work in result.ledger.stages] == [5, 5, 5, 5]
    assert result.ledger.engaged and result.ledger.stages[-1].tokens == 0


# Run folders that need no model

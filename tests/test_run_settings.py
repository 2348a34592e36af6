"""What a run is asked for and what its log says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import varlab as vl
from tests.conftest import tiny_infinity
from tests.minis import SCHEDULE, make_mini, parts
from tests.toy_runs import PROBES, PROMPTS, Telling, model  # noqa: F401
from varlab.engine.loop import Run
from varlab.errors import VarlabError
from varlab.models.infinity import TextBatch
from varlab.models.infinity_model import Infinity
from varlab.runs import folders, log_run, sample
from varlab.runs.folders import open_log


@pytest.mark.parametrize("prompts", [[], [""], ["a star", "  "], None, 3, [None]])
def test_empty_prompts_are_refused(model: Infinity, prompts: list[str]) -> None:
    with pytest.raises(VarlabError, match=r"no prompts|is empty|is no text"):
        sample(model, prompts)


def test_settings_that_do_not_fit_stop_before_work(model: Infinity) -> None:
    with pytest.raises(VarlabError, match="cfg has 2 values"):
        sample(model, PROMPTS, cfg=[1.0, 2.0])
    with pytest.raises(VarlabError, match="Did you mean truncate"):
        sample(model, PROMPTS, accelerators=["trunkate:last=1"])
    with pytest.raises(VarlabError, match="Did you mean last"):
        sample(model, PROMPTS, accelerators=["truncate:lst=1"])
    with pytest.raises(VarlabError, match=r"Unknown setting 'cgf'\. Did you mean cfg"):
        sample(model, PROMPTS, cgf=3.0)
    with pytest.raises(VarlabError, match=r"'sed'\. Did you mean seed"):
        sample(model, PROMPTS, sed=3)
    with pytest.raises(VarlabError, match=r"'acelerators'\. Did you mean accelerators"):
        log_run(model, PROMPTS, probes=PROBES, acelerators="none")
    wrong = ({"cfg": "3"}, {"tau": ("1",) * 4}, {"seed": 1.5}, {"batch": "2"}, {"top_p": "1"})
    for numbers in ({"cfg": math.nan}, {"tau": math.inf}, {"seed": -1}, {"batch": 0}, *wrong):
        with pytest.raises(VarlabError, match=r"must be|must lie"):
            sample(model, PROMPTS, **numbers)  # type: ignore[arg-type]
    with pytest.raises(VarlabError, match="cfg_layers is a list"):
        sample(model, PROMPTS, cfg_layers=0)


def test_a_negative_prompt_replaces_the_null_text(model: Infinity) -> None:
    plain, negative = sample(model, PROMPTS[:1]), sample(model, PROMPTS[:1], negative="a blue ring")
    assert np.asarray(plain.images[0]).tobytes() != np.asarray(negative.images[0]).tobytes()
    none = sample(model, PROMPTS[:1], negative="")
    assert np.asarray(plain.images[0]).tobytes() == np.asarray(none.images[0]).tobytes()


def test_every_prompt_is_read_before_the_first_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = Infinity(*parts()[:2], SCHEDULE, parts()[2])
    monkeypatch.setattr(Run, "generate", lambda *_: pytest.fail("work was started"))
    with pytest.raises(VarlabError, match=r"'moon'.*'a red moon'"):
        log_run(mini, ["a red star"] * 9 + ["a red moon"], tmp_path / "run", probes=PROBES)
    with pytest.raises(VarlabError, match="'moon'"):
        sample(mini, ["a red star"], negative="a moon")
    assert not list(tmp_path.iterdir())


def test_shapes_alone_cannot_sample() -> None:
    empty = tiny_infinity()
    empty.transformer.to("meta")
    with pytest.raises(VarlabError, match="shapes only"):
        sample(empty, PROMPTS)


def test_features_stand_in_for_texts(model: Infinity) -> None:
    assert model.text is not None
    batch, wanted = model.text(PROMPTS), sample(model, PROMPTS, batch=2)
    arrays = [rows.numpy() for rows in batch.features.split(batch.lengths)]
    model.text = None
    for given in (batch, arrays, np.stack(arrays)):
        found = sample(model, given, batch=2)
        assert [image.tobytes() for image in found.images] == [image.tobytes() for image in wanted.images]
    labels = found.log.attrs["prompts"]
    assert len(set(labels)) == len(PROMPTS) and all(label.startswith("features ") for label in labels)
    assert labels == sample(model, batch, batch=5).log.attrs["prompts"]
    for wrong in (
        TextBatch(torch.zeros(4, 7), (4,)),
        [np.zeros((4, 7))],
        [np.zeros(128)],
        [arrays[0], "a star"],
        PROMPTS,
    ):
        with pytest.raises(VarlabError, match=r"7 wide|list of arrays|without a text encoder"):
            sample(model, wrong)


def test_what_methods_tell_is_logged_by_image(model: Infinity, tmp_path: Path) -> None:
    log = sample(model, PROMPTS, accelerators=Telling(True), batch=2).log
    stored = vl.log(model, PROMPTS, folder=tmp_path / "run", probes=(), accelerators=Telling(True), batch=2)
    for found in (log, stored, open_log(tmp_path / "run")):
        drop = found["telling"]["drop"]
        assert drop.to_numpy().tolist() == [0, 1, 2, 3, 4] == drop.prompt.values.tolist()
        assert found["telling/stage-02"]["kept"].dims == ("prompt", "y", "x")
        assert (found["telling/stage-02"]["kept"].isel(prompt=3) == 3).all()
    assert sample(model, PROMPTS, accelerators=[Telling(False)], batch=2).log["telling"].attrs == {"exits": [4, 2]}
    assert not sample(model, PROMPTS[:1], accelerators="truncate:last=1").log.children


def test_a_single_hook_needs_no_list(model: Infinity) -> None:
    log = sample(model, PROMPTS[:1], probes="residual-spectrum", accelerators="truncate:last=1").log
    assert log.attrs["probes"] == ["residual-spectrum"] and log.attrs["accelerators"] == ["truncate:last=1"]


def test_a_log_of_an_accelerated_run(model: Infinity, tmp_path: Path) -> None:
    given = {"probes": "token-mse", "accelerators": "truncate:last=1", "negative": "a blue ring"}
    log = vl.log(model, PROMPTS[:2], folder=tmp_path / "run", **given)
    assert log.attrs["accelerators"] == ["truncate:last=1"] and log.attrs["negative"] == "a blue ring"
    assert np.isnan(log["token-mse"]["mse"].isel(stage=-1)).all() and log.attrs["stage_seconds"] is None
    assert log.attrs["prompts"] == PROMPTS[:2] and log.attrs["prompt_set"] == "custom"
    with pytest.raises(VarlabError, match="different: accelerators"):
        vl.log(model, PROMPTS[:2], folder=tmp_path / "run", **given | {"accelerators": ()})


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_record_is_told(model: Infinity, tmp_path: Path, text: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "000000.npz").write_text("")
    (tmp_path / "run.json").write_text(text)
    for action in (lambda: open_log(tmp_path), lambda: log_run(model, PROMPTS, tmp_path, probes=PROBES)):
        with pytest.raises(VarlabError, match=r"run\.json is damaged .*varlab runs repair"):
            action()


@pytest.mark.parametrize("file", ["zarr.json", "token-mse/zarr.json"])
def test_a_damaged_store_is_told(model: Infinity, tmp_path: Path, file: str) -> None:
    log_run(model, PROMPTS[:1], tmp_path / "run", probes=["token-mse"])
    (tmp_path / "run" / folders.STORE / file).write_text("{")
    with pytest.raises(VarlabError, match=r"log\.zarr is damaged .*varlab runs repair"):
        open_log(tmp_path / "run")


@pytest.fixture()
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a mini with options that no notebook has; loading a model is an error from here on."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    make_mini(tmp_path / "data" / "mine")
    mini = vl.load("mine", precision="bf16")
    (tmp_path / "mine.txt").write_text("a red star\na blue ring\na red ring\n")
    vl.log(mini, str(tmp_path / "mine.txt"), seed=2, tau=0.5, folder=tmp_path / "run")
    monkeypatch.setattr("varlab.api.load", lambda *_, **__: pytest.fail("a model was loaded"))
    return tmp_path / "run"


def test_a_finished_run_is_compared_with_what_was_given_alone(finished: Path) -> None:
    file = str(finished.parent / "mine.txt")
    for given in ({}, {"n": 3}, {"seed": 2}, {"tau": 0.5, "batch": 1, "wait": False}, {"probes": None, "cfg": None}):
        assert vl.log("mine", file, folder=finished, **given).attrs["precision"] == "bf16"  # type: ignore[arg-type]
    for change, named in (({"seed": 0}, "seed"), ({"n": 2}, "prompts"), ({"cfg": 5.0}, "settings"),
                          ({"probes": "token-mse"}, "probes"), ({"negative": "a star"}, "negative")):  # fmt: skip
        with pytest.raises(VarlabError, match=rf"different: {named}; there: model mine, .*n 3, seed 2"):
            vl.log("mine", file, folder=finished, **change)  # type: ignore[arg-type]
    with pytest.raises(VarlabError, match="different: model, prompts"):
        vl.log("nano-infinity", "scenes", n=3, folder=finished)
    with pytest.raises(VarlabError, match="different: prompts"):
        vl.log("mine", ["a red star", "a blue ring", "a red ring", "a red star"], folder=finished)
    Path(file).unlink()  # the run still holds its texts
    assert vl.log("mine", file, n=3, folder=finished).attrs["n"] == 3


def test_a_control_has_the_run_s_own_settings(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from varlab.weights.zoo import load

    log = open_log(finished)
    monkeypatch.setattr("varlab.api.load", load)
    control = vl.control(log, 2, finished.parent / "control")
    assert control.attrs["weights"].startswith("random") and control.attrs["prompts"] == ["a red star", "a blue ring"]
    assert control.attrs["settings"] == log.attrs["settings"] and control.attrs["seed"] == 2
    log.attrs["schedule"] = [[1, 1], [3, 3]]
    with pytest.raises(VarlabError, match="another schedule"):
        vl.control(log, 2)
    log.attrs["model"] = "gone"
    with pytest.raises(VarlabError, match="Unknown model"):
        vl.control(log, 2)

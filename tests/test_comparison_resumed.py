"""A comparison in its folder: an interruption loses the turn under way, what is whole is opened, another is refused."""

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import varlab as vl
from tests.minis import nano  # noqa: F401  (a fixture)
from tests.test_class_quality import named_var
from varlab.comparison import Comparison, bench, compare, frontier
from varlab.comparison.bench import Bench
from varlab.comparison.turns import BEGUN, TURNS
from varlab.errors import VarlabError
from varlab.evaluation import command
from varlab.evaluation.classes import draw_classes
from varlab.evaluation.command import scene_drawing, score_command
from varlab.evaluation.generation import generate
from varlab.evaluation.scenes import score_samples
from varlab.json_files import read_json
from varlab.models.base import NextScaleModel
from varlab.outputs import save_json
from varlab.runs.manifest import MANIFEST
from varlab.runs.states import kind_of, remove, runs_in, table, verify

SPECS = ["truncate:last=1", "oracle-tokens:keep=0.5,last=1"]


def compared(model: NextScaleModel, folder: Path | None, *specs: str, **options: Any) -> Comparison:
    return compare(model, "scenes", specs or SPECS, n=5, batch=2, frontier=False, folder=folder, **options)


@pytest.fixture
def stopped(nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison of three turns that was stopped in the third."""
    plain = Bench._run

    def run(bench: Bench, name: str, turn: int) -> None:
        if turn == 3 and name == SPECS[0]:
            raise KeyboardInterrupt
        plain(bench, name, turn)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Bench, "_run", run)
        compared(nano, tmp_path / "c")
    return tmp_path / "c"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The turns that run, a number a method."""
    plain, turns = Bench._run, list[int]()

    def run(bench: Bench, name: str, turn: int) -> None:
        turns.append(turn)
        plain(bench, name, turn)

    monkeypatch.setattr(Bench, "_run", run)
    return turns


def test_what_was_stopped_goes_on_after_its_last_turn(nano: NextScaleModel, stopped: Path, ran: list[int]) -> None:
    assert (kind_of(stopped), str(verify(stopped))) == ("comparison", "partial: 2 turns")
    found = compared(nano, stopped)
    assert ran == [0, 0, 0, 3, 3, 3] and not (stopped / TURNS).exists()  # the machine warms up again
    assert any("2 sittings" in note for note in found.facts["notes"])
    whole = compared(nano, stopped.parent / "whole")
    for name in ("prompts.csv", "images/02/0004.png"):
        ours, other = ((folder / name).read_bytes() for folder in (stopped, stopped.parent / "whole"))
        assert ours == other or name.endswith("png")  # whose record holds its date
    assert whole.images["none"][4].tobytes() == found.images["none"][4].tobytes()
    assert list(found.timings.turn) == [0] * 3 + [1] * 3 + [2] * 3 == list(whole.timings.turn)
    assert not any("sittings" in note for note in whole.facts["notes"])


def test_what_an_earlier_version_began_by_rounds_goes_on(nano: NextScaleModel, stopped: Path, ran: list[int]) -> None:
    def as_then(path: Path, *keys: str) -> None:
        held = read_json(path, "")
        facts = reduce(dict.__getitem__, keys, held)
        assert facts.pop("timed") == 3
        save_json(path, held | {"facts": facts | {"rounds": 1}} if keys else facts | {"rounds": 1})

    as_then(stopped / TURNS / BEGUN)
    first, second = (stopped / TURNS / f"{turn:06d}.npz" for turn in (1, 2))
    first.rename(first.with_suffix(".then"))  # the batches came in the order of the prompts
    second.rename(first)
    first.with_suffix(".then").rename(second)
    found = compared(nano, stopped)
    assert found.facts["timed"] == 3
    assert ran == [turn for turn in range(4) for _ in range(3)]  # what does not fit runs again
    assert found.prompts.equals(compared(nano, None).prompts)
    (stopped / MANIFEST).unlink()
    as_then(stopped / "comparison.json", "facts")
    ran.clear()
    assert len(compared(nano, stopped).table) == 3 and ran == []
    with pytest.raises(VarlabError, match="different: timed"):
        compared(nano, stopped, timed=6)


def test_what_was_stopped_without_the_clock_goes_on_without_it(
    nano: NextScaleModel, tmp_path: Path, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(bench, "drawn_by_stage", stop)
        compared(nano, tmp_path / "c", timed=1)
    assert str(verify(tmp_path / "c")) == "partial: 2 turns"  # the machine warmed up on a batch that is not timed
    ran.clear()
    found = compared(nano, tmp_path / "c", timed=1)
    assert ran == [] and list(found.timings.turn) == [0] * 3 and not any("sittings" in n for n in found.facts["notes"])
    assert compared(nano, None).prompts.equals(found.prompts)
    with pytest.raises(VarlabError, match="different: timed"):
        compared(nano, tmp_path / "c")


def test_what_is_whole_is_opened(nano: NextScaleModel, tmp_path: Path, ran: list[int]) -> None:
    made = compared(nano, tmp_path)
    assert str(verify(tmp_path)) == "complete"
    ran.clear()
    found = compared(nano, tmp_path)
    assert ran == [] and found.facts == made.facts and found.ledgers == made.ledgers
    for ours, other in ((found.table, made.table), (found.prompts, made.prompts), (found.timings, made.timings)):
        assert_frame_equal(pd.DataFrame(ours), other, check_dtype=False)
    assert found.logs[SPECS[1]]["oracle-tokens"].share.equals(made.logs[SPECS[1]]["oracle-tokens"].share)
    assert found.images[SPECS[0]][1].tobytes() == made.images[SPECS[0]][1].tobytes()


def test_a_damaged_turn_runs_again(nano: NextScaleModel, stopped: Path, ran: list[int]) -> None:
    (stopped / TURNS / "000001.npz").write_bytes(b"PK cut")
    compared(nano, stopped)
    assert [turn for turn in ran if turn] == [1] * 3 + [3] * 3


def test_another_comparison_is_refused_by_field_and_replaced_when_asked(
    nano: NextScaleModel, stopped: Path, ran: list[int]
) -> None:
    with pytest.raises(VarlabError, match="different: methods"):
        compared(nano, stopped, "truncate:last=2")
    with pytest.raises(VarlabError, match="different: seed"):
        compared(nano, stopped, seed=1)
    assert ran == []
    compared(nano, stopped, "truncate:last=2", overwrite=True)
    assert list(pd.read_csv(stopped / "comparison.csv").method) == ["none", "truncate:last=2"]
    assert not (stopped / "images" / "02").exists()
    with pytest.raises(VarlabError, match="different: methods"):
        compared(nano, stopped)


def test_a_folder_of_other_files_is_left_alone(nano: NextScaleModel, tmp_path: Path, ran: list[int]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(VarlabError, match="holds no comparison"):
        compared(nano, tmp_path)
    assert ran == [] and [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folders_of_something_else_stay_even_where_a_comparison_may_be_replaced(
    nano: NextScaleModel, tmp_path: Path, ran: list[int]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_text("mine")
    with pytest.raises(VarlabError, match="would replace its images"):
        compared(nano, tmp_path, overwrite=True)
    assert ran == [] and (tmp_path / "images" / "mine.png").read_text() == "mine"


def test_what_was_begun_and_is_damaged_is_begun_anew_when_asked(nano: NextScaleModel, stopped: Path) -> None:
    (stopped / TURNS / BEGUN).write_text("{")
    with pytest.raises(VarlabError, match="--overwrite"):
        compared(nano, stopped)
    compared(nano, stopped, overwrite=True)
    assert str(verify(stopped)) == "complete"


def test_turns_that_were_left_when_all_was_written_go(nano: NextScaleModel, tmp_path: Path, ran: list[int]) -> None:
    made = compared(nano, tmp_path)
    (tmp_path / TURNS).mkdir()
    (tmp_path / TURNS / "000001.npz").touch()
    assert str(verify(tmp_path)) == "complete"
    ran.clear()
    assert compared(nano, tmp_path).facts == made.facts and ran == [] and not (tmp_path / TURNS).exists()


def test_timings_are_in_the_order_in_which_methods_ran(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, order = Bench._run, list[tuple[str, int]]()

    def run(bench: Bench, name: str, turn: int) -> None:
        order.append((name, turn - 1))
        plain(bench, name, turn)

    monkeypatch.setattr(Bench, "_run", run)
    timings = compared(nano, None).timings
    assert [*zip(timings.method, timings.turn, strict=True)] == [each for each in order if each[1] >= 0]


def test_records_of_other_programs_make_no_run(tmp_path: Path) -> None:
    records = {"benchmark": "{}", "frontier": '{"n": 3}', "sweep": "[1]", "comparison": '{"facts": {}}'}
    for name, text in records.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text(text)
    assert runs_in(tmp_path) == []
    with pytest.raises(VarlabError, match="holds no run"):
        remove(tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.json").write_text('{"plan"')
    assert verify(tmp_path / "sweep").word == "damaged" and remove(tmp_path / "sweep") > 0


def test_a_lost_picture_of_a_whole_one_is_said(nano: NextScaleModel, tmp_path: Path) -> None:
    compared(nano, tmp_path)
    (tmp_path / "images" / "01" / "0003.png").unlink()
    assert "images/01/0003.png is missing" in str(verify(tmp_path))
    with pytest.raises(VarlabError, match="--overwrite"):
        compared(nano, tmp_path)


def test_folders_of_every_kind_are_listed_and_only_their_own_files_go(nano: NextScaleModel, tmp_path: Path) -> None:
    compared(nano, tmp_path / "c")
    frontier(nano, "scenes", n=3, folder=tmp_path / "f", batch=2)
    generate({tmp_path / "g": scene_drawing(nano, 2, 1, seed=0)})
    vl.sweep({"models": ["nano-infinity"], "specs": ["none"], "prompts": [{"set": "scenes", "n": 2}]}, tmp_path / "s")
    rows = table(runs_in(tmp_path))[["kind", "model", "methods", "n", "state"]].to_numpy().tolist()
    assert rows == [
        ["comparison", "nano-infinity", "2 beside none", "5", "complete"],
        ["frontier", "nano-infinity", "baselines", "3", "complete"],
        ["benchmark", "nano-infinity", "none", "2", "complete"],
        ["sweep", "nano-infinity", "1 spec", "2", "complete"],
    ]
    next((tmp_path / "g" / "images").rglob("*.png")).unlink()
    (tmp_path / "f" / "baselines-000002.csv").unlink()
    assert [str(verify(tmp_path / name)) for name in "gf"] == [
        "partial: 1 of 2 pictures", "partial: 1 of 2 batches"
    ]  # fmt: skip
    (tmp_path / "c" / "mine.txt").write_text("mine")
    with pytest.raises(VarlabError, match=r"mine\.txt"):
        remove(tmp_path / "c")
    for name in "fgs":
        assert remove(tmp_path / name) > 0 and not (tmp_path / name).exists()


def test_a_score_that_was_stopped_goes_on(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def stop(done: float, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_command("scenes", nano, 24, 1, 0, None, stop)
    (place,) = runs_in("runs")
    there = {path: path.stat().st_mtime_ns for path in place.rglob("*.png")}
    assert len(there) == 16 and verify(place).word == "partial"
    table_, note = score_command("scenes", nano, 24, 1, 0, None, lambda *_: None)
    assert str(place) in note and verify(place).word == "complete"
    assert {path: path.stat().st_mtime_ns for path in there} == there
    plain, _, _ = score_samples(nano, 24, 1)
    ours = table_[table_.source == "samples"].set_index("category")
    assert ours["mean"].equals(plain.summary["mean"])


@pytest.mark.parametrize("benchmark", ["frechet", "fid"])
def test_a_score_of_classes_that_was_stopped_goes_on(
    benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judged: list[np.ndarray] = []

    def judge(*given: Any) -> tuple[pd.DataFrame, list[str]]:
        judged.append(given[-1]["freqexit:exits=2"] if benchmark == "frechet" else given[0])
        return pd.DataFrame(), []

    monkeypatch.setattr(command, "require_inception", lambda: None)
    monkeypatch.setattr(command, "inception_scores", judge)
    monkeypatch.setattr(command, "judge_classes", lambda *given: judge(*given)[0])

    def stop(done: float, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    def scored(progress: Any) -> tuple[pd.DataFrame, str]:
        return score_command(benchmark, named_var(), 24, 4, 3, None, progress, ("freqexit:exits=2",))

    with pytest.raises(KeyboardInterrupt):
        scored(stop)
    (place,) = runs_in("runs")
    there = {path: path.stat().st_mtime_ns for path in place.rglob("*.png")}
    assert len(there) == 16 and verify(place).word == "partial"
    assert str(place) in scored(lambda *_: None)[1] and verify(place).word == "complete"
    assert {path: path.stat().st_mtime_ns for path in there} == there
    np.testing.assert_array_equal(list(judged[0]), draw_classes(named_var(), 24, 3, ["freqexit:exits=2"]))

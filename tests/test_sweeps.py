"""Sweeps: the file checked whole, shards made once, stopped and gone on with, faults counted, tables byte for byte."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.minis import nano  # noqa: F401  (a fixture)
from tests.sweep_plans import PLAN
from varlab.cli import app
from varlab.comparison.bench import methods_of
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.errors import VarlabError
from varlab.locks import one_writer
from varlab.measures.metrics import ssim
from varlab.models.base import NextScaleModel
from varlab.progress import Lines, in_notebook
from varlab.runs.states import verify
from varlab.runs.store import Store, StoreLost, packed, sealed, unpacked, unsealed
from varlab.sweeps import Tally, forecast, read_plan, sweep
from varlab.sweeps.merge import as_rows
from varlab.sweeps.shards import Task, tasks_of
from varlab.sweeps.work import RECORD, Outcome, work
from varlab.weights.zoo import load

TABLES = ("table.csv", "prompts.csv")
pytestmark = pytest.mark.usefixtures("nano")


def tables(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in TABLES]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every batch that the engine generates from here on."""
    generated: list[int] = []
    generate = Run.generate

    def counting(self: Run, *given: Any, **named: Any) -> Any:
        generated.append(1)
        return generate(self, *given, **named)

    monkeypatch.setattr(Run, "generate", counting)
    return generated


@pytest.fixture(scope="module")
def whole(nano: NextScaleModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted sweep."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    made = sweep(PLAN, folder)
    assert not made.failures and len(made.table) == 4 and len(made.prompts) == 16
    return folder


# The file


def test_a_dry_run_tells_shards_work_and_time_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(json.dumps(PLAN))
    done = CliRunner().invoke(app, ["sweep", "study.yaml", "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0 and "8 shards, 16 images" in done.output
    assert [item.name for item in tmp_path.iterdir()] == ["study.yaml"]
    expected = forecast(read_plan(PLAN)).table.set_index("method")
    assert expected.work["none"] == 1 and 0.1 < expected.work["truncate:last=1"] < 0.9
    assert expected.shards.tolist() == [2] * 4 and (expected.seconds > 0).all()


# Rows


def test_rows_are_those_of_separate_runs_bit_for_bit(whole: Path) -> None:
    """Shared stages and images from the store change nothing."""
    rows = as_rows((whole / "prompts.csv").read_text()).set_index(["method", "prompt"])
    plan, model = read_plan(PLAN), load("nano-infinity")
    texts = plan.chosen(plan.prompts[0], "nano-infinity").texts
    dense: dict[int, torch.Tensor] = {}
    for first in (0, 2):
        for spec in ("none", *PLAN["specs"]):
            run = Run(model, model.settings, SeededNoise(3))
            out = run.generate(texts[first : first + 2], [first, first + 1], methods_of(spec))
            image = out.image.clamp(0, 1)
            dense.setdefault(first, image)
            found = rows.loc[spec].loc[first : first + 1]
            assert np.array_equal(found.ssim.to_numpy(), ssim(image, dense[first]).double().numpy())
            assert found.flops.tolist() == [round(out.ledger.transformer_flops / 2)] * 2


def test_the_table_says_work_n_weights_device_and_intervals(whole: Path) -> None:
    table = pd.read_csv(whole / "table.csv").set_index("method")
    assert list(table.n) == [4] * 4 and table.work_ratio["none"] == 1 and table.ssim["none"] == 1
    assert (table.ssim_low <= table.ssim).all() and (table.ssim <= table.ssim_high).all()
    assert table.weights.str.contains("nano-infinity").all() and table.device.str.contains("cpu").all()
    assert not [name for name in table.columns if "second" in name or "speed" in name]


# Stopped and gone on with


SEEN: list[Task] = []  # by the functions below, which dask finds by name: a closure would be sent as a copy


@pytest.fixture(autouse=True)
def seen() -> list[Task]:
    SEEN.clear()
    return SEEN


def stopped_after(count: int, task: Task, place: str, dense: str) -> Outcome:
    if len(SEEN) == count:
        return Outcome("stopped here", stops=True)
    return watched(task, place, dense)


def watched(task: Task, place: str, dense: str) -> Outcome:
    SEEN.append(task)
    return work(task, place, dense)


def fails_on(spec: str, task: Task, place: str, dense: str) -> Outcome:
    if spec not in [shard.spec for shard in task.shards]:
        return work(task, place, dense)
    SEEN.append(task)
    return Outcome("RuntimeError: poisoned")


@pytest.mark.parametrize("count", [1, 3])
def test_a_stopped_sweep_goes_on_to_the_same_bytes(whole: Path, tmp_path: Path, count: int, seen: list[Task]) -> None:
    with pytest.raises(StoreLost, match="stopped here"):
        sweep(PLAN, tmp_path / "s", act=partial(stopped_after, count))
    assert not (tmp_path / "s" / "table.csv").exists()
    seen.clear()
    sweep(PLAN, tmp_path / "s", act=watched)
    assert tables(tmp_path / "s") == tables(whole) and len(seen) == 4 - count


def test_damage_is_noticed_and_only_that_is_made_again(whole: Path, tmp_path: Path, seen: list[Task]) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "s"))
    shard = min((folder / "shards").iterdir())
    assert verify(folder).word == "complete"
    shard.write_bytes(shard.read_bytes().replace(b"0", b"1", 1))
    assert verify(folder).word == "damaged" and f"shards/{shard.name} cannot be read" in str(verify(folder))
    with pytest.raises(VarlabError, match=r"1 shard of .* cannot be read, the first: nano-infinity"):
        sweep(PLAN, folder)
    sweep(PLAN, folder, act=watched)
    assert len(seen) == 1 and len(seen[0].shards) == 1 and tables(folder) == tables(whole)
    dense = next((folder / "dense").iterdir())
    dense.write_bytes(dense.read_bytes()[:-1])
    assert str(verify(folder)).startswith(f"damaged: dense/{dense.name}")
    dense.unlink()
    shard.unlink()
    assert str(verify(folder)) == "partial: 7 of 8 shards"


def test_new_rows_are_added_and_dense_images_drawn_once(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "s"))
    drawn = sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "dense").iterdir())
    more = PLAN | {"specs": [*PLAN["specs"], "sparsevar:keep=0.27"]}
    generated = counted(monkeypatch)
    made = sweep(more, folder, extend=True)
    assert len(generated) == 2 and len(made.table) == 5  # two shards of the new one: no dense run again
    assert drawn == sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "dense").iterdir())
    old = made.prompts[made.prompts.method != "sparsevar:keep=0.27"].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, pd.read_csv(whole / "prompts.csv"), check_dtype=False)


def test_a_store_of_dense_images_serves_another_sweep(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = counted(monkeypatch)
    sweep(PLAN, tmp_path / "s", dense=whole / "dense")
    assert not (tmp_path / "s" / "dense").exists() and len(generated) == 2  # of sparsevar alone
    assert tables(tmp_path / "s") == tables(whole)


def test_a_url_is_a_store(whole: Path) -> None:
    made = sweep(PLAN, "memory://study")
    held = Store.at("memory://study")
    assert [held.read(name) for name in TABLES] == tables(whole) and len(made.table) == 4
    with pytest.raises(VarlabError, match="cannot be used as a store"):
        sweep(PLAN, "nosuch://study")


# Faults


def test_a_poisoned_shard_is_tried_three_times_and_the_rest_goes_on(
    whole: Path, tmp_path: Path, seen: list[Task]
) -> None:
    told: list[Tally] = []
    made = sweep(PLAN, tmp_path / "s", act=partial(fails_on, "sparsevar:keep=0.49"), progress=told.append)
    assert len(seen) == 6 and {seen.count(task) for task in seen} == {3}
    assert [failure.error for failure in made.failures] == ["RuntimeError: poisoned"] * 2
    assert (
        told[-1].done == 2 and told[-1].total == 4 and sorted(made.table.method) == sorted(["none", *PLAN["specs"][:2]])
    )
    assert not sweep(PLAN, tmp_path / "s").failures and tables(tmp_path / "s") == tables(whole)


def test_without_dense_images_nothing_is_compared_with_them(tmp_path: Path) -> None:
    made = sweep(PLAN, tmp_path / "s", act=partial(fails_on, "none"))
    assert {failure.error for failure in made.failures} == {
        "RuntimeError: poisoned",
        "its dense images could not be drawn",
    }
    assert len(made.failures) == 4 and not len(made.table)


def test_a_notebook_sees_progress_failures_and_the_dashboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned = partial(fails_on, "none")
    sweep(PLAN, tmp_path / "s", act=poisoned)
    assert not in_notebook() and capsys.readouterr() == ("", "")
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel="a kernel"))
    monkeypatch.setitem(sys.modules, "IPython", kernel)  # type: ignore[arg-type]
    monkeypatch.setattr(Lines, "EVERY", 0)
    sweep(PLAN, tmp_path / "s", act=poisoned)
    said, moved = capsys.readouterr()
    assert "dashboard: http" in said and said.count("failed: nano-infinity none seed 3") == 2
    assert "RuntimeError: poisoned" in said and "tasks 4 of 4 done, 100 % of the work, 0:00:00 left" in moved


def test_an_error_of_a_method_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(tasks_of(read_plan(PLAN)))[0]
    (tmp_path / RECORD).write_text("{}")
    monkeypatch.setattr("varlab.sweeps.work.load", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("varlab.sweeps.work._loaded", lambda *_: 1 / 0)
    answer = work(first, str(tmp_path), str(tmp_path / "dense"))
    assert answer.error == "ZeroDivisionError: division by zero" and "Traceback" in answer.trace and not answer.stops


@pytest.mark.parametrize("fault", ["full disk", "read-only", "gone"])
def test_a_store_that_takes_nothing_more_stops_all_and_loses_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    folder, writes = tmp_path / "s", [0]
    write = Path.write_bytes

    def fails(self: Path, data: bytes) -> int:
        writes[0] += 1
        if writes[0] > 4:
            if fault == "gone":
                shutil.rmtree(folder, ignore_errors=True)
            raise OSError(
                *{"full disk": (28, "No space left on device"), "read-only": (30, "Read-only file system")}.get(
                    fault, (2, "No such file")
                )
            )
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fails)
        with pytest.raises(VarlabError, match=r"could not be written|is gone"):
            sweep(PLAN, folder)
    assert not (folder / "table.csv").exists()
    sweep(PLAN, folder)
    assert tables(folder) == tables(whole)


def test_what_is_left_of_a_store_that_vanished_is_taken_up(whole: Path, tmp_path: Path, seen: list[Task]) -> None:
    folder = tmp_path / "s"
    for part in ("shards", "dense"):
        shutil.copytree(whole / part, folder / part)
    (folder / "shards" / "notes.csv").write_text("mine")
    with pytest.raises(VarlabError, match="is not empty and holds no sweep"):
        sweep(PLAN, folder)
    (folder / "shards" / "notes.csv").unlink()
    sweep(PLAN, folder, act=watched)
    assert tables(folder) == tables(whole) and not seen


def test_a_worker_writes_nothing_into_a_folder_that_is_no_store(tmp_path: Path) -> None:
    first = next(tasks_of(read_plan(PLAN)))[0]
    answer = work(first, str(tmp_path / "s"), str(tmp_path / "dense"))
    assert answer.stops and "is gone" in answer.error and not list(tmp_path.iterdir())


def test_two_sweeps_and_other_folders_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "s"))
    with one_writer(folder), pytest.raises(VarlabError, match="is being written by"):
        sweep(PLAN, folder, wait=False)
    with pytest.raises(VarlabError, match="different: shard"):
        sweep(PLAN | {"shard": 3}, folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("x")
    with pytest.raises(VarlabError, match="holds no sweep"):
        sweep(PLAN, tmp_path / "thesis")
    (folder / RECORD).write_text("{")
    with pytest.raises(VarlabError, match=r"sweep\.json is damaged"):
        sweep(PLAN, folder)


def test_too_large_for_the_disk_is_refused_before(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("varlab.sweeps.predict.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(VarlabError, match=r"The sweep writes 0\.1 MB, and .* has 0\.0 MB left"):
        sweep(PLAN, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    sweep(PLAN, whole)  # what is there needs no room


def test_weights_that_differ_between_workers_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "s"))
    shard = min((folder / "shards").iterdir())
    text = unsealed(shard.read_bytes())
    assert text is not None
    shard.write_bytes(sealed(text.replace("nano-infinity", "another")))
    with pytest.raises(VarlabError, match="different weights of nano-infinity"):
        sweep(PLAN, folder)


def test_files_of_a_store_are_whole_or_not_there() -> None:
    assert unsealed(sealed("a,b\n1,2\n")) == "a,b\n1,2\n"
    assert unsealed(sealed("a,b\n1,2\n")[:-3]) is None and unsealed(None) is None and unsealed(b"") is None
    values = torch.rand(2, 3).numpy()
    back = unpacked(packed(values))
    assert back is not None and np.array_equal(back, values)
    assert unpacked(packed(values)[:-1]) is None and unpacked(None) is None

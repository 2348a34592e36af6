"""Run folders that are damaged, unfinished or done: named, mended, listed and removed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
import xarray as xr
from PIL import Image

from tests.test_run_races import log, untimed  # noqa: F401  (a fixture)
from tests.test_runs import PROMPTS, same
from varlab.analysis.logs import images_of
from varlab.api import is_finished
from varlab.cli.folders import verify as verify_command
from varlab.errors import VarlabError
from varlab.runs.folders import open_log
from varlab.runs.manifest import MANIFEST, STORE
from varlab.runs.states import progress_of, remove, repair, runs_in, shown, table, verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    log(folder)
    return folder


@pytest.fixture()
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(made: Path) -> xr.DataTree:
    return open_log(made).load()


def chunk(run: Path) -> Path:
    """The file with the values of a variable."""
    return next(path for path in sorted((run / STORE / "token-mse").rglob("c.*")) if path.is_file())


def test_a_finished_run_is_complete(run: Path) -> None:
    assert verify(run).word == "complete" and is_finished(run) and repair(run) == []
    assert open_log(run).encoding["source"] == str(run)
    files = json.loads((run / MANIFEST).read_text())["files"]
    assert sum(name.startswith("images/") for name in files) == len(PROMPTS)


def test_a_lost_file_is_named_and_never_read_as_missing_values(run: Path, whole: xr.DataTree) -> None:
    lost = chunk(run)
    lost.unlink()
    with pytest.raises(VarlabError, match=rf"log\.zarr is damaged .*{lost.name} is missing.*varlab runs repair"):
        open_log(run)
    assert verify(run, full=False).word == "damaged"
    with pytest.raises(VarlabError, match="varlab runs repair"):
        log(run)
    (line,) = repair(run)
    assert line.startswith("removed the damaged log.zarr") and line.endswith("the same command makes it again")
    assert same(log(run), whole) and verify(run).word == "complete"


def test_a_changed_byte_is_found_by_a_full_check(run: Path) -> None:
    data = bytearray(chunk(run).read_bytes())
    data[-1] ^= 1
    chunk(run).write_bytes(data)
    assert verify(run, full=False).word == "complete"
    state = verify(run)
    assert state.word == "damaged" and "has changed" in state.notes[0]


@pytest.mark.parametrize("lost", ["token-mse", "branch-divergence", None])
def test_a_log_of_an_older_version_is_read_whole_before_it_counts(run: Path, whole: xr.DataTree, lost: str) -> None:
    """Without a manifest, as a race of two processes once left it: without a probe, or with an empty root."""
    (run / MANIFEST).unlink()
    if lost:
        shutil.rmtree(run / STORE / lost)
    else:
        (run / STORE / "zarr.json").write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    with pytest.raises(VarlabError, match=r"log\.zarr is damaged .*varlab runs repair"):
        open_log(run)
    repair(run)
    assert same(log(run), whole)


def test_a_whole_log_without_a_manifest_gets_one(run: Path, whole: xr.DataTree) -> None:
    (run / MANIFEST).unlink()
    assert same(open_log(run), whole) and verify(run).word == "complete"
    assert repair(run) == ["wrote complete.json after reading the whole log"] and (run / MANIFEST).exists()


def test_a_log_beside_its_batches_is_not_finished(run: Path, whole: xr.DataTree) -> None:
    """As a process leaves it that is killed after the log and before its manifest."""
    (run / MANIFEST).unlink()
    (run / "parts").mkdir()
    assert not is_finished(run)
    assert same(log(run), whole) and is_finished(run)


def test_a_damaged_run_is_told_with_the_command_that_mends_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = run.rename(tmp_path / "мой run")
    (place / "images/000000.png").write_bytes(b"")
    with pytest.raises(typer.Exit):
        verify_command([place])
    said = capsys.readouterr().out
    assert "damaged: images/000000.png has 0 bytes" in said and f"`varlab runs repair '{place}'`" in said


def test_a_lost_record_comes_back_from_the_log(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text("{")
    assert "run.json is damaged" in str(verify(run))
    assert repair(run) == ["wrote run.json again from the log"]
    assert json.loads((run / "run.json").read_text()) == record
    shutil.rmtree(run / STORE)
    (run / "run.json").unlink()
    (run / MANIFEST).unlink()
    with pytest.raises(VarlabError, match="holds no run"):
        repair(run)


def test_a_damaged_batch_is_named_and_made_again(tmp_path: Path, whole: xr.DataTree, run: Path) -> None:
    shutil.rmtree(run / STORE)
    (run / MANIFEST).unlink()
    (run / "parts").mkdir()
    (run / "parts" / "000000.npz").write_bytes(b"PK\x03\x04 cut")
    for action in (lambda: open_log(run), lambda: log(run)):
        with pytest.raises(VarlabError, match=r"000000\.npz is damaged .*varlab runs repair"):
            action()
    assert repair(run) == ["removed the damaged batch 000000.npz: the same command makes it again"]
    assert same(log(run), whole)


def test_lost_images_are_named(run: Path) -> None:
    (run / "images" / "000003.png").unlink()
    assert str(verify(run)) == "damaged: images/000003.png is missing"
    assert open_log(run).attrs["n"] == len(PROMPTS)  # the log itself is whole
    assert "draws images that are not there again" in repair(run)[0]


def test_lost_images_are_drawn_again_and_nothing_else_is_touched(run: Path) -> None:
    before = {path: path.read_bytes() for path in sorted((run / "images").iterdir())}
    lost = run / "images" / "000003.png"
    lost.unlink()
    assert log(run).encoding["made"] == "1 lost image drawn again"
    assert {path: path.read_bytes() for path in sorted((run / "images").iterdir())} == before
    assert str(verify(run)) == "complete" and repair(run) == []
    shutil.rmtree(run / "images")
    assert log(run).encoding["made"] == f"{len(PROMPTS)} lost images drawn again"
    assert {path: path.read_bytes() for path in sorted((run / "images").iterdir())} == before
    assert log(run).encoding["made"] == ""


def damage(image: Path, how: str) -> None:
    data = image.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    image.write_bytes({"cut": data[:-20], "empty": b"", "flipped": flipped, "no picture": b"x" * 4000}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "no picture"])
def test_a_damaged_image_is_drawn_again_to_the_byte(run: Path, how: str) -> None:
    image, other = (run / "images" / f"{i:06d}.png" for i in (2, 3))
    before, kept = image.read_bytes(), other.stat().st_mtime_ns
    damage(image, how)
    assert verify(run).word == "damaged"
    with pytest.raises(VarlabError, match=r"000002.png cannot be read: it is damaged. The command that made the run"):
        images_of(open_log(run))[2]
    if how == "flipped":  # of the size that it had: only who reads everything knows
        assert repair(run)[0].startswith("removed images/000002.png, which cannot be read")
    assert log(run).encoding["made"] == "1 lost image drawn again"
    assert image.read_bytes() == before and other.stat().st_mtime_ns == kept
    assert str(verify(run)) == "complete"


def test_an_image_that_was_changed_and_can_be_read_stays(run: Path) -> None:
    image = run / "images" / "000001.png"
    Image.new("RGB", (8, 8)).save(image)
    mine = image.read_bytes()
    assert "images/000001.png has" in repair(run)[0] and log(run).encoding["made"] == ""
    assert image.read_bytes() == mine


def test_a_damaged_image_of_an_unfinished_run_is_drawn_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = run.parent / "again"

    def cut(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("varlab.runs.run.write_log", cut)
        log(again)
    before = {path.name: path.read_bytes() for path in (again / "images").iterdir()}
    damage(again / "images" / "000000.png", "cut")
    log(again)
    assert {path.name: path.read_bytes() for path in (again / "images").iterdir()} == before
    assert str(verify(again)) == "complete"


def test_runs_are_listed_shown_and_removed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert runs_in(tmp_path) == [run] == runs_in(run)
    (row,) = table([run]).to_dict("records")
    assert row["model"] == "tiny" and row["n"] == "5" and row["state"] == "complete" and row["methods"] == "none"
    assert float(row["MB"]) == pytest.approx(
        sum(p.stat().st_size for p in run.rglob("*") if p.is_file()) / 1e6, abs=0.1
    )
    assert shown(run)["state"] == "complete" and progress_of(run) == "5 of 5 images"
    (run / "thesis.tex").write_text("years of work")
    with pytest.raises(VarlabError, match=r"also holds thesis\.tex"):
        remove(run)
    assert verify(run).word == "complete"
    (run / "thesis.tex").unlink()
    assert remove(run) > 1000 and not run.exists()
    with pytest.raises(VarlabError, match="holds no run"):
        remove(tmp_path / "notes")


def test_values_survive_the_way_to_disk(whole: xr.DataTree) -> None:
    assert np.isfinite(whole["token-mse"]["mse"].to_numpy()).any()

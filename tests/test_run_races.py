"""Several processes and one run folder: one writer, one log, and what a killed process leaves."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from tests.conftest import tiny_infinity
from tests.test_runs import PROBES, PROMPTS, same
from tests.waiting import HANG, until
from varlab import locks
from varlab.errors import VarlabError
from varlab.locks import OWNER, Owner, one_writer, owner_of
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText
from varlab.runs import log_run
from varlab.runs import run as runs
from varlab.runs.folders import open_log
from varlab.runs.manifest import MANIFEST, STORE
from varlab.runs.states import verify

FORK = multiprocessing.get_context("fork")


def make_model() -> Infinity:
    model = tiny_infinity()
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    model.weights = "random (seed 0)"
    return model


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of stages are no concern here, and take a run of their own."""
    monkeypatch.setattr(runs, "stage_seconds", lambda *_: None)


def log(folder: Path | None, **given: Any) -> xr.DataTree:
    return log_run(make_model(), PROMPTS, folder, **{"probes": PROBES, "batch": 2, **given})


def start(work: Callable[[], Any], told: Path) -> Any:
    """A process that writes what went wrong to a file."""

    def child() -> None:
        try:
            work()
        except BaseException as error:
            told.write_text(f"{type(error).__name__}: {error}")
            os._exit(1)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    return process


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return log(tmp_path_factory.mktemp("whole") / "run").load()


@pytest.mark.parametrize(("count", "named"), [(2, False), (4, True)], ids=["2, default folder", "4, --out"])
def test_processes_started_together_make_one_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: xr.DataTree, count: int, named: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run" if named else None
    processes = [start(lambda: log(folder), tmp_path / f"error-{i}") for i in range(count)]
    for process in processes:
        process.join(HANG)
    assert [process.exitcode for process in processes] == [0] * count, [
        path.read_text() for path in tmp_path.glob("error-*")
    ]
    (made,) = [tmp_path / "run"] if named else list((tmp_path / "runs").iterdir())
    assert same(open_log(made), whole) and verify(made).word == "complete"
    assert open_log(made).attrs["n"] == len(PROMPTS)
    assert {path.name for path in made.iterdir()} == {STORE, MANIFEST, "images", "run.json"}


def killed_at(folder: Path, first: int, tmp_path: Path) -> None:
    """A process that makes the run and is killed at the batch that begins with this image."""
    work = runs.Job.run

    def killed(self: runs.Job, samples: range) -> Any:
        if samples.start == first:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(self, samples)

    def child() -> None:
        runs.Job.run = killed  # type: ignore[method-assign]
        log(folder)

    process = start(child, tmp_path / "error")
    process.join(HANG)
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_writer_is_followed_at_once(
    tmp_path: Path, whole: xr.DataTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    killed_at(folder, 2, tmp_path)
    assert (folder / OWNER).exists() and owner_of(folder) is None
    assert str(verify(folder)) == "partial: 2 of 5 images"
    with monkeypatch.context() as patch:
        patch.setattr(locks.time, "sleep", lambda seconds: pytest.fail("waited for a process that is dead"))
        with one_writer(folder):
            pass
    killed_at(folder, 2, tmp_path)
    assert same(log(folder, wait=False), whole)


def test_a_run_killed_in_its_first_batch_blocks_no_other(tmp_path: Path) -> None:
    killed_at(tmp_path / "run", 0, tmp_path)
    assert log(tmp_path / "run", seed=7).attrs["seed"] == 7


def test_a_run_that_fails_in_its_first_batch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise VarlabError("this family cannot")

    with monkeypatch.context() as patch:
        patch.setattr(runs.Job, "run", fails)
        with pytest.raises(VarlabError, match="this family cannot"):
            log(tmp_path / "deep" / "run")
    assert not list(tmp_path.iterdir())
    assert log(tmp_path / "deep" / "run", seed=1).attrs["n"] == len(PROMPTS)


def test_a_living_owner_is_named_and_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, go = tmp_path / "run", FORK.Event()

    def hold() -> None:
        with one_writer(folder):
            go.wait(HANG)

    process = start(hold, tmp_path / "error")
    until(lambda: owner_of(folder))
    with pytest.raises(VarlabError, match=rf"is being written by process {process.pid} on .*Wait for it"):
        log(folder, wait=False)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        go.set()

    with one_writer(folder, done=lambda: "2 of 5 images", tell=tell):
        assert owner_of(folder).pid == os.getpid()  # type: ignore[union-attr]
    assert f"by process {process.pid} on" in told[0] and told[0].endswith("2 of 5 images; waiting for it")
    process.join(HANG)
    assert process.exitcode == 0 and not list(folder.glob("*"))


def test_an_owner_on_another_host_counts_while_it_beats(tmp_path: Path) -> None:
    note = tmp_path / OWNER
    other = Owner("elsewhere", os.getpid(), 0.0, "2026-01-01T00:00:00", "x")
    note.write_text(json.dumps(vars(other)))
    assert owner_of(tmp_path) == other
    with pytest.raises(VarlabError, match="on elsewhere"), one_writer(tmp_path, wait=False):
        pass
    os.utime(note, (time.time() - locks.STALE - 1,) * 2)
    with one_writer(tmp_path, wait=False):
        assert owner_of(tmp_path) != other
    assert not list(tmp_path.iterdir())


def test_clocks_that_differ_between_hosts_kill_no_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notes are dated by the folder's clock, this host's may be an hour ahead of it."""
    other = Owner("elsewhere", os.getpid(), 0.0, "2026-01-01T00:00:00", "x")
    (tmp_path / OWNER).write_text(json.dumps(vars(other)))
    now = time.time()
    monkeypatch.setattr(locks.time, "time", lambda: now + 3600)
    assert owner_of(tmp_path) == other
    os.utime(tmp_path / OWNER, (now - locks.STALE - 1,) * 2)
    assert owner_of(tmp_path) is None and [item.name for item in tmp_path.iterdir()] == [OWNER]


def test_a_process_number_that_was_given_again_is_no_owner(tmp_path: Path) -> None:
    mine = Owner.this_process()
    (tmp_path / OWNER).write_text(json.dumps({**vars(mine), "started": mine.started - 500}))
    assert owner_of(tmp_path) is None


def test_an_owner_shows_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.05)
    with one_writer(tmp_path):
        os.utime(tmp_path / OWNER, (0, 0))
        until(lambda: (tmp_path / OWNER).stat().st_mtime > 0)
        assert owner_of(tmp_path) == Owner(**json.loads((tmp_path / OWNER).read_text()))


def test_a_folder_that_goes_while_it_is_looked_at_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``mkdir`` finds it, then its last owner removes it, then ``mkdir`` finds no folder of that name."""
    plain, failed = Path.mkdir, list[Path]()

    def mkdir(self: Path, *given: Any, **named: Any) -> None:
        if self == tmp_path / "held" and not failed:
            failed.append(self)
            raise FileExistsError(17, "File exists")
        plain(self, *given, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with one_writer(tmp_path / "held"):
        assert failed == [tmp_path / "held"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(VarlabError, match="cannot be written in"), one_writer(tmp_path / "file"):
        pass


def test_no_two_hold_a_folder_at_once(tmp_path: Path) -> None:
    """Each adds one to a number that only one may read and write; the folder itself comes and goes."""
    (tmp_path / "number").write_text("0")

    def add() -> None:
        for _ in range(10):
            with one_writer(tmp_path / "held", tell=lambda _: None):
                count = int((tmp_path / "number").read_text())
                time.sleep(0.001)
                (tmp_path / "number").write_text(str(count + 1))

    processes = [start(add, tmp_path / f"error-{i}") for i in range(6)]
    for process in processes:
        process.join(HANG)
    assert (tmp_path / "number").read_text() == "60", [path.read_text() for path in tmp_path.glob("error-*")]
    assert not list((tmp_path / "held").glob("*"))

"""Figures of many folders by several processes, and what is worked out once: no byte differs, nothing is left."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from shutil import copytree

import matplotlib.pyplot as plt
import pytest

from tests.test_redraw import stored
from tests.toy_logs import toy_log
from varlab.errors import VarlabError
from varlab.figures import fonts, layout, redraw
from varlab.figures.processes import cores, processes
from varlab.runs.folders import write_log


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four, the fewest that several processes share; the second has a log of another kind."""
    place = tmp_path_factory.mktemp("runs")
    first, other = stored(place / "a", "step-redundancy"), stored(place / "b", "branch-divergence")
    return [first, other, *(Path(copytree(first, place / name)) for name in "cd")]


@pytest.fixture(scope="module")
def drawn(runs: list[Path]) -> list[Path]:
    return redraw(runs, runs[0].parent / "drawn")


def test_several_processes_give_the_same_files_and_manifest(runs: list[Path], drawn: list[Path]) -> None:
    again = redraw(runs, drawn[0].parent.with_name("again"), workers=2)
    assert [path.name for path in again] == [path.name for path in drawn] and len(drawn) == 3 * 9 + 1
    for one, other in zip(drawn, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_what_is_remembered_changes_no_byte(
    runs: list[Path], drawn: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against matplotlib as it is: every text measured, all ticks sought, each font cut out of the whole one."""
    monkeypatch.setattr(layout, "same_texts", nullcontext)
    monkeypatch.setattr(layout, "same_ticks", nullcontext)
    monkeypatch.setattr(sys.modules["varlab.figures.redraw"], "same_texts", nullcontext)
    monkeypatch.setattr(fonts, "_cut", lambda usual, font, glyphs: usual(font, glyphs))
    plain = redraw(runs[:2], tmp_path / "plain")
    for path in plain[:-1]:
        assert path.read_bytes() == (drawn[0].parent / path.name).read_bytes(), path.name
    assert len(plain) == 3 * 5 + 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_that_cannot_be_drawn_is_named_and_the_others_are_drawn(
    runs: list[Path], tmp_path: Path, workers: int
) -> None:
    broken, tree = tmp_path / "broken", toy_log(n=4)
    for name in set(tree.children) - {"step-redundancy"}:
        del tree[name]
    del tree["step-redundancy"]["ssim"]
    write_log(broken, tree)
    with pytest.raises(VarlabError, match="broken could not be drawn from broken-step_redundancy on"):
        redraw([broken, *runs[:3]], tmp_path / "out", formats=["png"], workers=workers)
    names = {path.name for path in tmp_path.joinpath("out").iterdir()}
    assert {"a-saturation.png", "b-branch_divergence.png", "c-step_redundancy.png", "figures.json"} <= names
    assert not any(name.startswith("broken") for name in names)
    plt.close("all")


def _work(task: str) -> int:
    if task == "it ends its process":
        os._exit(1)
    return len(task)


def test_a_process_that_is_ended_from_outside_is_noted() -> None:
    with processes(1, cores) as pool:
        assert pool.each(_work, ["four", "it is five"], len) == [4, 10]
        assert pool.each(_work, ["it ends its process"], lambda task: -1) == [-1]
    assert cores() >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes")
def test_ctrl_c_ends_all_processes(runs: list[Path], tmp_path: Path) -> None:
    code = "from varlab.cli import main; main()"
    call = [sys.executable, "-c", code, "figures", *map(str, runs), "--workers", "2", "--out", str(tmp_path / "out")]
    running = subprocess.Popen(call, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not [*tmp_path.glob("out/*")]:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate()
    assert running.returncode != 0 and "Traceback" not in said
    assert not tmp_path.joinpath("out", "figures.json").exists()
    for _ in range(600):
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a process was left")

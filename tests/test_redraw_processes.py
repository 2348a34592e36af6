"""Figures of many folders by several processes, and what is worked out once: no byte differs, nothing is left."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
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
from varlab.figures.redraw import Made, Task
from varlab.figures.redundancy import saturation
from varlab.figures.sources import Drawing, Plan
from varlab.runs.folders import write_log
from varlab.writing import draft_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four, the fewest that several processes share; the second has a log of another kind."""
    place = tmp_path_factory.mktemp("runs")
    first, other = stored(place / "a", "step-redundancy"), stored(place / "b", "branch-divergence")
    return [first, other, *(Path(copytree(first, place / name)) for name in "cd")]


@pytest.fixture(scope="module")
def drawn(runs: list[Path]) -> list[Path]:
    return redraw(runs, runs[0].parent / "drawn")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A run whose only group lacks what its figures show."""
    tree = toy_log(n=4)
    for name in set(tree.children) - {"step-redundancy"}:
        del tree[name]
    del tree["step-redundancy"]["ssim"]
    write_log(tmp_path / "broken", tree)
    return tmp_path / "broken"


FAILED = "broken could not be drawn from broken-step_redundancy on"


def test_several_processes_give_the_same_files_and_manifest(runs: list[Path], drawn: list[Path], broken: Path) -> None:
    """Beside a folder that cannot be drawn, which is named."""
    out = broken.with_name("again")
    with pytest.raises(VarlabError, match=FAILED):
        redraw([broken, *runs], out, workers=2)
    assert {path.name for path in out.iterdir()} == {path.name for path in drawn} and len(drawn) == 3 * 9 + 1
    for path in drawn:
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


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


def test_a_folder_that_cannot_be_drawn_is_named_and_the_others_are_drawn(runs: list[Path], broken: Path) -> None:
    before, out = plt.get_fignums(), broken.with_name("out")
    with pytest.raises(VarlabError, match=FAILED):
        redraw([broken, *runs[:2]], out, formats=["png"])
    names = {path.name for path in out.iterdir()}
    assert {"a-saturation.png", "b-branch_divergence.png", "figures.json"} <= names
    assert not any(name.startswith("broken") for name in names)
    assert plt.get_fignums() == before


def test_the_folder_that_one_is_in_has_its_name(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs[1])
    made = redraw([".", "../a"], tmp_path, formats=["png"])
    assert {path.name[:2] for path in made[:-1]} == {"a-", "b-"}
    assert {figure["of"] for figure in json.loads(made[-1].read_text())["figures"]} == {"a", "b"}


def test_a_log_is_let_go_once_its_figures_are_drawn(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take a quarter of a GiB."""

    class Plans(list[Plan]):
        """To which, unlike a list, there are weak references."""

    planned, alive = list[weakref.ref[Plans]](), list[int]()

    def drawings(folder: Path) -> Plans:
        plans = Plans([(Drawing("one", saturation), saturation)])
        planned.append(weakref.ref(plans))
        return plans

    def draw_source(task: Task, plans: Plans) -> Made:
        alive.append(sum(one() is not None for one in planned))
        return [], ""

    monkeypatch.setattr(sys.modules["varlab.figures.redraw"], "drawings", drawings)
    monkeypatch.setattr(sys.modules["varlab.figures.redraw"], "draw_source", draw_source)
    redraw(runs[:3], tmp_path)
    assert alive == [3, 2, 1]


def _work(task: str) -> int:
    if Path(task).is_absolute():  # it is ended while it writes this file
        draft_of(Path(task)).touch()
        os._exit(1)
    return len(task)


def test_a_process_that_is_ended_from_outside_is_noted_and_leaves_nothing(tmp_path: Path) -> None:
    other = draft_of(tmp_path / "of another process.png")
    other.touch()
    with processes(1, cores, tmp_path) as pool:
        assert pool.each(_work, ["four", "it is five"], len) == [4, 10]
        assert pool.each(_work, [str(tmp_path / "a.png")], lambda task: -1) == [-1]
        assert len([*tmp_path.iterdir()]) == 2
        assert pool.each(_work, ["four"], lambda task: -1) == [-1]  # nor does one begin any more
    assert [*tmp_path.iterdir()] == [other]
    assert cores() >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes")
def test_ctrl_c_ends_all_processes(runs: list[Path], tmp_path: Path) -> None:
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # some shells have it ignored
    code = f"{heard}\nfrom varlab.cli import main; main()"
    call = [sys.executable, "-c", code, "figures", *map(str, runs), "--workers", "2", "--out", str(tmp_path / "out")]
    running = subprocess.Popen(call, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not [*tmp_path.glob("out/*")]:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate()
    assert running.returncode != 0 and "Traceback" not in said
    assert not [*tmp_path.glob("out/.draft-*"), *tmp_path.glob("out/figures.json")]
    for _ in range(600):
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a process was left")

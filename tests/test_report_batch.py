"""Many reports from one file: checked together, unchanged ones left, a failed one in nobody's way."""

import os
import signal
from base64 import b64decode
from dataclasses import replace
from multiprocessing import Pipe, active_children
from pathlib import Path
from threading import Event
from time import sleep
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from tests.toy_reports import write_notebook
from tests.waiting import HANG, until
from varlab import reports
from varlab.cli.batches import Lines
from varlab.errors import VarlabError
from varlab.report_inputs import shared_minis
from varlab.reports.batch import Order, Pace, _make_one
from varlab.reports.forked import threads
from varlab.reports.orders import order_of
from varlab.reports.run import report_key
from varlab.runs.watched import WATCHED

SAYS = """print("n is", n)
from time import sleep
from varlab.runs.watched import watched
if tell := watched():  # in a batch
    tell(3, 8)
    sleep(1.5)"""
DRAWS = """import builtins
import pandas as pd
import varlab as vl
assert not hasattr(builtins, "mine"), "another notebook was here"
builtins.mine = True
axes = vl.figures.panels(1)[0]
axes.plot([1, 2, n])
vl.figures.save(axes, "drawn", pd.DataFrame({"n": [n, 0.1]}))
from pathlib import Path
from varlab.resources import code_digest
from varlab.weights import ready
known = ["code"] * code_digest.cache_info().currsize
Path(report_folder, "ready.csv").write_text(" ".join([*known, *ready._ready]))
print("depth", vl.load("nano-infinity").depth)
"""


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports of one notebook, one that fails in between, and one whose kernel dies."""
    place = tmp_path_factory.mktemp("batch")
    good = write_notebook(
        place / "good.ipynb", new_markdown_cell("# It works"), new_code_cell(DRAWS), new_code_cell(SAYS)
    )
    bad = write_notebook(place / "bad.ipynb", new_markdown_cell("# It fails"), new_code_cell("sum(['x'])"))
    dies = write_notebook(place / "dies.ipynb", new_markdown_cell("# It dies"), new_code_cell("import os; os._exit(1)"))
    text = f"- {good}\n- report: {bad}\n- {dies}\n- report: {good}\n  parameters:\n    n: 9\n  name: nine\n"
    (place / "batch.yaml").write_text(text)
    return place / "batch.yaml"


@pytest.fixture(scope="module")
def made(batch: Path) -> tuple[list[Any], dict[str, str]]:
    orders, said = reports.read_batch(batch), []
    failed = reports.make_batch(
        orders, batch.parent / "out", told=lambda *words: said.append(words), models=["nano-infinity"]
    )
    return said, failed


def test_the_others_go_on_when_one_fails(batch: Path, made: tuple[list[Any], dict[str, str]]) -> None:
    said, failed = made
    assert set(failed) == {"bad", "dies"} and "TypeError" in failed["bad"] and "died" in failed["dies"]
    out = batch.parent / "out"
    assert (out / "good" / "good.html").is_file() and (out / "nine" / "nine.html").is_file()
    assert (out / "bad" / "draft" / "bad.ipynb").is_file()  # what ran stays readable
    states = {(name, state) for name, state, _ in said}
    assert ("good", "done") in states and ("good", "cell 5 of 5, prompt 3 of 8") in states
    assert all(left >= 0 for _, _, left in said if left is not None)
    index = (out / "index.html").read_text("utf-8")
    assert "It works" in index
    for words in ("It fails", "The last run stopped", "not recorded", 'href="bad/draft/bad.ipynb"'):
        assert words in index  # a first run that fails has a card


def test_a_report_of_a_batch_is_that_of_one_made_alone(batch: Path, made: tuple[list[Any], dict[str, str]]) -> None:
    """Its kernel is a fork of a process that knows the package; of other notebooks it knows nothing."""
    alone = reports.run_report(batch.parent / "good.ipynb", {}, batch.parent / "alone").folder
    for name in ("drawn.csv", "drawn.png", "drawn.pdf"):
        assert (alone / name).read_bytes() == (batch.parent / "out" / "good" / name).read_bytes()
    kept = [(place / "ready.csv").read_text() for place in (alone, batch.parent / "out" / "good")]
    assert kept == ["", "code nano-infinity"]  # loaded once for all; a digest of the code that they run
    outputs = [
        [cell.get("outputs") for cell in nbformat.read(place / "good.ipynb", 4).cells]
        for place in (alone, batch.parent / "out" / "good")
    ]
    assert outputs[0] == outputs[1]
    shown = [output.get("data", {}).get("image/png") for given in outputs[0] for output in given or ()]
    assert [b64decode(text) for text in shown if text] == [
        (alone / "drawn.png").read_bytes()
    ]  # not drawn again for the page


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_of_a_batch_outlives_it(batch: Path, made: Any, tmp_path: Path, killed: bool) -> None:
    """Ctrl-C stops reports as it stops one alone; that a report's process was killed is said, and its kernel ends."""
    source = write_notebook(
        tmp_path / "long.ipynb", new_markdown_cell("# Long"), new_code_cell(f"import time\ntime.sleep({HANG})")
    )

    def told(name: str, state: str, left: float | None) -> None:
        if state == "cell 4 of 4":
            if not killed:
                raise KeyboardInterrupt
            max(active_children(), key=lambda child: int(child.name.split("-")[1])).kill()  # started after its kernel

    order = order_of(source, {})
    if killed:
        failed = reports.make_batch([order], tmp_path / "out", told=told)
        assert failed == {"long": "its process died (exit code -9). Not enough memory is the usual cause."}
    else:
        with pytest.raises(KeyboardInterrupt):
            reports.make_batch([order], tmp_path / "out", told=told)
        draft = nbformat.read(tmp_path / "out" / "long" / "draft" / "long.ipynb", as_version=4)
        assert draft.metadata["varlab"]["error"] == "interrupted"
    until(lambda: not active_children())


def test_a_report_ends_with_the_process_that_makes_its_batch(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, (said, saying) = Event(), Pipe(duplex=False)

    def run_report(*given: Any, **options: Any) -> None:
        ended.set()
        for _ in range(int(20 * HANG)):  # a signal just before one long sleep would end it only after that
            sleep(0.05)

    monkeypatch.setattr("varlab.reports.batch.run_report", run_report)
    monkeypatch.setattr("varlab.reports.batch.parent_process", lambda: SimpleNamespace(join=ended.wait))
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        seen = {**os.environ, WATCHED: str(tmp_path / "seen")}
        _make_one(order_of(batch.parent / "good.ipynb", {}), tmp_path, False, seen, saying, None)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        os.environ.pop(WATCHED, None)
    assert not said.poll()


def test_threads_are_those_that_openmp_would_take() -> None:
    whole = os.cpu_count() or 1
    asked = {"3": 3, " 2 ": 2, "4,1": 4, "0": whole, "-1": whole, "": whole, "many": whole, str(1 << 40): whole}
    assert {text: threads(text) for text in asked} == asked


def test_an_unchanged_report_is_left_and_a_changed_one_made_again(
    batch: Path, made: tuple[list[Any], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = batch.parent / "out", []
    good = reports.read_batch(batch)[0]
    before = (out / "good" / "good.html").stat().st_mtime_ns
    assert reports.make_batch([good], out, told=lambda *words: said.append(words)) == {}
    assert said == [("good", "unchanged", None)] and (out / "good" / "good.html").stat().st_mtime_ns == before
    notebook = nbformat.read(good.notebook, as_version=4)
    notebook.cells[-1].source = "print('another', n)"
    nbformat.write(notebook, good.notebook)
    again: list[Order] = []
    monkeypatch.setattr("varlab.reports.batch._made", lambda waiting, *_: again.extend(waiting))
    reports.make_batch([good], out)
    assert again == [good]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a: [", "is not YAML"),
        ("report: x", "not a list of reports"),
        ("", "not a list of reports"),
        ("- parameters: {n: 1}", "no `report:`"),
        ("- report: 01_residual_spectra\n  parametrs: {n: 1}", "parameters"),
        ("- report: 01_residual_spectra\n  parameters: {m: 1}", "Unknown parameter 'm'"),
        ("- report: 01_residual_spectra\n  parameters: [1]", "NAME: VALUE"),
        ("- report: 01_residual_spectrum", "01_residual_spectra"),
        ("- 01_residual_spectra\n- 01_residual_spectra", "two reports of the name"),
        ("- report: 01_residual_spectra\n  name: ../x", "cannot name a report"),
    ],
)
def test_a_wrong_file_is_refused_before_a_report_is_made(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "batch.yaml").write_text(text)
    with pytest.raises(VarlabError, match=message):
        reports.read_batch(tmp_path / "batch.yaml")
    with pytest.raises(VarlabError, match="cannot be read"):
        reports.read_batch(tmp_path / "absent.yaml")


def test_reports_of_other_inputs_are_refused_together_before_one_is_made(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were asked for with other inputs, and those whose notebook has other ones now."""
    orders = [order for order in reports.read_batch(batch) if order.name in ("good", "nine", "bad")]
    for order, n in zip(orders, (5, 8, 7), strict=True):
        path = tmp_path / order.name / f"{order.name}.ipynb"
        path.parent.mkdir()
        inputs = order.all_inputs | {"n": n}
        nbformat.write(nbformat.v4.new_notebook(metadata={"varlab": {"parameters": inputs}}), path)
    before = sorted(tmp_path.rglob("*"))
    made: list[Order] = []
    monkeypatch.setattr("varlab.reports.batch._made", lambda waiting, *_: made.extend(waiting))
    with pytest.raises(VarlabError) as refused:
        reports.make_batch(orders, tmp_path)
    said = str(refused.value)
    assert said.startswith("2 reports of other inputs would be replaced: ") and "--overwrite" in said
    assert "good (n was 5 and by default is now 8)" in said and "nine (n was 7 and is to be 9)" in said
    assert not made and sorted(tmp_path.rglob("*")) == before
    reports.make_batch(orders, tmp_path, overwrite=True)
    assert made == orders


def test_the_time_left_goes_by_what_each_report_took_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("varlab.reports.batch.monotonic", lambda: now[0])
    pace = Pace({"long": 30.0, "short": 10.0, "new": None})  # a new one counts as the mean of the others, 20
    now[0] = 106.0
    assert pace.left("long", 0.0) is None  # nothing is done
    assert pace.left("long", 0.5) == pytest.approx(6 * (60 - 15) / 15)
    now[0] = 120.0
    assert pace.left("short", 1.0) == pytest.approx(20 * (60 - 25) / 25)


def test_lines_of_a_log_are_few(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("varlab.cli.batches.monotonic", lambda: now[0])
    lines = Lines()
    for i in range(60):
        now[0] = i / 10
        lines("a", f"cell 2 of 9, prompt {i} of 60", 75.0)
    lines("a", "done", 0.0)
    said = capsys.readouterr()
    assert (said.out + said.err).splitlines() == [
        "    0 s  a: cell 2 of 9, prompt 0 of 60; about 0:01:15 left",
        "    5 s  a: cell 2 of 9, prompt 50 of 60; about 0:01:15 left",
        "    6 s  a: done; about 0:00:00 left",
    ]


def test_make_report_loads_a_mini_once() -> None:
    read = [
        {"mini-infinity": "", "all": ""},
        {"infinity-2b": ""},
        {"mini-infinity": "", "mini-var": ""},
        {"infinity-2b": ""},
    ]
    assert shared_minis([Order(Path("x"), {}, "x", each) for each in read]) == ["mini-infinity"]


def test_make_report_makes_every_notebook() -> None:
    orders = reports.read_batch(reports.notebook_folder() / "reports.yaml")
    assert {order.notebook.stem for order in orders} == set(reports.list_notebooks())
    plain = {order.notebook.stem for order in orders if not order.inputs}
    assert plain == set(reports.list_notebooks())  # each as it stands, beside those for another model


def test_what_a_report_reads_makes_it_again(batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt file of the same name may hold others, and a model of the same name have other weights."""
    seen: list[dict[str, Any]] = []
    good = reports.read_batch(batch, read=lambda inputs: seen.append(dict(inputs)) or {"file": "one"})[0]  # type: ignore[func-returns-value]
    made: list[Order] = []
    monkeypatch.setattr("varlab.reports.batch._made", lambda waiting, *_: made.extend(waiting))
    place = tmp_path / good.name / f"{good.name}.ipynb"
    place.parent.mkdir()
    place.with_suffix(".html").write_text("")
    key = report_key(good.notebook, seen[0], {"file": "one"})
    record = {"status": "complete", "key": key, "parameters": seen[0]}
    nbformat.write(nbformat.v4.new_notebook(metadata={"varlab": record}), place)
    changed = replace(good, read={"file": "two"})
    for order in (good, changed):
        reports.make_batch([order], tmp_path)
    assert made == [changed]

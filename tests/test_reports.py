"""The report runner: inputs checked before work, this interpreter, offline pages, no trace of the machine."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.toy_reports import BODY, DOT, INTRO, toy, write_notebook  # noqa: F401
from varlab import reports
from varlab.errors import VarlabError
from varlab.resources import shipped


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> reports.Report:
    """One real run, in a place whose installed `python3` kernel is a trap."""
    place = tmp_path_factory.mktemp("workplace")
    source = write_notebook(place / "notebooks" / "toy.ipynb", new_markdown_cell(INTRO), new_code_cell(BODY))
    (source.parent / "dot.png").write_bytes(DOT)
    trap = place / "jupyter" / "kernels" / "python3"
    trap.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "trap", "language": "python"}
    (trap / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(place / "jupyter"))
        patch.setenv("MPLBACKEND", "agg")
        patch.chdir(place)
        given = {"n": "3", "tau": 1, "quick": "true", "sizes": "4, 5", "taus": "0.5,1", "limit": "none"}
        return reports.run_report("toy", given, "reports", name="toy")


# Parameters --------------------------------------------------------------------------------------------------


def test_parameters_are_read_with_type_default_and_help(toy: Path) -> None:
    found = reports.notebook_parameters(toy)
    assert list(found) == ["n", "tau", "model", "quick", "sizes", "taus", "limit", "report_folder"]
    assert found["n"] == reports.Parameter("n", "int", 8, "images per prompt")
    assert found["taus"] == reports.Parameter("taus", "list[float] | None", None, "none for the usual ones")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "no cells tagged 'parameters'"),
        ("n = 8", "line 1 is not"),
        ("n: int", "no default"),
        ("n: dict = {}", "type dict; supported are int"),
        ("n: list = []", "type list"),
        ("n: int = '8'", "its default is '8'"),
        ("n: bool = 1", "expects bool, got 1"),
        ("n: int = len([])", "not a plain value"),
        ("n: int = 1\nn: int = 2", "declared twice"),
        ("%matplotlib inline", "not Python"),
    ],
)
def test_a_bad_parameters_cell_is_refused(tmp_path: Path, cell: str | None, message: str) -> None:
    path = write_notebook(tmp_path / "bad.ipynb", new_markdown_cell("# Bad"), parameters=cell)
    with pytest.raises(VarlabError, match=re.escape(message)):
        reports.notebook_parameters(path)


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        ("int", "3", 3),
        ("int", 3, 3),
        ("int", "-3", -3),
        ("float", 3, 3.0),
        ("float", "1e-3", 1e-3),
        ("str", "3", "3"),
        ("str", "none", "none"),
        ("str | None", "none", None),
        ("None | int", "None", None),
        ("int | None", "3", 3),
        ("bool", "no", False),
        ("bool", "1", True),
        ("list[int]", "1,2,3", [1, 2, 3]),
        ("list[int]", "[1, 2]", [1, 2]),
        ("list[int]", "7", [7]),
        ("list[int]", "", []),
        ("list[float]", (1, 2), [1.0, 2.0]),
        ("list[str]", "a, 'b c'", ["a", "b c"]),
        ("list[str] | None", None, None),
    ],
)
def test_values_become_the_declared_type(annotation: str, given: object, value: object) -> None:
    result = reports.Parameter("p", annotation, None).coerce(given)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        ("int", "3.5"),
        ("int", 3.0),
        ("int", True),
        ("int", "none"),
        ("int", None),
        ("float", "much"),
        ("float", True),
        ("str", 3),
        ("bool", "maybe"),
        ("bool", 1),
        ("list[int]", "1,x"),
        ("list[int]", 3),
        ("list[int]", [True]),
    ],
)
def test_values_of_another_type_are_refused(annotation: str, given: object) -> None:
    with pytest.raises(VarlabError, match=re.escape(f"expects {annotation}, got {given!r}")):
        reports.Parameter("p", annotation, None).coerce(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sises": "1"}, "Unknown parameter 'sises'. Did you mean sizes"),
        ({"n": "many"}, "Parameter n expects int, got 'many'. images per prompt"),
        ({"report_folder": "x"}, "set by the runner"),
    ],
)
def test_a_wrong_parameter_stops_before_anything_starts(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(reports.run, "_execute", lambda *_: pytest.fail("a kernel was started"))
    with pytest.raises(VarlabError, match=re.escape(message)):
        reports.run_report(toy, given, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


# Notebooks ---------------------------------------------------------------------------------------------------


def test_notebooks_are_found_by_name_and_by_path(toy: Path) -> None:
    assert reports.list_notebooks(toy.parent) == {"toy": toy}
    assert reports.find_notebook("toy", toy.parent) == toy
    assert reports.find_notebook(toy) == toy
    with pytest.raises(VarlabError, match=r"Unknown report 'tuy'\. Did you mean toy"):
        reports.find_notebook("tuy", toy.parent)
    with pytest.raises(VarlabError, match="No notebook at"):
        reports.find_notebook(toy.parent / "absent.ipynb")


def test_the_notebook_folder_is_that_of_the_working_directory_first(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "notebooks"
    own.mkdir()
    shutil.copy(toy, own)
    monkeypatch.chdir(tmp_path)
    assert reports.notebook_folder() == own
    assert reports.find_notebook("01_residual_spectra") == shipped("notebooks") / "01_residual_spectra.ipynb"
    monkeypatch.chdir(own)
    assert reports.notebook_folder() == own


def test_a_folder_of_other_notebooks_hides_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "notebooks"
    own.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), own / "mine.ipynb")
    (own / "damaged.ipynb").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert reports.notebook_folder() == shipped("notebooks")
    assert "mine" not in reports.list_notebooks()


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_text("{")
    with pytest.raises(VarlabError, match="not a readable notebook"):
        reports.notebook_parameters(path)


# One run -----------------------------------------------------------------------------------------------------


def printed(report: reports.Report) -> str:
    cells = nbformat.read(report.notebook, as_version=4).cells
    return "".join(o.text for c in cells for o in c.get("outputs", []) if o.output_type == "stream")


def test_the_kernel_is_this_interpreter_and_gets_the_values(done: reports.Report) -> None:
    text = printed(done)
    assert f"kernel {sys.version_info[:2]}" in text
    assert "values 3 1.0 mini True [4, 5] [0.5, 1.0] None" in text


def test_a_run_leaves_notebook_page_and_figures(done: reports.Report) -> None:
    names = {file.name for file in done.folder.iterdir()}
    figure = {"line_plot.png", "line_plot.pdf", "line_plot.csv", "summary.csv"}
    assert names == {"toy.ipynb", "toy.html", "facts.json"} | figure
    run = nbformat.read(done.notebook, as_version=4).metadata["varlab"]
    assert run["status"] == "complete"
    assert run["parameters"] == {
        "n": 3,
        "tau": 1.0,
        "model": "mini",
        "quick": True,
        "sizes": [4, 5],
        "taus": [0.5, 1.0],
        "limit": None,
    }
    assert set(run["files"]) == figure | {"facts.json"}
    assert run["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_nothing_shows_the_machine_or_the_clock(done: reports.Report) -> None:
    place = done.folder.parent.parent
    for file in (done.notebook, done.html, done.index, done.folder / "facts.json"):
        text = file.read_text("utf-8")
        for trace in (str(place), sys.prefix, str(Path.home()) + "/", "ipykernel_", "somewhere-else"):
            assert trace not in text, (file.name, trace)
    notebook = nbformat.read(done.notebook, as_version=4)
    assert notebook.metadata.papermill.output_path == "toy.ipynb"
    assert "duration" not in done.notebook.read_text()
    assert "places . reports/toy" in printed(done)


class Loads(HTMLParser):
    """Everything a browser would fetch by itself; links that a reader follows do not count."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        loading = ["src", "srcset", "poster", "data", "background", "xlink:href"]
        loading += [] if tag == "a" else ["href"]
        self.found += [values[key] or "" for key in loading if key in values]
        self.found += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", values.get("style") or "")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self.found += [a or b for a, b in re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", data)]


def test_pages_load_nothing_from_elsewhere(done: reports.Report) -> None:
    page, index = done.html.read_text("utf-8"), done.index.read_text("utf-8")
    assert all(load.startswith("data:image/") for load in Loads(page).found)
    assert set(Loads(index).found) == {"toy/line_plot.png"}
    assert "<script" not in page and index.count("<script") == 1  # its own, allowed by its digest
    for html in (page, index):
        assert "Content-Security-Policy" in html


def test_the_page_shows_text_figures_and_settings(done: reports.Report) -> None:
    page = done.html.read_text("utf-8")
    for words in ("kept bold", "kept words", "images per prompt", "(default 8)", "toy weights", "Late &lt;scales&gt;"):
        assert words in page, words
    assert page.count("data:image/png;base64,") == 2  # the figure and the picture beside the notebook
    assert '<a href="https://f.example/picture.png">[not embedded: far]</a>' in page
    assert '<a href="https://paper.example/1">' in page
    assert page.count('class="math"') == 3
    assert "injected" not in page
    assert "In [" not in page


def test_the_index_shows_each_report(done: reports.Report) -> None:
    index = done.index.read_text("utf-8")
    assert ">Late scales &amp; their energy</a>" in index
    assert "Residuals, e.g. those of Fig. 2, hold <strong>little</strong> energy <svg" in index
    assert "A second sentence" not in index
    for link in ("toy.html", "toy.ipynb", "line_plot.png", "line_plot.pdf", "line_plot.csv", "summary.csv"):
        assert f'href="toy/{link}"' in index, link
        assert (done.folder / link).is_file()
    for words in ("toy weights", "Late &lt;scales&gt; are cheap", 'verdict bad">does not hold', "torch", "UTC"):
        assert words in index, words


# Runs that stop ----------------------------------------------------------------------------------------------


# Pieces ------------------------------------------------------------------------------------------------------

"""The report runner: inputs checked before work, this interpreter, offline pages, no trace of the machine."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from varlab import reports
from varlab.api import absent_models
from varlab.claims import Outcome, Verdict
from varlab.errors import VarlabError
from varlab.reports.facts import verdict_rows
from varlab.reports.headings import first_sentence, plain
from varlab.reports.page import markdown_html, take_offline
from varlab.reports.parameters import Parameter
from varlab.reports.tidy import path_cleaner
from varlab.resources import shipped

PARAMETERS = """\
"What this notebook takes."
n: int = 8  # images per prompt
tau: float = 0.6  # threshold
model: str = "mini"
quick: bool = False
sizes: list[int] = [1, 2]
taus: list[float] | None = None  # none for the usual ones
limit: int | None = None
report_folder: str = "reports/toy"
"""

BODY = """\
import sys, warnings
from pathlib import Path
import matplotlib.pyplot as plt
from IPython.display import HTML, Latex, display
from varlab.claims import Outcome, Verdict
from varlab.reports import record
fig, ax = plt.subplots(figsize=(2, 1)); ax.plot([1, 2])
folder = Path(report_folder)
for kind in ("png", "pdf"):
    fig.savefig(folder / f"line_plot.{kind}")
(folder / "line_plot.csv").write_text("x")
(folder / "summary.csv").write_text("x")
plt.show()
print("kernel", sys.version_info[:2], sys.executable)
print("values", n, tau, model, quick, sizes, taus, limit)
print("places", Path.cwd(), folder.resolve())
warnings.warn("a warning with a place")
display(HTML('<script src="https://evil.example/x.js"></script><link rel="stylesheet" href="https://f.example/a">'
  '<style>@import url(https://f.example/b); p {background: url("//f.example/c")}</style><b>kept bold</b>'
  '<iframe src="//f.example/d"></iframe><p style="background:url(https://f.example/e)">kept words</p>'))
display(Latex(r"$$\\alpha^2$$"))
record(model=model, weights="toy weights", n=n, seed=0, verdicts=[
  Verdict("Late <scales> are cheap", Outcome.HOLDS, "3 %"),
  Verdict("Nothing is lost", Outcome.FAILS, "4 dB")])
"""

INTRO = """\
# Late scales & their `energy`

Residuals, e.g. those of Fig. 2, hold **little** energy $r_k^2$. A second sentence links [a
paper](https://paper.example/1).

![far](https://f.example/picture.png) ![near](dot.png)

$$\\frac{1}{N}\\sum_i x_i$$
"""

DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def write_notebook(path: Path, *cells: nbformat.NotebookNode, parameters: str | None = PARAMETERS) -> Path:
    tagged = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    metadata = {"kernelspec": {"name": "somewhere-else", "display_name": "x", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[*cells[:1], *tagged, *cells[1:]], metadata=metadata), path)
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "toy.ipynb", new_markdown_cell(INTRO), new_code_cell(BODY))


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
    assert Loads(index).found == ["toy/line_plot.png"]
    for html in (page, index):
        assert "<script" not in html
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


def test_a_failing_cell_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    cells = [new_code_cell("print('before')"), new_code_cell("sum(['x'])\n"), new_code_cell("print('after')")]
    source = write_notebook(tmp_path / "fails.ipynb", new_markdown_cell("# It fails"), *cells)
    out = tmp_path / "reports"
    last = out / "fails"
    last.mkdir(parents=True)
    (last / "fails.html").write_text("the page of the last run")
    (last / "old.png").write_bytes(DOT)
    (last / "mine.png").write_bytes(DOT)
    inputs = {name: p.default for name, p in reports.notebook_parameters(source).items() if name != "report_folder"}
    earlier = new_notebook(metadata={"varlab": {"files": ["old.png"], "parameters": inputs}})
    nbformat.write(earlier, last / "fails.ipynb")
    with pytest.raises(VarlabError, match=r"begins \"sum\(\['x'\]\)\" failed. TypeError: unsupported") as error:
        reports.run_report(source, {}, out)
    assert str(last / "draft" / "fails.ipynb") in str(error.value)
    notebook = nbformat.read(last / "draft" / "fails.ipynb", as_version=4)
    assert notebook.metadata["varlab"]["status"] == "stopped"
    assert "before" in str(notebook) and "after\\n" not in str(notebook)
    assert str(tmp_path) not in (last / "draft" / "fails.ipynb").read_text()
    assert {file.name for file in last.iterdir()} == {"draft", "fails.ipynb", "fails.html", "mine.png", "old.png"}
    assert (last / "fails.html").read_text() == "the page of the last run"
    index = (out / "index.html").read_text("utf-8")
    assert 'href="fails/fails.html"' in index and "The last run stopped" in index and "fails/draft/fails.ipynb" in index


def test_a_first_run_that_fails_has_a_card(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "fails.ipynb", new_markdown_cell("# It fails"), new_code_cell("sum(['x'])"))
    with pytest.raises(VarlabError, match=r"failed\. TypeError"):
        reports.run_report(source, {}, tmp_path / "reports")
    index = (tmp_path / "reports" / "index.html").read_text("utf-8")
    assert "It fails" in index and "The last run stopped" in index and "not recorded" in index
    assert 'href="fails/draft/fails.ipynb"' in index


def test_a_run_that_succeeds_replaces_the_last_one(toy: Path, tmp_path: Path) -> None:
    last = tmp_path / "reports" / "toy"
    (last / "draft").mkdir(parents=True)
    for file in ("old.png", "mine.png", "line_plot.png", "draft/half.png"):
        (last / file).write_bytes(DOT)
    inputs = {name: p.default for name, p in reports.notebook_parameters(toy).items() if name != "report_folder"}
    held = {"files": ["old.png", "line_plot.png"], "parameters": inputs}
    nbformat.write(new_notebook(metadata={"varlab": held}), last / "toy.ipynb")
    report = reports.run_report(toy, {}, tmp_path / "reports")
    assert not {"old.png", "draft"} & {file.name for file in last.iterdir()} and (last / "mine.png").exists()
    assert (last / "line_plot.png").read_bytes() != DOT and report.html.is_file()
    assert "toy/draft" not in report.notebook.read_text() + report.html.read_text("utf-8")
    assert "run stopped" not in report.index.read_text("utf-8")


def test_a_report_of_other_inputs_is_not_replaced(toy: Path, tmp_path: Path) -> None:
    """Under a name that was asked for; without one it has a name of its own."""
    last = tmp_path / "reports" / "mine"
    last.mkdir(parents=True)
    inputs = {name: p.default for name, p in reports.notebook_parameters(toy).items() if name != "report_folder"}
    nbformat.write(new_notebook(metadata={"varlab": {"parameters": inputs}}), last / "mine.ipynb")
    held = (last / "mine.ipynb").read_bytes()
    with pytest.raises(VarlabError, match=r"other inputs \(n\)"):
        reports.run_report(toy, {"n": 7}, tmp_path / "reports", name="mine")
    assert (last / "mine.ipynb").read_bytes() == held and list(last.iterdir()) == [last / "mine.ipynb"]


def _heed_ctrl_c() -> None:
    """A shell's background job ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_stays_readable(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    body = f"open({str(flag)!r}, 'w').close()\nimport time\ntime.sleep(60)"
    cells = [new_code_cell("print('before')"), new_code_cell(body)]
    source = write_notebook(tmp_path / "long.ipynb", new_markdown_cell("# Long"), *cells)
    code = f"from varlab.reports import run_report; run_report({str(source)!r}, {{}}, 'reports')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    )
    deadline = time.monotonic() + 60
    while not flag.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors and "The half-run notebook" in errors
    notebook = nbformat.read(tmp_path / "reports" / "long" / "draft" / "long.ipynb", as_version=4)
    assert notebook.metadata["varlab"]["error"] == "interrupted"
    assert "before" in str(notebook)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden"])
def test_a_report_name_is_a_plain_folder(toy: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(VarlabError, match="cannot name a report"):
        reports.run_report(toy, {}, tmp_path / "reports", name=name)


# Pieces ------------------------------------------------------------------------------------------------------


def test_facts_add_up_and_a_later_verdict_replaces_the_earlier(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    first, second = (Verdict("c", Outcome.HOLDS, found) for found in ("1", "2"))
    reports.record(report_folder=tmp_path, n=np.int64(3), verdicts=[first])
    reports.record(report_folder=tmp_path, weights=Path("a/b"), verdicts=[second])
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts == {"n": 3, "weights": "a/b", "verdicts": [second.record()]}
    with pytest.raises(VarlabError, match=r"takes varlab\.claims\.Verdict"):
        reports.record(report_folder=tmp_path, verdicts=[{"claim": "c"}])


def test_facts_outside_a_report_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VARLAB_REPORT_FOLDER", raising=False)
    monkeypatch.chdir(tmp_path)
    reports.record(n=3)
    assert not list(tmp_path.iterdir())


def test_an_empty_or_broken_reports_folder_still_has_an_index(tmp_path: Path) -> None:
    assert "No reports yet" in reports.write_index(tmp_path).read_text()
    (tmp_path / "odd name").mkdir()
    (tmp_path / "odd name" / "odd name.ipynb").write_text("{")
    index = reports.write_index(tmp_path).read_text()
    assert "cannot be read" in index and 'href="odd%20name/odd%20name.ipynb"' in index
    with pytest.raises(VarlabError, match="No reports folder"):
        reports.write_index(tmp_path / "absent")


def test_paths_are_shortened_and_nothing_else_is(tmp_path: Path) -> None:
    clean = path_cleaner(tmp_path / "reports")
    assert clean(f"saved {tmp_path}/reports/a.png") == "saved reports/a.png"
    assert clean([f"\x1b[32m{Path.home()}/x.py\x1b[0m:3"]) == ["\x1b[32m~/x.py\x1b[0m:3"]
    assert clean({"at": f"{tmp_path}"}) == {"at": "."}
    assert clean(f"{tmp_path}-other/x 1/2 and 3") == f"{tmp_path}-other/x 1/2 and 3"
    assert clean("File /tmp/ipykernel_12/345.py:1") == "File <cell>:1"
    assert clean(3) == 3


def test_formulas_are_drawn_or_shown_as_source() -> None:
    assert "<svg" in markdown_html(r"the norm $\lVert x \rVert$ of it")
    assert markdown_html(r"\begin{align} a &= b \\ c &= d \end{align}").count("<svg") == 2
    assert r'<code class="tex">\unknown{x}</code>' in markdown_html(r"$\unknown{x}$")
    assert "$5 and" in markdown_html("costs \\$5 and more")


def test_following_a_link_is_left_to_the_reader() -> None:
    kept = '<a href="https://paper.example">paper</a>'
    assert take_offline(kept) == kept
    assert "href" not in take_offline('<base href="https://x.example/"/>')


def test_the_colour_of_a_verdict_is_that_of_its_outcome() -> None:
    tones = {"holds": "good", "partly": "part", "does not hold": "bad", "no difference": "", "too few": ""}
    rows = verdict_rows({"verdicts": [Verdict("c", Outcome(word), "f", "r").record() for word in tones]})
    assert {row["verdict"]: row["tone"] for row in rows} == tones and rows[0]["finding"] == "f r"
    older = {"claim": "c", "finding": "f", "verdict": "cannot be told (n too small)"}
    assert verdict_rows({"verdicts": [older]}) == [older | {"tone": ""}]


def test_titles_and_claims_are_cut_at_the_sentence() -> None:
    assert first_sentence("It is 0.5 dB vs. More at Fig. 3. Then more.") == "It is 0.5 dB vs. More at Fig. 3."
    assert first_sentence("No full stop") == "No full stop"
    assert plain("The [paper](x) says `k` *is* $k$") == "The paper says k is k"
    assert plain(r"From $5 to $10, \*all\* of it") == "From $5 to $10, *all* of it"


def test_a_notebook_whose_mini_is_not_trained_yet_is_told_apart() -> None:
    declared = {"model": Parameter("model", "str", "mini-none"), "n": Parameter("n", "int", 3)}
    assert absent_models(declared, {}) == ["mini-none"]
    assert absent_models(declared, {"model": "nano-infinity"}) == []
    assert absent_models({"model": Parameter("model", "str", "nano-infinity")}, {}) == []

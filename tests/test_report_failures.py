"""Reports that stop, and the pieces of a page."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.toy_reports import DOT, toy, write_notebook  # noqa: F401
from tests.waiting import HANG, until
from varlab import reports
from varlab.claims import Outcome, Verdict
from varlab.errors import VarlabError
from varlab.report_inputs import absent_models
from varlab.reports.facts import verdict_rows
from varlab.reports.headings import first_sentence, plain
from varlab.reports.page import markdown_html, take_offline
from varlab.reports.parameters import Parameter
from varlab.reports.tidy import path_cleaner


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
    with pytest.raises(VarlabError, match=r"mine \(n was 8 and is to be 7\)\. Give --overwrite"):
        reports.run_report(toy, {"n": 7}, tmp_path / "reports", name="mine")
    assert (last / "mine.ipynb").read_bytes() == held and list(last.iterdir()) == [last / "mine.ipynb"]
    (last / "mine.ipynb").write_text("{")
    with pytest.raises(VarlabError, match=r"mine \(.*mine.ipynb.*\)\. Give --overwrite"):
        reports.run_report(toy, {"n": 7}, tmp_path / "reports", name="mine")


def _heed_ctrl_c() -> None:
    """A shell's background job ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_stays_readable(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    body = f"open({str(flag)!r}, 'w').close()\nimport time\ntime.sleep({HANG})"
    cells = [new_code_cell("print('before')"), new_code_cell(body)]
    source = write_notebook(tmp_path / "long.ipynb", new_markdown_cell("# Long"), *cells)
    code = f"from varlab.reports import run_report; run_report({str(source)!r}, {{}}, 'reports')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    )
    until(lambda: flag.exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANG)
    assert "KeyboardInterrupt" in errors and "The half-run notebook" in errors
    notebook = nbformat.read(tmp_path / "reports" / "long" / "draft" / "long.ipynb", as_version=4)
    assert notebook.metadata["varlab"]["error"] == "interrupted"
    assert "before" in str(notebook)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden"])
def test_a_report_name_is_a_plain_folder(toy: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(VarlabError, match="cannot name a report"):
        reports.run_report(toy, {}, tmp_path / "reports", name=name)


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

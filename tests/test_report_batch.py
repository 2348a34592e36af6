"""Many reports from one file: checked together, unchanged ones left, a failed one in nobody's way."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from tests.toy_reports import write_notebook
from varlab import reports
from varlab.errors import VarlabError


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports of one notebook and one that fails in between."""
    place = tmp_path_factory.mktemp("batch")
    good = write_notebook(place / "good.ipynb", new_markdown_cell("# It works"), new_code_cell("print('n is', n)"))
    bad = write_notebook(place / "bad.ipynb", new_markdown_cell("# It fails"), new_code_cell("sum(['x'])"))
    text = f"- {good}\n- report: {bad}\n- report: {good}\n  parameters:\n    n: 9\n  name: nine\n"
    (place / "batch.yaml").write_text(text)
    return place / "batch.yaml"


@pytest.fixture(scope="module")
def made(batch: Path) -> tuple[list[Any], dict[str, str]]:
    orders, said = reports.read_batch(batch), []
    failed = reports.make_batch(orders, batch.parent / "out", told=lambda *words: said.append(words))
    return said, failed


def test_the_others_go_on_when_one_fails(batch: Path, made: tuple[list[Any], dict[str, str]]) -> None:
    said, failed = made
    assert list(failed) == ["bad"] and "TypeError" in failed["bad"]
    out = batch.parent / "out"
    assert (out / "good" / "good.html").is_file() and (out / "nine" / "nine.html").is_file()
    assert (out / "bad" / "draft" / "bad.ipynb").is_file()  # what ran stays readable
    assert ("good", "done") in said and any(state.startswith("cell ") for _, state in said)
    index = (out / "index.html").read_text("utf-8")
    assert "It works" in index
    for words in ("It fails", "The last run stopped", "not recorded", 'href="bad/draft/bad.ipynb"'):
        assert words in index  # a first run that fails has a card


def test_an_unchanged_report_is_left_and_a_changed_one_made_again(
    batch: Path, made: tuple[list[Any], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = batch.parent / "out", []
    good = reports.read_batch(batch)[0]
    before = (out / "good" / "good.html").stat().st_mtime_ns
    assert reports.make_batch([good], out, told=lambda *words: said.append(words)) == {}
    assert said == [("good", "unchanged")] and (out / "good" / "good.html").stat().st_mtime_ns == before
    notebook = nbformat.read(good.notebook, as_version=4)
    notebook.cells[-1].source = "print('another', n)"
    nbformat.write(notebook, good.notebook)
    assert reports.make_batch([good], out) == {}
    assert (out / "good" / "good.html").stat().st_mtime_ns != before
    assert "another 8" in (out / "good" / "good.html").read_text("utf-8")


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

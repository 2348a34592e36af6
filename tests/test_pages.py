"""Pages and index: texts of users as typed, words for images, and nothing wider than a telephone."""

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.toy_pages import FACTS, PROMPTS, SPEC, VERDICT, browser, write_report  # noqa: F401
from varlab import reports
from varlab.claims import Outcome, Verdict
from varlab.markup import as_markdown
from varlab.reports.page import markdown_html, notebook_page


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two reports of one notebook and their index."""
    out = tmp_path_factory.mktemp("reports")
    made = [write_report(out / f"20_compare-{model}", model) for model in ("mini-infinity", "mini-hart")]
    return [*made, reports.write_index(out)]


def text_of(within: Tag, selector: str) -> str:
    found = within.select_one(selector)
    assert found is not None, selector
    return found.get_text()


def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text("utf-8"), "html.parser")


# As typed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*PROMPTS, SPEC])
@pytest.mark.parametrize("around", ["| head |\n|---|\n| {} |", "**{}**", "* {}", "said of {}, and of $x^2$"])
def test_texts_in_markdown_read_as_typed(text: str, around: str) -> None:
    page = BeautifulSoup(markdown_html(around.format(as_markdown(text))), "html.parser")
    assert text in page.get_text()
    assert not page.find_all(["b", "em", "code", "del", "a"])
    assert len(page.find_all("svg")) == around.count("x^2")  # the author's formula is still one
    assert all(text.count("$") < 2 for text in page.find_all(string=True))  # MathJax finds no formula in one text


def test_line_breaks_stay_in_the_cell() -> None:
    cell = as_markdown("one\ntwo")
    page = BeautifulSoup(markdown_html(f"| a | b |\n|---|---|\n| {cell} | x |"), "html.parser")
    assert [str(cell) for cell in page.find_all("td")] == ["<td>one<br/>two</td>", "<td>x</td>"]


def test_the_account_of_a_report_reads_as_typed(pages: list[Path]) -> None:
    cells = [cell.get_text().strip() for cell in parsed(pages[0]).select("#findings tbody td")]
    assert cells == [VERDICT.claim, VERDICT.text, "does not hold"]  # at the top, and not again below
    assert [link.get_text() for link in parsed(pages[0]).select(".outputs a[href='#findings']")]
    assert "prompts of my $set$ of $10, seed 3" in parsed(pages[0]).get_text()


def test_settings_and_facts_read_as_typed(pages: list[Path]) -> None:
    for page in (parsed(pages[0]), parsed(pages[2])):
        assert SPEC in page.get_text() and f"trained ({SPEC})" in page.get_text()
        assert [cell.get_text() for cell in page.select(".verdicts tbody td")][:1] == [VERDICT.claim]


def test_many_verdicts_are_counted_and_folded_and_few_stand_open(tmp_path: Path) -> None:
    page = parsed(write_report(tmp_path / "few"))
    assert page.select(".summary .verdicts tbody tr") and not page.select(".summary details, .summary .tally")
    many = [Verdict(f"claim {i}", Outcome.HOLDS if i < 7 else Outcome.FAILS, "f") for i in range(30)]
    place = write_report(tmp_path / "many").parent
    reports.record(report_folder=place, verdicts=many)
    page = BeautifulSoup(notebook_page(place / "many.ipynb", {}, place), "html.parser")
    assert len(page.select(".summary details .verdicts tbody tr")) == len(many) + 1  # that of the toy report
    assert text_of(page, ".summary summary") == "all 31 verdicts"
    found = {one.get_text() for one in page.select(".summary .tally .verdict")}
    assert found == {"holds \N{MULTIPLICATION SIGN}7", "does not hold \N{MULTIPLICATION SIGN}24"}


def test_tables_of_a_notebook_are_whole_and_without_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.delenv("VARLAB_REPORT_FOLDER", raising=False)
    names = ("display.html.use_mathjax", "display.max_colwidth", "display.max_columns")
    with pd.option_context(*(part for name in names for part in (name, pd.get_option(name)))):
        reports.record(model="x")
        html = pd.DataFrame({"text": PROMPTS, **{f"c{i}": 0 for i in range(40)}})._repr_html_()  # type: ignore[operator]
    page = BeautifulSoup(html, "html.parser")
    assert page.select("table.mathjax_ignore") == page.select("table") != []
    assert [text_of(row, "td") for row in page.select("tbody tr")] == PROMPTS
    assert len(page.select("thead th")) == 42


# Words for images, titles, index -----------------------------------------------------------------------------


def test_images_have_words_with_the_whole_prompts(pages: list[Path]) -> None:
    (image,) = parsed(pages[0]).select("main img")
    assert str(image["alt"]).startswith("What it draws. model mini-infinity, weights trained (")
    for number, prompt in enumerate(PROMPTS):
        assert f"Prompt {number}: {prompt}" in image["alt"]
    (small, other) = parsed(pages[2]).select("figure img")
    assert str(small["alt"]).startswith("pictures: model mini-hart, ") and other["alt"] != small["alt"]


def test_images_say_the_n_of_their_own_table_and_cells_without_a_value_a_dash(tmp_path: Path) -> None:
    html = pd.DataFrame({"detail": [np.nan, 0.5], "said": [None, "nothing"]}).to_html()
    picture = {"image/png": "iVBORw0KGgo="}
    cells = [
        new_code_cell(f'# Loss.\nsave(x, "{name}")', outputs=[new_output("display_data", picture)])
        for name in ("loss", "share")
    ]
    cells[1].outputs[0]["metadata"] = {"image/png": {"width": 700}}
    cells.append(new_code_cell("table", outputs=[new_output("display_data", {"text/html": html})]))
    (tmp_path / "loss.csv").write_text("removed,n\nnothing,96\nall,96\n")
    (tmp_path / "share.csv").write_text("stage,n\n1,1\n2,4\n")  # of several: that of the report
    (tmp_path / "facts.json").write_text('{"model": "m", "n": 1}')
    nbformat.write(new_notebook(cells=cells), tmp_path / "it.ipynb")
    page = BeautifulSoup(notebook_page(tmp_path / "it.ipynb", {}, tmp_path), "html.parser")
    assert [image["alt"] for image in page("img")] == ["Loss. model m, n 96", "Loss. model m, n 1"]
    assert [image.get("width") for image in page("img")] == [None, "700"]
    assert [cell.get_text() for cell in page("td")] == ["-", "-", "0.5", "nothing"]


def test_titles_say_the_notebook_and_the_model(pages: list[Path]) -> None:
    assert [text_of(parsed(page), "title") for page in pages[:2]] == [
        "Costs: from $5 to $10 · mini-infinity", "Costs: from $5 to $10 · mini-hart",
    ]  # fmt: skip


def test_the_index_has_one_entry_a_report(pages: list[Path]) -> None:
    entries = parsed(pages[2]).select("article")
    assert [text_of(entry, "h3") for entry in entries] == [
        f"Costs: from $5 to $10 {model}" for model in ("mini-hart", "mini-infinity")
    ]
    for entry, model in zip(entries, ("mini-hart", "mini-infinity"), strict=True):
        listed = entry.select("dl")[0]
        names, values = ([part.get_text() for part in listed.select(kind)] for kind in ("dt", "dd"))
        facts = dict(zip(names, values, strict=True))
        assert facts == {"model": model, "weights": f"trained ({SPEC})", "n": str(len(PROMPTS)), "seed": "3",
                         "date": "2026-01-02", "report": f"20_compare-{model}"}  # fmt: skip
        assert text_of(entry, ".tally").strip() == "does not hold \N{MULTIPLICATION SIGN}1"
        assert text_of(entry, "summary") == "1 verdict, 1 figure, settings"


# Width -------------------------------------------------------------------------------------------------------


def test_every_table_scrolls_within_its_own_box(pages: list[Path]) -> None:
    for path in pages:
        page = parsed(path)
        (viewport,) = page.select("meta[name=viewport]")
        assert viewport["content"] == "width=device-width, initial-scale=1"
        tables = page.find_all("table")
        assert tables
        for table in tables:
            box = table.find_parent(class_="scroll")
            assert box is not None and box["tabindex"] == "0" and box["aria-label"]
        style = text_of(page, "style")
        assert ".scroll { overflow-x: auto;" in style and "img { max-width: 100%;" in style


def test_only_short_facts_stand_on_one_line_in_the_index(tmp_path: Path) -> None:
    """A report on stored runs says the n and seed of each: on one line that pushed verdicts and date out of sight."""
    each = "mini-infinity/sparsevar 8, mini-infinity/methods 32, mini-hart/sparsevar 12, mini-hart/methods 16"
    write_report(tmp_path / "30_ablations")
    reports.record(report_folder=tmp_path / "30_ablations", **{**FACTS, "n": each, "verdicts": [VERDICT]})
    table = parsed(reports.write_index(tmp_path)).select_one("table.reports")
    assert table is not None
    (cell,) = (cell for cell in table.find_all("td") if cell.get_text() == each)
    assert not cell.get("class") and "3" in [cell.get_text() for cell in table.select("td.number")]


def test_a_report_on_no_model_gives_the_table_of_claims_neither_row_nor_column(tmp_path: Path) -> None:
    ledger = Verdict("a published number", Outcome.HOLDS, "by its own table")
    write_report(tmp_path / "20_compare")
    write_report(tmp_path / "40_claims", model="", verdict=ledger)
    page = parsed(reports.write_index(tmp_path))
    assert ledger.claim in text_of(page, "[id='40_claims']")
    assert [head.get_text() for head in page.select(".matrix th")] == ["Claim", "mini-infinity"]
    assert [row.td.get_text() for row in page.select(".matrix tbody tr") if row.td] == [VERDICT.claim]


def test_a_report_on_two_models_is_one_of_each(tmp_path: Path) -> None:
    write_report(tmp_path / "01_residual_spectra")
    write_report(tmp_path / "30_ablations", model="mini-infinity, mini-hart")
    page = parsed(reports.write_index(tmp_path))
    assert [choice.get_text() for choice in page.select("select[name=model] option")] == [
        "all", "mini-hart", "mini-infinity",
    ]  # fmt: skip
    assert [part.get_text() for part in page.select(".overview dd")] == [
        "mini-hart, mini-infinity", f"trained ({SPEC})",  # once, though two reports have them
    ]  # fmt: skip
    wanted = [json.loads(str(entry["data-filter"]))["models"] for entry in page.select("article")]
    assert sorted(wanted) == [["mini-infinity"], ["mini-infinity", "mini-hart"]]


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(pages: list[Path], browser: Any, width: int) -> None:
    for path in pages:
        page = browser.new_page(viewport={"width": width, "height": 844})
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(folded => folded.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        wide = "box => [box.scrollWidth > box.clientWidth + 1, getComputedStyle(box, '::before').height]"
        hints = [box.evaluate(wide) for box in page.query_selector_all(".scroll")]
        assert all((height != "0px") == is_wide for is_wide, height in hints), hints
        assert path is pages[2] or any(is_wide for is_wide, _ in hints)  # twenty columns fit nowhere
        for image in page.query_selector_all("main img"):
            box = image.bounding_box()  # none of what a telephone does not show
            assert box is None or box["width"] <= width
        page.close()


def test_a_phone_shows_every_verdict_of_the_index(pages: list[Path], browser: Any) -> None:
    """Of a table wider than the window the verdicts of all but the first model would stand out of sight."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((pages[0].parents[1] / "index.html").as_uri())
    verdicts = page.query_selector_all(".matrix a.verdict, .reports .verdict")
    boxes = [verdict.bounding_box() for verdict in verdicts]
    assert boxes and all(box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    models = page.eval_on_selector_all(".matrix td[data-model]:has(a)", "cells => cells.map(c => c.dataset.model)")
    assert {"mini-infinity", "mini-hart"} <= set(models)

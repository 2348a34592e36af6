"""Tables of a page: intervals in one cell, words to the left, nothing said twice. And what stands over them."""

import ast
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from varlab.claims.ledger import read_claims
from varlab.claims.summary import by_model
from varlab.reports.notebooks import read_notebook
from varlab.reports.parameters import notebook_parameters
from varlab.reports.tables import arrange_tables

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def arranged(table: pd.DataFrame, before: str = "") -> BeautifulSoup:
    soup = BeautifulSoup(f'{before}<div class="outputs">{table.to_html()}</div>', "html.parser")
    arrange_tables(soup)
    return soup


def rows(soup: BeautifulSoup) -> list[list[str]]:
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in soup.find_all("tr")]


def test_a_value_stands_with_its_bounds() -> None:
    table = pd.DataFrame({"ssim": [0.5, 1.0], "ssim_low": [0.4, None], "ssim_high": [0.6, None], "n": [8, 1]})
    assert rows(arranged(table)) == [["ssim", "n"], ["0.5 [0.4, 0.6]", "8"], ["1.0", "1"]]
    alone = pd.DataFrame({"mean": [0.5], "n": [8], "low": [0.4]})  # no pair of bounds
    assert rows(arranged(alone)) == [["mean", "n", "low"], ["0.5", "8", "0.4"]]


def test_rows_that_pandas_numbered_have_no_name_and_others_keep_it() -> None:
    table = pd.DataFrame({"block_calls": [9, 8]}, index=[135, 7])
    assert rows(arranged(table)) == [["block calls"], ["9"], ["8"]]
    named = table.rename_axis("stage")
    assert rows(arranged(named)) == [["stage", "block calls"], ["135", "9"], ["7", "8"]]
    both = named.assign(method="a").set_index("method", append=True)
    page = arranged(both)
    assert rows(page)[0] == ["stage", "method", "block calls"]
    assert [head.get("class") for head in page.select("thead th")] == ["words", "words", None]
    levels = pd.DataFrame({"n": [1]}, index=pd.MultiIndex.from_tuples([(6, 12)]))
    assert rows(arranged(levels)) == [["", "", "n"], ["6", "12", "1"]]
    crossed = pd.crosstab(pd.Series(["a"], name="paper"), pd.Series(["holds"], name="outcome"))
    assert rows(arranged(crossed))[:2] == [["outcome", "holds"], ["paper", ""]]


def test_words_stand_to_the_left_and_long_ones_take_several_lines() -> None:
    spec = "truncate:last=2+cfg-off:last=3 on 2 % of the images, truncate:last=2 on the rest"
    page = arranged(pd.DataFrame({"baseline": [spec], "ms": ["1328 (1247 to 1344)"], "text": ["a star"]}))
    baseline, ms, text = page.select("td")
    assert baseline["class"] == "long words" and baseline.get_text() == spec and baseline.find_all("wbr")
    assert ms.get("class") is None and text["class"] == "words" and not text.find_all("wbr")


def test_small_and_infinite_numbers_are_no_words() -> None:
    cells = arranged(pd.DataFrame({"p": [1e-7, 2.5e-5], "psnr": [float("inf"), float("-inf")]})).select("td")
    assert [cell.get_text() for cell in cells] == ["1.000000e-07", "inf", "2.500000e-05", "-inf"]
    assert not any(cell.get("class") for cell in cells)


def test_verdicts_stand_once_on_a_page() -> None:
    table = pd.DataFrame({"claim": ["c"], "finding": ["f"], "verdict": ["holds"]})
    account = table.to_html(index=False)
    page = BeautifulSoup(f'<table id="findings"></table><div class="outputs">{account}</div>', "html.parser")
    arrange_tables(page)
    assert page.select_one(".outputs a[href='#findings']") and not page.select(".outputs table")
    alone = BeautifulSoup(f'<div class="outputs">{account}</div>', "html.parser")  # nothing above says them
    arrange_tables(alone)
    assert alone.select(".outputs table")


def test_the_ledger_writes_no_unit_twice() -> None:
    claims = read_claims()
    told = by_model([{"claim": claim.id, "run": "r", "model": "m", "verdict": "holds"} for claim in claims], claims)
    assert not [text for text in told.published if "% %" in text or "%%" in text or "x times" in text]
    assert "1.28 times, infinity-2b" in set(told.published) and "up to 2x, infinity-2b" in set(told.published)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_has_its_help_and_every_cell_its_caption(path: Path) -> None:
    """A page shows both: a folded cell goes by its first line."""
    assert not [one.name for one in notebook_parameters(path).values() if not one.help]
    cells: list[Any] = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    assert not [cell.source for cell in cells[1:] if not cell.source.startswith("# ") and ast.parse(cell.source).body]

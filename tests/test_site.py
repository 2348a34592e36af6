"""The index in a real browser: filters, sorting, addresses, names and roles, and nothing from the network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.toy_pages import browser, faults_of, opened, until, write_report  # noqa: F401
from varlab import reports
from varlab.claims import Outcome, Verdict

HOLDS = Verdict("SparseVAR keeps <edges> & $5", Outcome.HOLDS, "3 %")
FAILS = Verdict("SkipVAR skips", Outcome.FAILS, "4 dB")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three reports in a folder with a blank and non-Latin letters."""
    out = tmp_path_factory.mktemp("site") / "my отчёты"
    write_report(out / "20_compare-mini-infinity", "mini-infinity", HOLDS, "2026-01-02 10:00 UTC", 8)
    write_report(out / "20_compare-mini-hart", "mini-hart", HOLDS, "2026-02-03 10:00 UTC", 100)
    write_report(out / "11_skipvar", "mini-hart", FAILS, "2026-03-04 10:00 UTC", 24)
    return reports.write_index(out)


@pytest.fixture
def page(index: Path, browser: Any) -> Iterator[Any]:
    with opened(browser, index) as page:
        yield page


def shown(page: Any, what: str = "article") -> list[str]:
    return page.eval_on_selector_all(f"{what}:not([hidden])", "all => all.map(one => one.id || one.innerText.trim())")


def test_the_overview_counts(page: Any) -> None:
    facts = page.inner_text(".overview dl")
    assert "mini-infinity" in facts and "mini-hart" in facts
    assert page.eval_on_selector_all(".overview button", "all => all.map(one => one.innerText)") == [
        "holds \N{MULTIPLICATION SIGN}2", "does not hold \N{MULTIPLICATION SIGN}1",
    ]  # fmt: skip


def test_each_filter_leaves_what_it_names(page: Any) -> None:
    for field, value, left in (
        ("model", "mini-hart", ["11_skipvar", "20_compare-mini-hart"]),
        ("method", "skipvar", ["11_skipvar"]),
        ("verdict", "holds", ["20_compare-mini-hart", "20_compare-mini-infinity"]),
        ("claim", "<EDGES> & $", ["20_compare-mini-hart", "20_compare-mini-infinity"]),
        ("from", "2026-02-03", ["11_skipvar", "20_compare-mini-hart"]),
        ("to", "2026-02-03", ["20_compare-mini-hart", "20_compare-mini-infinity"]),
    ):
        place = page.locator(f".filters [name={field}]")
        (place.select_option if field in ("model", "method", "verdict") else place.fill)(value)
        assert shown(page) == left, field
        assert page.inner_text(".filters output") == f"{len(left)} of 3 reports"
        assert len(shown(page, ".reports tbody tr")) == len(left)
        again = page.url
        page.goto("about:blank")
        page.goto(again)
        assert shown(page) == left, field  # the address holds the view
        page.click("text=Clear")
        until(page, "location.hash === '' && !document.querySelector('article[hidden]')")


def test_a_count_is_a_filter(page: Any) -> None:
    page.click(".overview button.bad")
    assert shown(page) == ["11_skipvar"]
    assert page.get_attribute(".overview button.bad", "aria-pressed") == "true"
    (row,) = shown(page, ".matrix tbody tr")
    assert row.startswith("SkipVAR skips")
    page.click(".overview button.bad")
    assert len(shown(page)) == 3


def test_tables_sort_by_number_and_back(page: Any) -> None:
    def numbers() -> list[int]:
        return page.eval_on_selector_all(".reports tbody tr", "all => all.map(row => Number(row.cells[3].innerText))")

    assert numbers() == [24, 100, 8]
    page.click(".reports th:nth-child(4) button")
    assert numbers() == [8, 24, 100] and page.get_attribute(".reports th:nth-child(4)", "aria-sort") == "ascending"
    page.click(".reports th:nth-child(4) button")
    assert numbers() == [100, 24, 8] and page.get_attribute(".reports th:nth-child(4)", "aria-sort") == "descending"
    page.click(".reports th:nth-child(3) button")
    assert page.get_attribute(".reports th:nth-child(4)", "aria-sort") is None
    assert page.eval_on_selector_all(".reports tbody tr", "all => all.map(row => row.cells[2].innerText)") == [
        "mini-hart", "mini-hart", "mini-infinity",
    ]  # fmt: skip


def test_every_claim_stands_beside_each_model(page: Any) -> None:
    heads = page.eval_on_selector_all(".matrix th", "all => all.map(one => one.innerText.trim())")
    assert heads[0].startswith("Claim") and [head.split()[0] for head in heads[1:]] == ["mini-hart", "mini-infinity"]
    row = page.locator(".matrix tbody tr", has_text="SparseVAR keeps <edges> & $5")
    assert row.locator("a").count() == 2
    row.locator("a").first.click()
    assert page.url.endswith("#20_compare-mini-hart")


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])  # colours and layout do not meet
def test_the_index_is_accessible(index: Path, browser: Any, scheme: str, width: int) -> None:
    with opened(browser, index, color_scheme=scheme, viewport={"width": width, "height": 844}) as page:
        assert faults_of(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

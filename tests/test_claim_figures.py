"""One figure a claim: its numbers, the width of a column, and its place on the page and the index."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.text import Text
from PIL import Image

from tests.toy_logs import toy_log
from tests.toy_pages import write_report
from varlab import figures, reports
from varlab.analysis.pictures import sensitivity_table
from varlab.claims import Number, Outcome, Side, Verdict
from varlab.claims.ledger import read_claims
from varlab.claims.rules import judged
from varlab.figures.sidebyside import few
from varlab.figures.style import figure_of
from varlab.figures.text import balanced
from varlab.reports.facts import FOLDER_VARIABLE
from varlab.reports.page import notebook_page

SHARE = Number("late share on edges", 0.93, 0.89, 0.96, 24, 0.0, 0.25)
GAIN = Number("random-tokens", 0.04, 0.028, 0.051, 24, 0.002)
VERDICT = Verdict("It keeps <more> for $5", Outcome.HOLDS, "SSIM .942. A second sentence.", numbers=(SHARE, GAIN))


def test_a_forest_draws_the_distance_to_what_each_number_is_judged_against() -> None:
    ax = figures.forest(VERDICT, toy_log())
    points = [np.asarray(line.get_xdata(), float) for line in ax.lines if line.get_marker() == "s"]
    assert [point[0] for point in points] == pytest.approx([(0.93 - 0.25) / 0.71, 0.04 / 0.051])
    spans = [xs for xs in (np.asarray(line.get_xdata(), float) for line in ax.lines) if len(xs) == 2][:2]
    assert np.allclose(spans, [[0.64 / 0.71, 1], [0.028 / 0.051, 1]])
    assert [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()] == [
        "late share on edges against 0.25", "random-tokens",
    ]  # fmt: skip
    said = [text.get_text().replace("\n", " ") for text in ax.texts]
    assert said == ["0.93 (0.89 to 0.96)", "0.040 (0.028 to 0.051)", "HOLDS. SSIM .942."]
    assert (
        ax.get_xlabel()
        == "distance to the dashed line, each row on its own scale\ngrey: counts as no difference; n = 24"
    )
    figure = figure_of(ax)
    assert figure.get_figwidth() == 3.25 and figure.get_suptitle() == "It keeps <more> for $5"


def test_rows_of_like_size_share_a_scale_and_the_names_at_its_ticks_do_not_touch() -> None:
    rows = (Number("a", -0.0054, -0.0086, -0.0025, 16, 0.002), Number("b", 0.0015, -0.0005, 0.0034, 8))
    ax = figures.forest(Verdict("c", Outcome.FAILS, "F with 5 % of n = 16.", numbers=rows), toy_log())
    assert ax.get_xlabel() == "distance to the dashed line\ngrey: counts as no difference"
    assert [np.asarray(line.get_xdata())[0] for line in ax.lines if line.get_marker() == "s"] == [-0.0054, 0.0015]
    said = [text.get_text() for text in ax.texts]
    assert [text.replace("\N{MINUS SIGN}", "-") for text in said[:2]] == [
        "-0.0054\n(-0.0086 to -0.0025)\nn = 16", "0.0015\n(-0.0005 to 0.0034)\nn = 8",
    ]  # fmt: skip
    assert "5\N{NO-BREAK SPACE}% of n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}16" in said[2]
    figure_of(ax).draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert len(boxes) > 1 and not any(one.overlaps(two) for one, two in pairwise(boxes))


def test_no_word_of_a_title_stands_alone_in_its_last_line() -> None:
    title = "At high-resolution stages residuals concentrate on edges (SparseVAR, observation 1)"
    assert balanced(title, 46).split("\n")[-1] == "(SparseVAR, observation 1)"


def test_a_claim_without_numbers_still_says_what_came_of_it() -> None:
    ax = figures.forest(Verdict("c", Outcome.NOT_MEASURED, "Nothing was there."), toy_log())
    assert [text.get_text() for text in ax.texts] == ["no interval to draw", "NOT MEASURED. Nothing was there."]


def test_the_figure_of_a_claim_stands_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(tmp_path / "report", verdict=VERDICT)
    folder = page.parent
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # as in a report's kernel: not among the outputs of a cell too
    monkeypatch.setattr(sys.modules["varlab.figures.save"], "_show", lambda *_: pytest.fail("it stands twice"))
    figures.claim_figures([VERDICT], toy_log())
    notebook = json.loads((folder / "report.ipynb").read_text())
    notebook["metadata"]["varlab"]["files"] += ["claim_1.png", "claim_1.pdf", "claim_1.csv"]
    (folder / "report.ipynb").write_text(json.dumps(notebook))
    table = pd.read_csv(folder / "claim_1.csv")
    assert table.estimate.tolist() == [0.93, 0.04] and set(table.verdict) == {"holds"}
    soup = BeautifulSoup(notebook_page(folder / "report.ipynb", {}, folder), "html.parser")
    first = soup.select_one("main img")
    assert first is not None and first["alt"] == "It keeps <more> for $5: holds"
    index = BeautifulSoup(reports.write_index(tmp_path).read_text(), "html.parser")
    assert index.select_one(".matrix a img")["src"] == "report/claim_1.png"  # type: ignore[index]
    assert index.select_one(".thumb img")["src"] == "report/claim_1.png"  # type: ignore[index]
    heads = [head.get_text() for head in index.select("h2")]
    assert heads.index("Claims by model") < heads.index("All reports")


def test_claims_and_verdicts_are_tables_in_a_notebook() -> None:
    html = VERDICT._repr_html_()
    assert "It keeps &lt;more&gt; for $5" in html and "0.93 (0.89 to 0.96), n = 24" in html and "holds" in html
    claim = read_claims()[0]
    assert claim.id in claim._repr_html_() and "<table" in claim._repr_html_()


TEXTS = ["a star", "a ring", "a $5 note"]
NAMES = ("none", "sparsevar:tau=0.6", "fastvar", "skipvar", "truncate:last=1", "cfg-off:last=1")


def compared() -> Any:
    """Three prompts by five methods, in the form of a comparison."""
    pictures = [Image.fromarray(np.full((16, 16, 3), 60 * i, np.uint8)) for i in range(3)]
    rows = [(name, *row) for name in NAMES for row in zip(TEXTS, (0.9, 0.5, 0.7), strict=True)]
    costs = {"seconds": 0.2, "speedup": 2.0, "work_ratio": 0.5, "timings": 6}
    return SimpleNamespace(
        facts={
            "model": "toy", "weights": "random (seed 0)", "precision": "fp32", "device": "cpu", "prompt_set": "x",
            "seed": 0, "settings": {"cfg": 2.0}, "schedule": [[1, 1], [2, 2], [4, 4]], "n": 3, "prompts": TEXTS,
        },
        images=dict.fromkeys(NAMES, pictures),
        table=pd.DataFrame(costs, index=pd.Index(NAMES, name="method")),
        prompts=pd.DataFrame(rows, columns=["method", "prompt", "ssim"]),
        stages={"none": [dict.fromkeys((1, 2, 3), pictures[1])], "truncate:last=1": [{1: pictures[0]}]},
    )  # fmt: skip


def test_prompts_are_ordered_by_what_the_method_changes(tmp_path: Path) -> None:
    table = sensitivity_table(compared(), "truncate:last=1")
    assert table.prompt.tolist() == [0, 2, 1] and table.text.tolist() == ["a star", "a $5 note", "a ring"]
    drawn = figures.sensitive_prompts(compared(), "truncate:last=1")
    words = [text.get_text() for text in drawn.axes[0].texts]
    assert [text for text in words if "SSIM" in text] == ["robust: SSIM 0.90", "sensitive: SSIM 0.50"]


def test_a_figure_shows_few_rows_and_says_what_did_not_run() -> None:
    assert few(compared()) == ["none", "sparsevar:tau=0.6", "fastvar", "truncate:last=1"]
    drawn = figures.stage_pictures(compared())
    words = [text.get_text() for text in drawn.axes[0].texts]
    rows = [tuple(text.split("\n")) for text in words if " ms " in text]
    time = "200 ms per image,", "2.00x (n = 6 batches)"
    assert rows == [("dense", *time), ("truncate:last=1", *time)]
    assert words.count("not run") == 2


def test_numbers_of_rows_do_not_touch_however_long_the_line_on_the_weights() -> None:
    log = toy_log()
    log.attrs["weights"] = (
        "trained (varlab mini-var, c45c4867609dd160); trained (varlab mini-var-freqexit, a1886ce8617419f7)"
    )
    rows = (Number("seed 0", 1.08, 0.86, 1.3, 2000), Number("seed 1", 0.75, 0.41, 0.97, 2000))
    ax = figures.forest(
        Verdict("Exit 6 beats it by a recipe of its own, and more", Outcome.HOLDS, "F.", numbers=rows), log
    )
    figure_of(ax).draw_without_rendering()
    first, second = (Text.get_window_extent(text) for text in ax.texts[:2])
    assert first.y0 >= second.y1


@pytest.mark.parametrize("side", list(Side)[:3])
@pytest.mark.parametrize(("low", "high"), [(0.31, 0.35), (0.05, 0.1), (0.19, 0.21), (0.17, 0.33)])
def test_the_tinted_side_is_where_the_rule_says_that_a_number_supports_its_claim(
    side: Side, low: float, high: float
) -> None:
    one = Number("share", (low + high) / 2, low, high, 24, 0.02, 0.2, side)
    ax = figures.forest(Verdict("c", Outcome.HOLDS, "F.", numbers=(one,)), toy_log())
    tint, *grey = (band.get_datalim(ax.transData) for band in ax.collections)
    inside = tint.x0 <= low - 0.2 + 1e-9 and high - 0.2 <= tint.x1 + 1e-9
    counts = all(not (band.x0 < low - 0.2 and high - 0.2 < band.x1) for band in grey)
    assert (judged(one) is Outcome.HOLDS) == (inside and counts) and len(grey) == (side is not Side.WITHIN)
    figure_of(ax).draw_without_rendering()
    label = next(text for text in (ax.title, ax._left_title, ax._right_title) if text.get_text())  # type: ignore
    assert "supports the claim" in label.get_text()
    frame, named, shown = ax.get_window_extent(), label.get_window_extent(), tint.transformed(ax.transData)
    assert shown.width > 0.15 * frame.width and not named.overlaps(frame)
    assert frame.x0 - 1 <= named.x0 < named.x1 <= frame.x1 + 1


def test_rows_that_support_a_claim_on_unlike_sides_are_each_tinted_on_their_own() -> None:
    rows = (Number("a", -0.1, -0.2, -0.05, 9, supports=Side.BELOW), Number("b", 0.1, 0.05, 0.2, 9),
            Number("c", 0.2, 0.1, 0.3, 9, supports=Side.NEITHER))  # fmt: skip
    ax = figures.forest(Verdict("c", Outcome.HOLDS, "F.", numbers=rows), toy_log())
    tints = [band.get_datalim(ax.transData) for band in ax.collections[::2]]
    assert [np.sign(round(tint.x0 + tint.x1, 6)) for tint in tints] == [-1, 1, 0] and tints[2].width == 0
    assert ax.get_title() == "tinted: supports the claim"
    assert figures.forest_table(Verdict("c", Outcome.HOLDS, "F.", numbers=rows)).supports.tolist() == [
        "below", "above", "neither",
    ]  # fmt: skip

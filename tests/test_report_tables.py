"""Figures of reports that need more than a run: drawn again from what the report kept."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import varlab as vl
from tests.toy_logs import toy_images, toy_log
from varlab import figures
from varlab.analysis.measured import Measured, read_measured
from varlab.claims.verdict import Outcome, Verdict
from varlab.figures.sources import drawings
from varlab.figures.style import figure_of
from varlab.reports.facts import FOLDER_VARIABLE, TABLES, save_tables


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a running report with one claim."""
    folder = tmp_path / "report"
    folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    vl.figures.claim_figures([Verdict("A claim", Outcome.TOO_FEW, "Too few.")], toy_log(n=4))
    return folder


def lines(ax: Axes) -> list[tuple[str, list[float]]]:
    return [(str(line.get_label()), np.asarray(line.get_ydata(), float).tolist()) for line in ax.lines]


def test_the_control_on_random_weights_is_drawn_from_the_table_of_a_report(report: Path) -> None:
    """The same lines as of the log itself, with its stages and its provenance."""
    log = toy_log(n=4)
    log.attrs = {**log.attrs, "weights": "random (seed 0)"}
    save_tables(control_random_weights=figures.control_table(log))
    (drawing, draw), *_ = drawings(report)
    left, right = figure_of(draw()).axes
    shares, edges = figures.high_frequency_share(log), figures.concentration(log)
    for ax, own in ((left, shares), (right, edges)):
        assert [name for name, _ in lines(ax)] == [name for name, _ in lines(own)]
        for (_, values), (_, expected) in zip(lines(ax), lines(own), strict=True):
            assert values == pytest.approx(expected, rel=1e-6)
        assert [text.get_text() for text in ax.get_xticklabels()] == [text.get_text() for text in own.get_xticklabels()]
        assert ax.get_title(loc="left").endswith("random weights")
    assert drawing.name == "control_random_weights"
    assert "random (seed 0)" in figures.style.kept(figure_of(left)).line


def test_pictures_by_exit_are_drawn_from_what_a_report_kept(report: Path) -> None:
    """Picture for picture, in the order of the table."""
    drawn = np.stack([np.asarray(picture) for picture in toy_images(8)])
    pictures = drawn.reshape(4, 2, *drawn.shape[1:])
    table = pd.DataFrame({"weights": ["untrained", "untrained", "FreqExit", "FreqExit"], "exits": ["4", "2"] * 2})
    facts = {"model": "toy", "weights": "two", "n": 2, "pictures": ["star", "ring"]}
    save_tables(samples_by_exit=Measured(table.assign(block_calls=1, gflops=2.0), facts, pictures))
    (drawing, draw), *_ = drawings(report)
    assert drawing.name == "samples_by_exit"
    (ax,) = figure_of(draw()).axes
    words = [text.get_text() for text in ax.texts if text.get_text()]
    assert words == ["exit 4", "exit 2", "star", "ring", "untrained", "star", "ring", "FreqExit"]
    shown = np.stack([np.asarray(image.get_array()) for image in ax.images])
    assert np.array_equal(shown, drawn)


def test_a_report_without_these_is_drawn_as_before(report: Path) -> None:
    assert [drawing.name for drawing, _ in drawings(report)] == ["claim-1"]
    save_tables(readings=Measured(pd.DataFrame({"tau": [0.5]}), {"n": 1}))
    assert read_measured(report / TABLES, "readings").pictures is None
    assert [drawing.name for drawing, _ in drawings(report)] == ["readings", "claim-1"]

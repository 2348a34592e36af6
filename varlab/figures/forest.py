"""One figure a claim, in the width of a column: estimates with their intervals against what they are judged by."""

import os
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from varlab.analysis.logs import Log, provenance_line
from varlab.claims.verdict import Verdict
from varlab.figures.save import save
from varlab.figures.style import (
    CYCLE,
    FAINT,
    GREEN,
    INK,
    LETTERS_PER_INCH,
    RED,
    SOFT,
    figure_of,
    finish,
    own_axes,
    theme,
)
from varlab.figures.text import wrapped
from varlab.reports.facts import CLAIM_FIGURE, FOLDER_VARIABLE
from varlab.reports.headings import first_sentence

WIDTH = 3.25  # inches, a column
TONES = {"good": GREEN, "part": CYCLE[4], "bad": RED, "": SOFT}
LETTERS, NAMES = 66, 24  # of a line under the figure, of the name of a row


def forest_table(verdict: Verdict) -> pd.DataFrame:
    """A row a number: claim, verdict, number, estimate, low, high, reference, margin, n."""
    columns = ["number", "estimate", "low", "high", "reference", "margin", "n"]
    rows = [(one.name, one.estimate, one.low, one.high, one.reference, one.margin, one.n) for one in verdict.numbers]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(claim=verdict.claim, verdict=str(verdict.outcome))[["claim", "verdict", *columns]]


@theme()
def forest(verdict: Verdict, log: Log, ax: Axes | None = None) -> Axes:
    """What came of a claim? A row a number: its distance to what it is judged against, with the 95 % interval.

    Right of each its value and interval; grey: differences that count as none. Below: the verdict and what was found.
    """
    numbers = [one for one in verdict.numbers if np.isfinite(one.estimate)]
    claim = wrapped(verdict.claim, 46)
    found = wrapped(f"{verdict.outcome.upper()}. {first_sentence(verdict.finding)} {verdict.reason}", LETTERS)
    names = [
        wrapped(f"{one.name} against {one.reference:.2g}" if one.reference else one.name, NAMES) for one in numbers
    ]
    rows = sum(0.14 + 0.1 * max(2, name.count("\n") + 1) for name in names) or 0.3
    below = wrapped(provenance_line(log), int(WIDTH * LETTERS_PER_INCH)).count("\n")
    ax = own_axes(ax, WIDTH, 0.85 + 0.15 * claim.count("\n") + 0.13 * found.count("\n") + 0.1 * below + rows)
    colour = TONES[verdict.outcome.tone]
    for y, one in enumerate(numbers):
        ax.plot([one.low - one.reference, one.high - one.reference], [y, y], color=colour, lw=1.6, zorder=2)
        ax.plot(one.estimate - one.reference, y, "s", color=colour, mec="white", mew=0.5, ms=5, zorder=3)
        text = str(one).replace(" (", "\n(")
        ax.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=6, color=INK)
    margin = max((one.margin for one in numbers), default=0.0)
    if margin:
        ax.axvspan(-margin, margin, color=FAINT, alpha=0.7, lw=0, zorder=0)
    ax.axvline(0, color=SOFT, lw=0.8, ls=(0, (4, 3)), zorder=1)
    ax.set(ylim=(max(1, len(numbers)) - 0.5, -0.5), yticks=range(len(numbers)))
    ax.set_yticklabels(names, fontsize=6)
    ax.tick_params(axis="x", labelsize=6)
    ax.xaxis.set_major_locator(plt.MaxNLocator(4))
    if not numbers:
        ax.set(xticks=[])
        ax.annotate("no number", (0.5, 0.5), xycoords="axes fraction", ha="center", color=SOFT)
    ax.set_xlabel("distance to the dashed line" if numbers else "", fontsize=6)
    figure = figure_of(ax)
    ax.annotate(
        found, (0.01, 0), (0, -4), xycoords=("figure fraction", ax.xaxis.label), textcoords="offset points",
        va="top", fontsize=6, linespacing=1.4,
    )  # fmt: skip
    figure.suptitle(claim, x=0.01, ha="left", fontsize=7.5, fontweight="bold")
    return finish(ax, log, "claim", forest_table(verdict))


def claim_figures(found: Sequence[Verdict], log: Log) -> None:
    """Save ``claim_1``, ``claim_2`` ... in the folder of the running report, whose page and index show them first.

    In a notebook opened by hand they are shown in their place.
    """
    single = {verdict.claim: verdict for verdict in found}  # as a report keeps them: one a claim, the later one
    for i, verdict in enumerate(single.values(), 1):
        drawn, place = forest(verdict, log), os.environ.get(FOLDER_VARIABLE)
        save(drawn, CLAIM_FIGURE.format(i), folder=place)
        if place:
            plt.close(figure_of(drawn))

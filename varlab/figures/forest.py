"""One figure per claim, in the width of a column: estimates with their intervals against what they are judged by."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from varlab.analysis.comparisons import log_of
from varlab.analysis.logs import Log, prompt_count, provenance_line
from varlab.claims.parts import source
from varlab.claims.verdict import Number, Side, Verdict
from varlab.figures.save import save
from varlab.figures.style import (
    CYCLE,
    FAINT,
    GREEN,
    INK,
    LETTERS_PER_INCH,
    RED,
    SKY,
    SOFT,
    figure_of,
    finish,
    own_axes,
    theme,
)
from varlab.figures.text import balanced, wrapped
from varlab.markup import together
from varlab.outputs import save_json
from varlab.reports.facts import CLAIM_FIGURE, FOLDER_VARIABLE
from varlab.reports.headings import first_sentence

CLAIMS = "claims.json"  # what the figures of a report's claims are drawn from
WIDTH = 3.25  # inches, a column
TONES = {"good": GREEN, "part": CYCLE[4], "bad": RED, "": SOFT}
LETTERS, NAMES = 66, 24  # of a line under the figure, of the name of a row
UNLIKE = 8.0  # times as far as another: on one scale that row would be a point at the dashed line
LEAST, REST = 0.3, 0.1  # of what the axis shows, however far off the numbers lie: a side that supports, and another
SUPPORTS = {Side.ABOVE: ("right", "supports the claim →"), Side.BELOW: ("left", "← supports the claim")}
TINTED = ("center", "tinted: supports the claim")  # where it is not one side for all rows


def forest_table(verdict: Verdict) -> pd.DataFrame:
    """One row per number: claim, verdict, number, estimate, low, high, reference, margin, supports, n."""
    columns = ["number", "estimate", "low", "high", "reference", "margin", "supports", "n"]
    table = pd.DataFrame([{"number": one.name} | asdict(one) for one in verdict.numbers], columns=columns)
    return table.assign(claim=verdict.claim, verdict=str(verdict.outcome))[["claim", "verdict", *columns]]


def _value(one: Number) -> str:
    """``0.41``, its interval in a line below."""
    return _signed(str(one)).replace(" (", "\n(")


def _signed(text: str) -> str:
    """With the minus signs of the ticks, at which no line ends."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def _scales(numbers: Sequence[Number]) -> list[float]:
    """What the distances of each row are divided by: 1, or their own size where one row would hide another."""
    ends = [np.array([one.estimate, one.low, one.high]) - one.reference for one in numbers]
    sizes = [float(np.nanmax(np.abs(values))) for values in ends]
    seen = [size for size in sizes if size > 0]
    own = bool(seen) and max(seen) > UNLIKE * min(seen)
    return [size if own and size > 0 else 1.0 for size in sizes]


def _limits(numbers: Sequence[Number], scales: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis: all that is drawn, and enough of each side that supports the claim."""
    rows = list(zip(numbers, scales, strict=True))
    ends = [(end - one.reference) / scale for one, scale in rows for end in (one.low, one.estimate, one.high)]
    margin, sides = max((one.margin / scale for one, scale in rows), default=0.0), {one.supports for one in numbers}
    low, high = np.nanmin([0, *ends]), np.nanmax([0, *ends])
    span = max(high - low, 2 * margin) or 0.1
    left, right = (margin + span * (LEAST if side in sides else REST) for side in (Side.BELOW, Side.ABOVE))
    return float(min(low - 0.05 * span, -left)), float(max(high + 0.05 * span, right))


def _row(ax: Axes, y: int, one: Number, scale: float, colour: str) -> None:
    """Estimate and interval; behind them the side that supports the claim, and the differences that count as none."""
    at, low, high = ((value - one.reference) / scale for value in (one.estimate, one.low, one.high))
    ax.plot([low, high], [y, y], color=colour, lw=1.6, zorder=2)
    ax.plot(at, y, "s", color=colour, mec="white", mew=0.5, ms=5, zorder=3)
    (left, right), margin, rows = ax.get_xlim(), one.margin / scale, (y - 0.5, y + 0.5)
    sides = {Side.ABOVE: (0, right), Side.BELOW: (left, 0), Side.WITHIN: (-margin, margin)}
    ax.fill_betweenx(rows, *sides.get(one.supports, (0, 0)), color=SKY, alpha=0.22, lw=0, zorder=-1)
    if one.supports != Side.WITHIN:
        ax.fill_betweenx(rows, -margin, margin, color=FAINT, lw=0, zorder=0)


def _name_side(ax: Axes, numbers: Sequence[Number]) -> None:
    """Over the axes: which side supports the claim."""
    sides = {one.supports for one in numbers} - {Side.NEITHER}
    if sides:
        place, text = SUPPORTS.get(sides.pop(), TINTED) if len(sides) == 1 else TINTED
        ax.set_title(text, loc=place, fontsize=6, fontweight="normal", pad=2)  # type: ignore[arg-type]


def _distance(numbers: Sequence[Number], scales: Sequence[float]) -> str:
    """What the axis shows."""
    if not numbers:
        return ""
    own = ", each row on its own scale" if len(set(scales)) > 1 else ""
    margins = any(one.margin for one in numbers if one.supports != Side.WITHIN)
    grey = "\ngrey: counts as no difference" if margins else ""
    return f"distance to the dashed line{own}{grey}"


@theme()
def forest(verdict: Verdict, log: Log, ax: Axes | None = None) -> Axes:
    """What came of a claim? One row per number: its distance to what it is judged against, with the 95 % interval.

    Tinted: the side that supports the claim, by the rule that judged the number; grey: what counts as no difference.
    Right of each its value and interval; n stands there or below where it is not the log's.
    Rows of very different size, often of different units, have a scale of their own each. Below: the verdict, what was
    found, and what it was measured on, which the verdict may know better than the log.
    """
    log = log_of(dict(verdict.of)) if verdict.of else log
    numbers = [one for one in verdict.numbers if np.isfinite(one.estimate)]
    claim = balanced(verdict.claim, 46)
    said = f"{verdict.outcome.upper()}. {first_sentence(verdict.finding)} {verdict.reason}"
    found = balanced(together(_signed(said)), LETTERS)
    names = [
        balanced(f"{one.name} against {one.reference:.2g}" if one.reference else one.name, NAMES) for one in numbers
    ]
    shared = {one.n for one in numbers}
    texts = [_value(one) + (f"\nn = {one.n}" if len(shared) > 1 else "") for one in numbers]
    counted = f"; n = {shared.pop()}" if len(shared) == 1 and shared != {prompt_count(log)} else ""
    rows = sum(0.14 + 0.1 * max(2, *(1 + one.count("\n") for one in row)) for row in zip(names, texts, strict=True))
    below = wrapped(provenance_line(log), int(WIDTH * LETTERS_PER_INCH)).count("\n")
    height = 1.05 + 0.15 * claim.count("\n") + 0.13 * found.count("\n") + 0.1 * below + (rows or 0.3)
    ax, scales = own_axes(ax, WIDTH, height), _scales(numbers)
    ax.set_xlim(_limits(numbers, scales))
    for y, (one, text, scale) in enumerate(zip(numbers, texts, scales, strict=True)):
        _row(ax, y, one, scale, TONES[verdict.outcome.tone])
        ax.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=6, color=INK)
    _name_side(ax, numbers)
    if numbers:
        ax.axvline(0, color=SOFT, lw=0.8, ls=(0, (4, 3)), zorder=1)
    ax.set(ylim=(max(1, len(numbers)) - 0.5, -0.5), yticks=range(len(numbers)))
    ax.set_yticklabels(names, fontsize=6)
    ax.tick_params(axis="x", labelsize=6)
    ax.xaxis.set_major_locator(plt.MaxNLocator(3))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}".replace("-", "\N{MINUS SIGN}"))
    if not numbers:
        ax.annotate("no interval to draw", (0.5, 0.5), xycoords="axes fraction", ha="center", color=SOFT, fontsize=6)
    if len(set(scales)) != 1:
        ax.set_xticks([0] if numbers else [])
    ax.set_xlabel(_distance(numbers, scales) + counted, fontsize=6)
    figure = figure_of(ax)
    ax.annotate(
        found, (0.01, 0), (0, -4), xycoords=("figure fraction", ax.xaxis.label), textcoords="offset points",
        va="top", fontsize=6, linespacing=1.4,
    )  # fmt: skip
    figure.suptitle(claim, x=0.01, ha="left", fontsize=7.5, fontweight="bold")
    return finish(ax, log, "claim", forest_table(verdict))


def claim_figures(found: Sequence[Verdict], log: Log) -> None:
    """Save ``claim_1``, ``claim_2`` ... in the folder of the running report, whose page and index show them first, and
    what they are drawn from, for ``varlab figures``.

    In a notebook opened by hand they are shown in their place.
    """
    single = {verdict.claim: verdict for verdict in found}  # as a report keeps them: one a claim, the later one
    if place := os.environ.get(FOLDER_VARIABLE):
        records = [verdict.record() for verdict in single.values()]
        save_json(Path(place) / CLAIMS, {"of": source(log), "verdicts": records})
    for i, verdict in enumerate(single.values(), 1):
        drawn = forest(verdict, log)
        save(drawn, CLAIM_FIGURE.format(i), folder=place)
        if place:
            plt.close(figure_of(drawn))

"""The conditional and the unconditional row: how far apart they are, and what guidance makes of it.

Stages without guidance have no second row; they are left out.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from varlab.analysis.logs import Log, predicted, stage_count, summaries, summary, variable
from varlab.errors import unknown
from varlab.figures.legends import legend_below
from varlab.figures.style import BLUE, INK, ORANGE, RED, finish, line, own_axes, stage_axis, theme
from varlab.figures.tokens import block_map

PROBE = "branch-divergence"
HIDDEN = {
    "relative_mse": ("|c - u|² / |c|²", "Distance of the conditional branch c and the unconditional u"),
    "cosine": ("cosine", "Cosine of the conditional branch c and the unconditional u"),
}
PREDICTED = {
    "kl": ("KL (nats per {})", "Divergence of the predictions with and without the prompt", BLUE),
    "flip_share": ("share of {}s", "{}s that the prompt decides", RED),
}


def branch_divergence_table(log: Log, measure: str = "relative_mse") -> pd.DataFrame:
    """Of the tokens after each block: stage, block, mean, low, high, n; ``measure`` relative_mse or cosine."""
    if measure not in HIDDEN:
        raise unknown("measure", measure, HIDDEN)
    table = summary(variable(log, PROBE, measure))
    return table[table["n"] > 0].reset_index(drop=True)


@theme()
def branch_divergence(log: Log, measure: str = "relative_mse", ax: Axes | None = None) -> Axes:
    """How far apart are the conditional and the unconditional branch, stage by stage, after each block?"""
    table = branch_divergence_table(log, measure)
    unit, title = HIDDEN[measure]
    if table.empty:
        ax = own_axes(ax, 3.9, 2.7)
        ax.set_title(title)
    else:
        ax = block_map(log, table, title, unit, ax, logarithmic=measure == "relative_mse")
    return finish(ax, log, f"branch_divergence as {measure}", table)


def prediction_divergence_table(log: Log, measure: str = "kl") -> pd.DataFrame:
    """Of the predictions: stage, mean, low, high, n; ``measure`` kl (nats per bit or label) or flip_share."""
    if measure not in PREDICTED:
        raise unknown("measure", measure, PREDICTED)
    return summary(variable(log, PROBE, measure))


@theme()
def prediction_divergence(log: Log, measure: str = "kl", ax: Axes | None = None) -> Axes:
    """How far apart are the predictions? KL(conditional, unconditional), or those whose likeliest value differs."""
    table = prediction_divergence_table(log, measure)
    unit, title, colour = PREDICTED[measure]
    unit, title = unit.format(predicted(log)), title.format(predicted(log).capitalize())
    ax = _by_stage(log, {unit: (table, colour)}, unit, title, ax)
    return finish(ax, log, f"prediction_divergence as {measure}", table)


def guidance_effect_table(log: Log) -> pd.DataFrame:
    """Share of bits or labels: stage, effect, mean, low, high, n.

    Effects: "guidance" (the likeliest value changes when the unconditional row is used), "drawing" (the drawn
    value is not the likeliest one of the guided prediction).
    """
    effects = {"guidance": "guidance_changes", "drawing": "drawn_differs"}
    return summaries("effect", {effect: variable(log, PROBE, name) for effect, name in effects.items()})


@theme()
def guidance_effect(log: Log, ax: Axes | None = None) -> Axes:
    """How many predictions does guidance decide? Beside those that the random draw decides."""
    table = guidance_effect_table(log)
    effects = (("guidance", "guidance", INK), ("random sampling alone", "drawing", ORANGE))
    lines = {label: (table[table["effect"] == effect], colour) for label, effect, colour in effects}
    ax = _by_stage(log, lines, f"share of {predicted(log)}s", f"{predicted(log).capitalize()}s changed by guidance", ax)
    legend_below(ax)
    return finish(ax, log, "guidance_effect", table)


def _by_stage(log: Log, lines: dict[str, tuple[pd.DataFrame, str]], unit: str, title: str, ax: Axes | None) -> Axes:
    stages: Sequence[int] = range(1, stage_count(log) + 1)
    ax = own_axes(ax, 3.5, 2.7)
    for (label, (table, colour)), marker in zip(lines.items(), "os", strict=False):
        line(ax, table, "stage", label, colour, marker)
    stage_axis(ax, log, stages)
    ax.set(ylim=(0, None), ylabel=unit, title=title)
    return ax

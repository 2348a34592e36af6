"""Early exits: why blocks can be left out, what is lost and what is gained. All read tables of ``studies.exits``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.analysis.comparisons import log_of
from varlab.analysis.measured import Measured
from varlab.errors import VarlabError, unknown
from varlab.figures.maps import spread_out
from varlab.figures.mosaic import PROMPT, mosaic
from varlab.figures.style import (
    CYCLE,
    MARKERS,
    METHODS,
    PAGE,
    SOFT,
    figure_of,
    finish,
    line,
    one_legend,
    own_axes,
    panels,
    plain_log,
    reference,
    stage_axis,
    stage_bar,
    stage_colours,
    theme,
)
from varlab.figures.text import as_typed, wrapped
from varlab.measures.statistics import bootstrap_interval

MEASURES = {
    "scattering_frechet": "Fréchet distance\n(scattering features)",
    "class_accuracy": "class accuracy",
    "precision": "precision",
    "recall": "recall",
    "ssim": "SSIM to the picture\nwith all details",
}
TITLES = {  # of an exit, over what it computes
    "scattering_frechet": "How far its images lie from scenes",
    "class_accuracy": "How many of them show their class",
}
LENS = {
    "similarity": ("cosine with the block before", "Do neighbouring blocks agree?"),
    "agreement": ("agreement with the last block", "At which block does the final code appear?"),
    "divergence": ("KL(last block || block) (nats)", "How far are predictions from the last block's?"),
    "error": ("relative error", "How wrong is what a block would add?"),
}
COSTS = {
    "block_calls": "block calls per image",
    "weighted_depth": "blocks that a token passes",
    "gflops": "GFLOP per image",
}
WEIGHTS = {"FreqExit": METHODS["freqexit"], "untrained exit": (SOFT, "o")}
BANDS = 4  # stages whose intervals are drawn: those of all would hide one another


def over_prompts(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean of a column over prompts with its 95 % bootstrap interval: the columns ``by``, mean, low, high, n."""
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        values = part[value].dropna()
        if len(values):
            mean, low, high = bootstrap_interval(values)
            rows.append([*key, mean, low, high, len(values)])
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])


@theme()
def detail_share(found: Measured, ax: Axes | None = None) -> Axes:
    """How much of a stage's codes, and of the canvas after it, is fine detail? (``exits.detail.detail_shares``)"""
    ax = own_axes(ax)
    log, table = log_of(found.facts), over_prompts(found.table, ["source", "stage"], "share")
    for i, (name, part) in enumerate(table.groupby("source", sort=False)):
        line(ax, part, "stage", str(name), CYCLE[i], MARKERS[i])
    stage_axis(ax, log, range(1, len(found.facts["schedule"]) + 1))
    reference(ax, 0.75, "white noise", "left")
    ax.set(ylim=(0, 1), ylabel="share of energy in Haar details", title="Where detail enters")
    ax.legend()
    return finish(ax, log, "detail_share", table)


@theme()
def detail_loss(found: Measured, measures: Sequence[str] = ("scattering_frechet", "class_accuracy", "ssim")) -> Figure:
    """What is lost when token maps lose their details at some stages? (``exits.detail.detail_removed``)"""
    table, axes = found.table, panels(len(measures), 1, height=0.85 + 0.26 * len(found.table), sharey=True)
    y = np.arange(len(table))
    for ax, name in zip(axes, measures, strict=True):
        ax.hlines(y, table[f"{name}_low"], table[f"{name}_high"], color=CYCLE[0], lw=1)
        ax.plot(table[name], y, "o", color=CYCLE[0], mec="white", mew=0.5)
        ax.axvline(table[name].iloc[0], color=SOFT, lw=0.8, ls=(0, (4, 3)), zorder=1)
        ax.set(xlabel=MEASURES[name], yticks=y, ylim=(len(table) - 0.5, -0.5))
    axes[0].set_yticks(y, [as_typed(name) for name in table["removed"]])
    axes[0].set(ylabel="details removed from", title="What images lose with the details of some stages")
    figure = figure_of(axes[0])
    return finish(figure, log_of(found.facts), "detail_loss", table)


@theme()
def lens(found: Measured, measure: str = "agreement", ax: Axes | None = None) -> Axes:
    """What would the shared head say after each block? One line per stage, some with their intervals.

    Reads the table of ``exits.lens.lens``.
    """
    if measure not in LENS:
        raise unknown("measure of the lens", measure, LENS)
    ax = own_axes(ax)
    stages = len(found.facts["schedule"])
    table, colours = over_prompts(found.table, ["stage", "layer"], measure), stage_colours(stages)
    banded = spread_out(stages, BANDS)
    for stage, part in table.groupby("stage"):
        colour, label = colours[int(stage) - 1], f"stage {stage}"
        if stage in banded:
            line(ax, part, "layer", label, colour)
        else:
            ax.plot(part["layer"], part["mean"], color=colour, label=label, lw=0.8, zorder=2)
    unit, title = LENS[measure]
    ax.set(ylabel=unit, title=title)
    layers = sorted(found.table["layer"].unique())
    ax.set_xticks(layers[:: 1 if len(layers) <= 14 else 4])
    largest = 1.02 if measure in ("similarity", "agreement") else 1.15 * table["mean"].max()
    ax.set_ylim(min(0, table["mean"].min()), largest)
    beyond = table[table["stage"].isin(banded)]["high"].max() > max(1.02, largest)
    named = f"95 % intervals: stages {', '.join(map(str, banded))}" + ("; some end above" if beyond else "")
    ax.set_xlabel(f"block\n({named})")
    stage_bar(ax, range(1, stages + 1), stages)
    return finish(ax, log_of(found.facts), f"lens-{measure}", table)


@theme()
def exit_tradeoff(
    found: Measured, measure: str = "scattering_frechet", against: str = "block_calls", ax: Axes | None = None
) -> Axes:
    """Quality over what is computed, a line for each set of weights. (``exits.quality.exit_quality``)"""
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    if against not in COSTS:
        raise unknown("cost", against, COSTS)
    ax, table = own_axes(ax), found.table
    sets, beside = list(table.groupby("weights", sort=False)), 0.012 * float(np.ptp(table[against]))
    for i, (weights, part) in enumerate(sets):
        data = part.sort_values(against)
        x = data[against] + beside * (i - (len(sets) - 1) / 2)  # so that no interval hides another
        colour, marker = WEIGHTS.get(str(weights), (CYCLE[i], MARKERS[i]))
        ax.vlines(x, data[f"{measure}_low"], data[f"{measure}_high"], color=colour, lw=0.9, zorder=1)
        ax.plot(x, data[measure], mec="white", mew=0.5, marker=marker, color=colour, label=as_typed(weights))
    ax.set(xlabel=COSTS[against], ylabel=MEASURES[measure])
    if measure == "scattering_frechet":
        ax.set_ylim(bottom=0)
    ax.set_title(TITLES.get(measure, "What an exit keeps for what it computes"))
    ax.legend()
    return finish(ax, log_of(found.facts), f"exits-{measure}", table)


@theme()
def exit_cost(found: Sequence[Measured]) -> Figure:
    """Does time follow the calls of blocks or the operations? One ``exits.speed.exit_speed`` a batch size."""
    costs = {"block_calls": "block calls over full depth", "gflops": "operations over full depth"}
    axes = panels(2, 1, height=2.7, sharey=True)
    for ax, (column, label) in zip(axes, costs.items(), strict=True):
        for i, one in enumerate(found):  # beside each other, the first ones larger and open
            table, shift = one.table, 0.012 * (i - (len(found) - 1) / 2)
            x, batch = table[column] / table[column].iloc[0] + shift, int(table["batch"].iloc[0])
            ax.vlines(x, table["low"], table["high"], color=CYCLE[i], lw=0.9)
            face: Any = {"mfc": "none", "mew": 1.0, "ms": 6} if i < len(found) - 1 else {"mec": "white", "mew": 0.5}
            ax.plot(x, table["transformer_ratio"], MARKERS[i], color=CYCLE[i], label=f"batch {batch}", **face)
        ax.plot([0, 1.05], [0, 1.05], color=SOFT, lw=0.8, ls=(0, (4, 3)), zorder=1, label="time in proportion")
        ax.set(xlabel=label, xlim=(0, 1.06), ylim=(0, None))
    axes[0].set(ylabel="transformer time over full depth", title="Time against block calls")
    axes[1].set_title("Time against operations")
    axes[0].legend()
    figure = figure_of(axes[0])
    for one in found:
        finish(figure, log_of(one.facts), f"exit_cost-batch{int(one.table['batch'].iloc[0])}", one.table)
    return figure


@theme()
def ablation(found: Measured, exits: str, measures: Sequence[str] = ("scattering_frechet", "class_accuracy")) -> Figure:
    """What does each loss do at an exit? A point and interval for each recipe and training seed."""
    table = found.table[found.table["exits"].astype(str) == exits]
    if table.empty:
        raise VarlabError(
            f"The ablation holds no exit {exits}: {', '.join(sorted(set(found.table['exits'].astype(str))))}."
        )
    recipes = list(dict.fromkeys(table["recipe"]))
    axes = panels(len(measures), 1, height=0.6 + 0.3 * len(recipes), sharey=True)
    for ax, name in zip(axes, measures, strict=True):
        for y, recipe in enumerate(recipes):
            part = table[table["recipe"] == recipe]
            spread = y + 0.3 * (np.arange(len(part)) - (len(part) - 1) / 2)
            for at, (_, row) in zip(spread, part.iterrows(), strict=True):
                colour, marker, seed = _training(int(row.train_seed))
                ax.hlines(at, row[f"{name}_low"], row[f"{name}_high"], color=colour, lw=1)
                ax.plot(row[name], at, marker, ls="", color=colour, mec="white", mew=0.5, label=seed)
        ax.set(xlabel=MEASURES[name], ylim=(len(recipes) - 0.5, -0.5))
        if name == "scattering_frechet":  # one recipe may be ten times as far as the others
            ax.set_xscale("log")
            plain_log(ax.xaxis)
    axes[0].set_yticks(range(len(recipes)), [as_typed(name) for name in recipes])
    axes[0].set_title(f"What each recipe gives at exit {exits}")
    one_legend(*axes)
    figure = figure_of(axes[0])
    return finish(figure, log_of(found.facts), f"ablation-exit{exits}".replace("/", "-"), table)


def _training(seed: int) -> tuple[str, str, str]:
    """Colour, marker and name of a training by its seed, -1 for none."""
    if seed < 0:
        return SOFT, "o", "not trained for exits"
    return CYCLE[seed % len(CYCLE)], MARKERS[seed % len(MARKERS)], f"training seed {seed}"


@theme()
def samples_by_exit(found: Measured) -> Figure:
    """How do the images look at each exit? One row per exit, one block of columns per set of weights, the same noise.

    Reads the pictures of ``exits.quality.exit_pictures``. Errors: a table without pictures.
    """
    if found.pictures is None:
        raise VarlabError("This table holds no pictures: give what studies.exits.quality.exit_pictures returns.")
    sets = {weights: list(part.index) for weights, part in found.table.groupby("weights", sort=False)}
    exits, names = found.table["exits"].iloc[next(iter(sets.values()))], found.facts["pictures"]
    columns = len(sets) * len(names)
    apart = dict.fromkeys(range(len(names), columns, len(names)), 0.12)
    side = min(0.95, (PAGE - 0.4) / columns)
    sheet = mosaic(len(exits), columns, side, 0.4, shape=found.pictures.shape[2:], apart=apart, frame=0)
    for row, text in enumerate(exits):
        sheet.name(row, as_typed(f"exit {text}"))
    titles = [wrapped(name, 14, lines=2) for name in names]
    most = max(title.count("\n") for title in titles)  # all of as many lines: one heading stands over several
    for first, (weights, rows) in zip(range(0, columns, len(names)), sets.items(), strict=True):
        over = [
            sheet.title(first + i, "\n" * (most - title.count("\n")) + title, **PROMPT)
            for i, title in enumerate(titles)
        ]
        sheet.heading(first, as_typed(weights), over[0])
        for row, one in enumerate(rows):
            for i in range(len(names)):
                sheet.picture(row, first + i, found.pictures[one, i])
    return finish(sheet.figure, log_of(found.facts), "samples_by_exit", found.table)

"""Steps: what each stage costs and how close the picture already is to the final one."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.analysis.logs import Log, stage_count
from varlab.analysis.redundancy import ENOUGH, energy_left_table, saturation_table, similarity_table, stage_cost_table
from varlab.figures.legends import legend_below
from varlab.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    PAGE,
    RED,
    SKY,
    figure_of,
    finish,
    line,
    own_axes,
    panels,
    reference,
    stage_axis,
    theme,
)

SIMILARITY = {"ssim": ("picture", BLUE, "o"), "high_frequency_ssim": ("its detail", RED, "s")}


@theme()
def similarity(log: Log, ax: Axes | None = None) -> Axes:
    """How close is the picture after each stage to the final one? SSIM of the picture and of its detail."""
    table = similarity_table(log)
    table = table[table["measure"] != "psnr"].reset_index(drop=True)
    ax = own_axes(ax, 3.5, 2.7)
    for measure, (label, colour, marker) in SIMILARITY.items():
        line(ax, table[table["measure"] == measure], "stage", label, colour, marker)
    reference(ax, ENOUGH, f"done: {ENOUGH:g}", "left")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set_ylim(min(0, table["low"].min(), table["mean"].min()), 1.02)
    ax.set(ylabel="SSIM", title="Similarity to the final preview")
    legend_below(ax, columns=2)  # within, it may cover what is said of the line
    return finish(ax, log, "similarity", table)


@theme()
def psnr(log: Log, ax: Axes | None = None) -> Axes:
    """How close in decibels? The last stage has no error and no point."""
    table = similarity_table(log)
    table = table[table["measure"] == "psnr"].reset_index(drop=True)
    ax = own_axes(ax, 3.5, 2.7)
    line(ax, table, "stage", "PSNR", GREEN, "^")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set(ylabel="PSNR (dB)", title="PSNR to the final preview")
    return finish(ax, log, "psnr", table)


@theme()
def energy_left(log: Log, ax: Axes | None = None) -> Axes:
    """How much of the latent is still to come after each stage?"""
    table = energy_left_table(log)
    ax = own_axes(ax, 3.5, 2.7)
    line(ax, table, "stage", "latent energy left", GREEN, "D")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set(ylim=(0, None), ylabel="share of latent energy", title="Latent energy still to come")
    return finish(ax, log, "energy_left", table)


@theme()
def stage_cost(log: Log, ax: Axes | None = None) -> Axes:
    """What does each stage cost? Its share of the FLOPs and of the measured time of an image."""
    table = stage_cost_table(log)
    ax = own_axes(ax, 3.5, 2.7)
    costs = list(table.groupby("cost", sort=False))
    for i, ((cost, rows), colour) in enumerate(zip(costs, (SKY, ORANGE), strict=False)):
        x = rows["stage"] + 0.38 * (i - (len(costs) - 1) / 2)
        ax.bar(x, rows["mean"], 0.36, color=colour, label=str(cost), zorder=2)
        ax.vlines(x, rows["low"], rows["high"], color="#444444", lw=0.9, zorder=3)
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set_xlim(0.4, stage_count(log) + 0.6)
    ax.set(ylabel="share of an image's cost", title="Cost of a stage")
    ax.legend(loc="upper left")
    return finish(ax, log, "stage_cost", table)


@theme()
def step_redundancy(log: Log) -> Figure:
    """Which stages cost much and change little? Similarity to the final preview, PSNR, and cost, side by side."""
    axes = panels(3, width=PAGE, height=2.5)
    similarity(log, axes[0])
    psnr(log, axes[1])
    stage_cost(log, axes[2])
    return figure_of(axes[0])


@theme()
def saturation(log: Log, enough: float = ENOUGH, ax: Axes | None = None) -> Axes:
    """Which share of the pictures is done after a stage, and which share of the cost is still to come?"""
    table = saturation_table(log, enough)
    ax = own_axes(ax, 3.5, 2.7)
    ax.plot(table["stage"], table["saturated"], "s-", color=BLUE, label=f"pictures done (SSIM ≥ {enough:g})")
    ax.fill_between(table["stage"], table["saturated_low"], table["saturated_high"], color=BLUE, alpha=0.18, lw=0)
    for name, colour in (("FLOP_left", SKY), ("time_left", ORANGE)):
        if name in table:
            ax.plot(table["stage"], table[name], "o-", color=colour, label=f"{name.removesuffix('_left')} to come")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set(ylim=(0, 1.02), ylabel="share", title="Pictures done and cost to come")
    legend_below(ax, columns=2)
    return finish(ax, log, "saturation", table)

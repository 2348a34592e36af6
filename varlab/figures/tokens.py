"""Blocks: how much each changes its tokens, through which guidance_row, and whether it does so on edges.

Values are the mean of the conditional and the unconditional row unless ``guidance_row`` names one of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from varlab.analysis.logs import Images, Log, grids, late_stages, stage_count, stage_range
from varlab.analysis.tokens import (
    block_edge_correlation_table,
    block_token_mse_table,
    step_change_table,
    sublayer_split_table,
)
from varlab.figures.style import (
    COLOURS,
    CYCLE,
    ENERGY,
    FAINT,
    INK,
    MARKERS,
    SOFT,
    block_axis,
    clean_bar,
    finish,
    line,
    own_axes,
    plain_log,
    stage_name,
    theme,
    two_digits,
)


@theme()
def block_token_mse(log: Log, sublayer: str = "block", guidance_row: str = "both", ax: Axes | None = None) -> Axes:
    """How much does each block change its tokens, at each stage? Relative to the size of what enters it."""
    table = block_token_mse_table(log, sublayer, guidance_row)
    what = "block" if sublayer == "block" else f"{sublayer} sublayer"
    ax = block_map(log, table, f"Relative change of the tokens by each {what}", "relative MSE", ax)
    return finish(ax, log, f"block_token_mse of {sublayer}", table)


@theme()
def step_change(log: Log, ax: Axes | None = None) -> Axes:
    """How far is a block's output from its own output one stage earlier? 0: the stage repeats the last one."""
    table = step_change_table(log)
    ax = block_map(log, table, "Change since the previous stage", "relative MSE", ax)
    return finish(ax, log, "step_change", table)


def block_map(log: Log, table: pd.DataFrame, title: str, unit: str, ax: Axes | None, logarithmic: bool = True) -> Axes:
    """Heat map of block by stage, its colours on a logarithmic scale, with numbers where there is room."""
    grid = table.pivot(index="block", columns="stage", values="mean").dropna(axis=1, how="all")
    ax = own_axes(ax, 3.9, 2.9)
    few = grid.size <= 80
    middle = grid.values[1:-1] if len(grid) > 4 else grid.values  # first and last block would take half the scale
    scale = _log_scale(middle[middle > 0]) if logarithmic else None
    labels, ends = grid.map(_short) if few else None, "both" if logarithmic else "neither"
    largest = float(f"{np.nanmax(grid.values):.2g}")
    beyond = f" (up to {largest:g})" if scale is not None and scale.vmax and largest > scale.vmax else ""
    bar_as = {"label": unit + beyond, "pad": 0.02, "aspect": 24, "extend": ends}
    sns.heatmap(grid, ax=ax, cmap=ENERGY, norm=scale, annot=labels, fmt="", annot_kws={"fontsize": 6},
                linewidths=0.4 if few else 0, cbar_kws=bar_as)  # fmt: skip
    bar: Any = ax.collections[0].colorbar
    clean_bar(bar)
    if logarithmic:
        plain_log(bar.ax.yaxis)
    ax.invert_yaxis()
    ax.set_title(title)
    _stage_columns(ax, log, list(grid.columns))
    _sparse_rows(ax, list(grid.index))
    return ax


def _log_scale(values: np.ndarray, least: float = 2.0) -> LogNorm | None:
    """Over the middle nine tenths of the values; at least a factor of two, lest noise fills the colours."""
    if not values.size:
        return None
    low, high = np.quantile(values, [0.05, 0.95])
    middle, half = np.sqrt(low * high), np.sqrt(max(least, high / low))
    return LogNorm(middle / half, middle * half)


def _short(value: float) -> str:
    """Two significant digits, without a leading zero."""
    if np.isnan(value) or not value:
        return "" if np.isnan(value) else "0"
    text = two_digits(value) if 0.001 <= value < 1000 else f"{value:.0e}"
    return text.replace("e-0", "e-").replace("e+0", "e").removeprefix("0")


def _stage_columns(ax: Axes, log: Log, stages: Sequence[int]) -> None:
    sides = grids(log)
    ax.set_xticklabels([stage_name(k, sides) for k in stages], rotation=0)
    ax.set_xlabel("stage and its grid" if sides else "stage")


def _sparse_rows(ax: Axes, blocks: Sequence[int]) -> None:
    step = 1 if len(blocks) <= 16 else 4
    shown = range(0, len(blocks), step)
    ax.set_yticks([i + 0.5 for i in shown], [str(blocks[i]) for i in shown], rotation=0)
    ax.tick_params(length=0)


@theme()
def sublayer_split(
    log: Log, guidance_row: str = "both", stages: Sequence[int] | None = None, ax: Axes | None = None
) -> Axes:
    """Through which sublayer does a block change its tokens: self-attention, cross-attention or feed-forward?"""
    table = sublayer_split_table(log, guidance_row, stages)
    ax = own_axes(ax, 3.9, 2.7)
    for marker, (sublayer, rows) in zip(MARKERS, table.groupby("sublayer", sort=False), strict=False):
        line(ax, rows, "block", str(sublayer), COLOURS.get(str(sublayer), INK), marker)
    ax.set_yscale("log")
    plain_log(ax.yaxis)
    block_axis(ax, sorted(table["block"].unique()))
    ax.set(ylabel="relative MSE", title=f"Change by sublayer, {stage_range(log, stages)}")
    ax.legend()
    return finish(ax, log, "sublayer_split", table)


@theme()
def block_edge_correlation(
    log: Log,
    images: Images = None,
    stages: Sequence[int] | None = None,
    sublayer: str = "block",
    guidance_row: str = "both",
    ax: Axes | None = None,
) -> Axes:
    """Which blocks follow edges, which the background? Rank correlation by block at the late stages, with intervals.

    Grey: where the mean of unrelated maps would lie. Crosses: the same blocks with other prompts' edges; the
    distance to the cross is what belongs to the picture and not to the place.
    """
    table = block_edge_correlation_table(log, images, sublayer, guidance_row)
    count = stage_count(log)
    shown = list(stages or late_stages(count))
    table = table[table["stage"].isin(shown)].reset_index(drop=True)
    ax = own_axes(ax, 4.6, 2.7)
    ax.axhline(0, color=SOFT, lw=0.8, zorder=1)
    bound = table["chance"].max()
    ax.axhspan(-bound, bound, color=FAINT, alpha=0.6, lw=0, zorder=0)
    for i, k in enumerate(shown):
        shift = 0.22 * (i - (len(shown) - 1) / 2)
        _point_ranges(ax, table[table["stage"] == k], shift, CYCLE[i % len(CYCLE)], MARKERS[i % 6], f"stage {k}")
    block_axis(ax, sorted(table["block"].unique()))
    ax.set(ylabel="rank correlation with edges", title="Which blocks change tokens on edges?")
    _explain(ax, "other" in table)
    return finish(ax, log, "block_edge_correlation", table)


def _point_ranges(ax: Axes, rows: pd.DataFrame, shift: float, colour: object, marker: str, label: str) -> None:
    x = rows["block"] + shift
    ax.vlines(x, rows["low"], rows["high"], color=colour, lw=1.3, zorder=2)
    ax.plot(x, rows["mean"], marker, label=label, color=colour, mec="white", mew=0.5, zorder=3)
    if "other" in rows:
        ax.plot(x, rows["other"], "x", color=colour, ms=3.5, mew=0.9, alpha=0.8, zorder=2)


def _explain(ax: Axes, control: bool) -> None:
    """The legend beside the axes, with the marks that are no stage."""
    marks: list[Any] = ax.get_legend_handles_labels()[0]
    if control:
        marks.append(Line2D([], [], ls="", marker="x", ms=3.5, color=SOFT, label="edges of\nother images"))
    marks.append(Patch(color=FAINT, alpha=0.6, lw=0, label="chance, 95 %"))
    ax.legend(handles=marks, loc="center left", bbox_to_anchor=(1, 0.5), borderaxespad=0.2)

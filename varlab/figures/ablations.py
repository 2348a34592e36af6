"""Ablations of a method's options, drawn from the stored tables of studies."""

from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.analysis.ablation_axes import axis_table, blocks_table, product_table
from varlab.analysis.comparisons import log_of
from varlab.analysis.frontier import corners
from varlab.analysis.settings_table import DENSE, SettingsTable
from varlab.errors import VarlabError
from varlab.figures.labels import Label, place
from varlab.figures.style import (
    CYCLE,
    INK,
    MARKERS,
    METHODS,
    PAGE,
    SOFT,
    clean_bar,
    figure_of,
    finish,
    one_legend,
    own_axes,
    panels,
    reference,
    theme,
)

LABELS = {
    "tau": "tau (the poster's)",
    "matched tau": "tau (that keeps .87, .49, .27, .21)",
    "alpha": "alpha, side of an anchor's cell",
    "last": "final stages pruned",
    "block": "scoring block, from 1, at equal work",
    "depth": "blocks that a stage runs",
}
ASKED = {
    "tau": "tau",
    "matched tau": "a tau that keeps what the poster's does",
    "alpha": "alpha",
    "last": "pruning more stages",
    "block": "the scoring block",
    "depth": "the depth",
}


@theme()
def ablation(table: SettingsTable, axis: str) -> Figure:
    """What does an option cost and save? Left: SSIM to the dense image by its value (bars: 95 % over prompts); middle:
    the scene score, where it was stored; right: SSIM over the work of the ledger, with the frontier of baselines.

    Raises
    ------
    VarlabError: an axis that the study has not drawn.
    """
    rows = axis_table(table, axis)
    measures = {"ssim": "SSIM to the dense image", "score": "scene score"}
    shown = {name: label for name, label in measures.items() if name in rows}
    *by_value, by_work = panels(len(shown) + 1, width=PAGE, height=2.6)
    method = "freqexit" if axis == "depth" else "sparsevar"
    colour = METHODS[method][0]
    drawn: dict[str, Any] = {"marker": METHODS[method][1], "color": colour, "ms": 4, "lw": 1.1, "capsize": 2}
    below, above = rows.ssim - rows.ssim_low, rows.ssim_high - rows.ssim
    for ax, (name, label) in zip(by_value, shown.items(), strict=True):
        ends = rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]
        ax.errorbar(range(len(rows)), rows[name], ends, **drawn, ls="")
        ax.set(xticks=range(len(rows)), xlabel=LABELS[axis].replace(" (", "\n("), ylabel=label)
        ax.set_xticklabels(rows[axis])
    if "score" in shown:
        reference(by_value[1], float(table.table(DENSE).score.iloc[0]), "dense")
    differ = rows.work.nunique() > 1
    by_work.errorbar(rows.work, rows.ssim, (below, above), **drawn, ls="-" if differ else "", label=method)
    _blind(by_work, table)
    by_work.set(xlabel="work over dense", ylabel="SSIM to the dense image")
    by_value[0].set_title(f"{method}: what {ASKED[axis]} costs and saves")
    one_legend(by_work)
    figure = figure_of(by_work)
    finish(figure, log_of(table.facts), f"ablation {axis}", rows)
    if differ:  # at equal work names would lie on one another, and the left panel has them
        ends = rows.iloc[[0, -1]]  # between them a line leads from one value to the next
        points = zip(ends[axis], ends.work, ends.ssim, strict=True)
        place(by_work, [Label(str(value), x, y, colour, size=6.0) for value, x, y in points])
    return figure


@theme()
def anchors(table: SettingsTable) -> Axes:
    """Which anchors does each tau need?

    SSIM over the work of the ledger, one line per alpha and one point per tau (bars: 95 % over prompts), with the
    frontier of baselines.
    """
    rows, ax = product_table(table), own_axes(None, 5.2, 3.4)
    for i, (alpha, part) in enumerate(rows.groupby("alpha", sort=False)):
        part = part.sort_values("work")
        ends = part.ssim - part.ssim_low, part.ssim_high - part.ssim
        style: dict[str, Any] = {"color": CYCLE[i], "marker": MARKERS[i], "ms": 3.5, "lw": 1.0, "elinewidth": 0.7}
        ax.errorbar(part.work, part.ssim, ends, label="no anchors" if alpha == "none" else f"alpha {alpha}", **style)
    _blind(ax, table)
    ax.set(xlabel="work over dense", ylabel="SSIM to the dense image", title="sparsevar: what anchors cost and save")
    ax.legend(fontsize=7)
    finish(ax, log_of(table.facts), "ablation tau alpha", rows)
    return ax


@theme()
def scoring_blocks(table: SettingsTable) -> Axes:
    """Which block should score, and does that depend on how many stages are pruned?

    SSIM gained over random tokens at the same keep (.27) and stages, so at equal work; bold: the paired 95 % interval
    over prompts excludes zero.

    Raises
    ------
    VarlabError: the study holds no such settings.
    """
    rows = blocks_table(table)
    if rows.empty:
        raise VarlabError(
            f"The study {table.facts['study']} of {table.facts['model']} crosses no stages with blocks: take the study "
            f"sparsevar, which varlab evidence {table.facts['model']} sparsevar draws."
        )
    gain = rows.pivot(index="last", columns="block", values="gain")
    ax, far = own_axes(None, PAGE, 3.4), float(np.abs(gain.to_numpy()).max())
    sns.heatmap(
        gain, ax=ax, cmap="vlag", vmin=-far, vmax=far, annot=gain.map(_signed), fmt="", annot_kws={"fontsize": 6},
        cbar_kws={"label": "SSIM gained", "pad": 0.02, "aspect": 24},
    )  # fmt: skip
    for text, sure in zip(ax.texts, rows.gain_low * rows.gain_high > 0, strict=True):
        text.set_fontweight("bold" if sure else "normal")
    clean_bar(ax.collections[0].colorbar)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="scoring block, from 1 (bold: the 95 % interval excludes zero)", ylabel=LABELS["last"])
    ax.set_title("SSIM gained over random tokens at equal work (keep .27)")
    return finish(ax, log_of(table.facts), "ablation stages blocks", rows)


def _signed(value: float) -> str:
    """Three digits after the point, without the zero before it, and a minus sign instead of a hyphen."""
    return f"{value:+.3f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}")


def _blind(ax: Axes, table: SettingsTable) -> None:
    """The line of the best baselines and their mixes."""
    values = table.baselines()
    if set(values.index) == {DENSE}:
        return
    works, means = table.works[values.index].to_numpy(float), values.mean(axis=1).to_numpy(float)
    edge = corners(works, means)
    ax.plot(works[edge], means[edge], "o-", ms=2.5, lw=1.2, color=INK, label="frontier of baselines")
    others = [i for i in range(len(works)) if i not in edge]
    near = [i for i in others if means[i] >= ax.dataLim.y0]  # one far below all else would squeeze the scale
    left_out = f" ({len(others) - len(near)} lower left out)" if len(near) < len(others) else ""
    ax.plot(works[near], means[near], ls="", marker=".", ms=3, color=SOFT, label=f"other baselines{left_out}")

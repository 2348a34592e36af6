"""Calibration of SparseVAR: shares of scores below tau, by reading, and which block follows the picture's edges."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.analysis.logs import Log
from varlab.figures.legends import legend_below
from varlab.figures.style import (
    BLUE,
    CYCLE,
    INK,
    MARKERS,
    PAGE,
    RED,
    SOFT,
    block_axis,
    clean_bar,
    figure_of,
    finish,
    note_below,
    own_axes,
    panels,
    reference,
    theme,
)

UNSURE = 0.05  # of the published shares
A_LINE = 0.015  # of a share: its width on the axis
FAR = 0.4  # end of the colour scale of distances


def _name(norm: str, root: bool) -> str:
    return f"{norm}, root" if root else norm


def _alike(rows: pd.DataFrame, taus: Sequence[float]) -> list[list[dict[str, Any]]]:
    """Rows in groups: those of one group would lie on one another as lines."""
    groups: list[list[dict[str, Any]]] = []
    for row in rows.to_dict("records"):
        names = [f"below {tau}" for tau in taus]
        near = (group for group in groups if all(abs(row[name] - group[0][name]) <= A_LINE for name in names))
        if (group := next(near, None)) is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


@theme()
def readings(shares: pd.DataFrame, published: Sequence[float], log: Log) -> Figure:
    """Which share of the scores lies below tau? ``shares`` as ``varlab.studies.calibration.sparsevar`` finds them.

    Left: each normaliser at the block where it comes closest, against the published shares; those that agree to the
    width of a line are one line with all their names. Right: the distance of
    all readings to these; white dots: the closest of a row.
    """
    lines, field = panels(2, width=PAGE, height=3.4)
    taus = sorted({float(name.split()[1]) for name in shares.columns if name.startswith("below")})
    best = shares.loc[shares.groupby("norm", sort=False).distance.idxmin()]
    lines.fill_between(
        taus, np.array(published) - UNSURE, np.array(published) + UNSURE, color=SOFT, alpha=0.22, lw=0, zorder=1
    )
    lines.plot(taus, published, color=INK, ls=(0, (4, 3)), lw=1.2, label="published", zorder=2)
    for i, together in enumerate(_alike(best, taus)):
        row = together[0]
        y, low, high = ([row[f"below {tau}{end}"] for tau in taus] for end in ("", " low", " high"))
        label = ",\n".join(f"{_name(one['norm'], one['root'])} (block {one['block']})" for one in together)
        colour = CYCLE[i % len(CYCLE)]
        lines.plot(taus, y, color=colour, marker=MARKERS[i % len(MARKERS)], mec="white", mew=0.5, label=label,
                   lw=1.6, ms=4.6, zorder=3)  # fmt: skip
        lines.fill_between(taus, low, high, color=colour, alpha=0.15, lw=0)
    lines.set(xlabel="tau", ylabel="share of scores below tau", ylim=(-0.02, 1.02), xticks=taus)
    lines.set_title("Which reading gives the published shares?")
    legend_below(lines, columns=2)
    table = shares.assign(reading=[_name(n, r) for n, r in zip(shares.norm, shares.root, strict=True)])
    grid = table.pivot(index="reading", columns="block", values="distance").loc[list(dict.fromkeys(table.reading))]
    drawn = field.imshow(grid.to_numpy(), cmap="mako_r", vmin=0, vmax=FAR, aspect="auto", interpolation="nearest")
    field.set_yticks(range(len(grid)), list(grid.index), fontsize=6)
    step = 1 if grid.shape[1] <= 16 else 4
    field.set_xticks(range(0, grid.shape[1], step), [str(b) for b in grid.columns[::step]])
    field.set(xlabel="block", title="White dot: the closest block of a reading")
    field.plot(grid.to_numpy().argmin(1), range(len(grid)), ls="", marker="o", ms=3, color="white", mec=INK, mew=0.4)
    bar = figure_of(field).colorbar(drawn, ax=field, extend="max", fraction=0.05, aspect=24, pad=0.02)
    bar.set_label("distance to the published shares (rms)")
    clean_bar(bar)
    return figure_of(finish(lines, log, "readings", shares))


@theme()
def block_edges(edges: pd.DataFrame, log: Log, ax: Axes | None = None) -> Axes:
    """Which block's scores follow the edges of the final picture? Bars are 95 % intervals over prompts."""
    ax = own_axes(ax)
    reference(ax, 0, "no relation")
    colours = [RED if low > 0 else BLUE if high < 0 else SOFT
               for low, high in zip(edges["correlation low"], edges["correlation high"], strict=True)]  # fmt: skip
    ax.vlines(edges.block, edges["correlation low"], edges["correlation high"], color=colours, lw=1.2)
    ax.scatter(edges.block, edges.correlation, color=colours, s=16, zorder=3)
    block_axis(ax, edges.block.tolist())
    ax.set(xlabel="block", ylabel="rank correlation with edges", title="Which block's scores follow edges?")
    note_below(ax, "bars: 95 %; grey where they include 0")
    return finish(ax, log, "block_edges", edges)

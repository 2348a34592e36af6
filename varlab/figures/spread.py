"""Where a stage's energy falls in the picture: on edges, or anywhere.

``contribution`` is the energy of what the stage adds to the latent canvas. In a BSQ latent every code has the
same length, so at the last stage that map is flat whatever the model does, and what a stage does to the picture
must be read from ``preview change``.
"""

import pandas as pd
from matplotlib.axes import Axes

from varlab.analysis.controls import energy_edges
from varlab.analysis.logs import Images, Log, has_images, pick, summary, variable
from varlab.figures.legends import legend_below
from varlab.figures.style import COLOURS, SOFT, finish, line, own_axes, reference, stage_axis, theme

PROBE = "residual-spectrum"
SPREADS = ("contribution", "preview change")
POOLED = {"own": "own image, small maps", "other": "other images, small maps"}


def concentration_table(log: Log, images: Images = None) -> pd.DataFrame:
    """Share of energy on the quarter of the cells with the largest edges: stage, source, edges, mean, low, high, n.

    ``edges`` is "own image", the probe's figure from the whole maps. Where the images are found the preview change has
    two more rows from the logged maps of at most 32 cells a side: "own image, small maps" and "other images, small
    maps", to be compared with each other.
    """
    return _spread_table(log, "concentration", images)


def edge_correlation_table(log: Log, images: Images = None) -> pd.DataFrame:
    """Spearman correlation of energy and edges over cells: stage, source, edges, mean, low, high, n."""
    return _spread_table(log, "edge_correlation", images)


@theme()
def concentration(log: Log, images: Images = None, ax: Axes | None = None) -> Axes:
    """How much of the change falls on edges? Even spread gives .25; dashed: the edges of other prompts' images."""
    return concentration_lines(log, concentration_table(log, images), ax)


def concentration_lines(log: Log, table: pd.DataFrame, ax: Axes | None) -> Axes:
    """The table of ``concentration``; of the log its schedule."""
    ax = _spread_lines(log, table, ax)
    reference(ax, 0.25, "even spread")
    ax.set(ylabel="share of the energy", title="Energy on the quarter with most edges", ylim=(0, None))
    return finish(ax, log, "concentration", table)


@theme()
def edge_correlation(log: Log, images: Images = None, ax: Axes | None = None) -> Axes:
    """Does the change follow edges, cell by cell? Rank correlation; dashed: the edges of other prompts' images."""
    table = edge_correlation_table(log, images)
    ax = _spread_lines(log, table, ax)
    ax.axhline(0, color=SOFT, lw=0.8, zorder=1)
    ax.set(ylabel="rank correlation", title="Correlation of energy and edges")
    return finish(ax, log, "edge_correlation", table)


def _spread_table(log: Log, name: str, images: Images) -> pd.DataFrame:
    values = {source: pick(variable(log, PROBE, name), spread=source) for source in SPREADS}
    parts = []
    if has_images(log, images):
        pairs = energy_edges(log, images, shares=name == "concentration")
        parts = [_part(summary(pairs[whose]), "preview change", label) for whose, label in POOLED.items()]
    own = [_part(summary(values[source]), source, "own image") for source in SPREADS]
    return pd.concat(own + parts, ignore_index=True)


def _part(table: pd.DataFrame, source: str, whose: str) -> pd.DataFrame:
    table.insert(1, "source", source)
    table.insert(2, "edges", whose)
    return table


def _spread_lines(log: Log, table: pd.DataFrame, ax: Axes | None) -> Axes:
    ax = own_axes(ax, 3.9, 2.7)
    for (source, whose), rows in table.groupby(["source", "edges"], sort=False):
        if whose == "own image":
            line(ax, rows, "stage", source, COLOURS[source], "o" if source == "contribution" else "s")
        elif whose == POOLED["other"]:
            ax.plot(rows["stage"], rows["mean"], color=COLOURS[source], ls=(0, (2, 1.5)), lw=1,
                    label="edges of other images")  # fmt: skip
    stage_axis(ax, log, sorted(table["stage"].unique()))
    legend_below(ax, handlelength=2)
    return ax

"""How time grows with resolution, batch, depth and width, measured and by the account of operations."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from varlab.figures.style import CYCLE, MARKERS, SOFT, plain_log, theme
from varlab.figures.text import as_typed


@theme()
def growth_curves(table: pd.DataFrame, line: str) -> Figure:
    """One panel an axis of ``varlab.timing.benchmarks.growth``: seconds against the account's, each relative to the
    smallest point, on logarithmic scales; ``line`` says on what it rests."""
    axes_names = list(dict.fromkeys(table.axis))
    figure, panels = plt.subplots(1, len(axes_names), figsize=(2.4 * len(axes_names), 2.6), layout="constrained")
    for ax, name in zip(panels, axes_names, strict=True):
        part = table[table.axis == name]
        places = range(len(part))
        ax.plot(places, part.account_growth, color=SOFT, ls="--", marker=MARKERS[1], label="account")
        ax.plot(places, part.seconds_growth, color=CYCLE[0], marker=MARKERS[0], label="measured")
        ax.set(yscale="log", xticks=list(places), xlabel=name, ylabel="time, smallest = 1" if ax is panels[0] else "")
        plain_log(ax.yaxis)
        ax.set_xticklabels(part.value)
    panels[0].legend()
    figure.supxlabel(as_typed(line), x=0.005, ha="left", fontsize=5.5, color=SOFT)
    return figure

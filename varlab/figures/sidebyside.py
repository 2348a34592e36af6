"""Compared methods as pictures: side by side, what differs from the dense image, and at which frequencies."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.analysis.comparisons import family, is_baseline, log_of
from varlab.analysis.pictures import Pictured, as_array, difference_spectrum_table
from varlab.figures.legends import legend_below
from varlab.figures.mosaic import METHOD, PROMPT, mosaic
from varlab.figures.style import DASHES, PAGE, decades, finish, method_style, own_axes, theme
from varlab.figures.text import briefer, wrapped
from varlab.markup import brief

LABEL = 1.3  # inches for the names of the rows
GAIN = 3.0  # of the difference pictures


@theme()
def side_by_side(
    compared: Pictured,
    prompts: Sequence[int] = range(4),
    difference: bool = False,
    methods: Sequence[str] | None = None,
) -> Figure:
    """How do the pictures of each method look? One row per method, one column per prompt; the viewer has all others.

    ``difference``: mid grey plus three times what differs from dense. ``methods``: by default the first two methods
    and the first baselines, three rows beside dense.
    """
    shown = [i for i in prompts if i < len(compared.images["none"])]
    names = [name for name in methods or few(compared) if not (difference and name == "none")]
    dense = as_array([compared.images["none"][i] for i in shown])
    side = min((PAGE - LABEL) / len(shown), 1.25)
    sheet = mosaic(len(names), len(shown), side, LABEL, shape=dense.shape[1:], frame=0)
    texts = compared.facts["prompts"]
    for row, name in enumerate(names):
        pictures = as_array([compared.images[name][i] for i in shown])
        if difference:
            pictures = np.clip(0.5 + GAIN * (pictures - dense), 0, 1)
        for column, picture in enumerate(pictures):
            sheet.picture(row, column, picture)
        sheet.name(row, wrapped("dense" if name == "none" else brief(name), 26, lines=4), **METHOD)
    for column, i in enumerate(shown):
        sheet.title(column, wrapped(texts[i], 16, lines=3), **PROMPT)
    title = f"Mid-grey + {GAIN:g} times (method - dense)" if difference else "The same prompts and seed by method"
    sheet.figure.suptitle(title, x=0.01, ha="left", fontsize=6.5)
    table = pd.DataFrame({"prompt": shown, "text": [texts[i] for i in shown]})
    return finish(sheet.figure, log_of(compared.facts), "difference" if difference else "side_by_side", table)


def few(compared: Pictured, most: int = 3) -> list[str]:
    """Dense and the rows that a figure has room for: at most two methods, then baselines."""
    others = [name for name in compared.images if name != "none"]
    own = [name for name in others if not is_baseline(name, "oracle-tokens")]
    blind = [name for name in others if is_baseline(name)]
    return ["none", *[*own[:2], *blind, *own[2:]][:most]]


@theme()
def difference_spectrum(compared: Pictured, ax: Axes | None = None) -> Axes:
    """At which frequencies does a method's image differ from the dense one?

    The first method and the first baseline have a band, their 95 % interval over prompts: those of all would hide one
    another.
    """
    table = difference_spectrum_table(compared)
    ax = own_axes(ax, width=PAGE)
    names = list(dict.fromkeys(table.method))
    blind = [name for name in names if is_baseline(name)]
    own = [name for name in names if name not in blind]
    kinds, seen = list(dict.fromkeys(map(family, names))), Counter[str]()
    side = min(compared.images["none"][0].size)
    for name in [*own, *blind]:
        part = table[(table.method == name) & (table.frequency > 0) & (table["mean"] > 0)]
        kind = family(name)
        colour, dash = method_style(kind, kinds)[0], DASHES[seen[kind] % len(DASHES)]
        seen[kind] += 1
        frequency = part.frequency * side
        ax.plot(
            frequency,
            part["mean"],
            color=colour,
            ls=dash,
            label=wrapped(briefer(name), 24),
            zorder=3 if name in own else 2,
        )
        if name in (*own[:1], *blind[:1]):
            ax.fill_between(frequency, part.low, part.high, color=colour, alpha=0.14, lw=0)
    ax.set(yscale="log", xlabel="frequency (cycles per image)", ylabel="power of the difference")
    ax.set_title("Where methods differ from dense")
    decades(ax.yaxis)
    legend_below(ax, columns=2, title="95 % bands: the first method and baseline")
    return finish(ax, log_of(compared.facts), "difference_spectrum", table)

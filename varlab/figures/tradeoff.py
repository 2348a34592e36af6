"""Speed against fidelity of compared methods, the frontier of baselines drawn as the line to beat."""

import re
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from varlab.analysis.comparisons import Compared, family, is_baseline, log_of, read_comparison, read_frontier
from varlab.analysis.frontier import NO_MEAN
from varlab.errors import VarlabError, unknown
from varlab.figures.labels import Label, place
from varlab.figures.legends import legend_below
from varlab.figures.style import INK, SOFT, finish, method_style, own_axes, theme
from varlab.figures.text import as_typed, briefer, wrapped
from varlab.markup import brief

MEASURES = {
    "ssim": "SSIM to the dense image",
    "high_frequency_ssim": "SSIM of the detail",
    "psnr": "PSNR (dB)",
    "lpips": "LPIPS to the dense image (lower is closer)",
    "score": "scene score",
}
SHORT = re.compile(r"\b(t)runcate:last=(\d+)|\b(c)fg-off:last=(\d+)")
KEY = "(t2: truncate:last=2,\nc3: cfg-off:last=3)"


@theme()
def tradeoff(
    source: Compared | Path | str, measure: str = "ssim", against: str = "speedup", ax: Axes | None = None
) -> Axes:
    """Each method's fidelity (``measure``) over its speed-up, or over ``work_ratio``; bars are 95 % intervals.

    Over work the frontier of all baselines is the line to beat: below it some baseline, or a mix of the two at the
    ends of that piece, keeps more for the same work. The frontier is not timed: over the speed-up stand the baselines
    of the table, settings of one joined by a dashed line.

    Names stand beside the settings of a method, and beside baselines where they cover nothing; corners of the frontier
    are named ``t2 c3``, which the legend explains.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    table, facts = read_comparison(source)
    if measure not in table:
        needs = "weights of LPIPS" if measure == "lpips" else "a scene set of at least 100 prompts"
        raise VarlabError(f"This comparison has no {measure}: that needs {needs}.")
    ax = own_axes(ax)
    shown = table.drop(index="none", errors="ignore")
    kinds = list(dict.fromkeys(map(family, shown.index)))
    names: dict[str, Label] = {}
    frontier = read_frontier(source) if against == "work_ratio" and measure not in NO_MEAN else None
    compared = frontier is not None and measure in frontier.measures
    for kind in kinds:
        part = shown[[family(name) == kind for name in shown.index]].sort_values(against)
        baseline = is_baseline(kind)
        colour, marker = method_style(kind, kinds)
        ax.plot(
            part[against], part[measure], marker=marker, color=colour, label=as_typed(kind),
            ms=8 if marker == "*" else 5, mec="white", mew=0.5,
            ls="--" if baseline else "-", lw=0.9, zorder=2 if baseline else 3,
        )  # fmt: skip
        if f"{measure}_low" in part:
            ax.vlines(part[against], part[f"{measure}_low"], part[f"{measure}_high"], color=colour, lw=0.9, zorder=1)
        if against == "speedup":
            ax.hlines(part[measure], part["speedup_low"], part["speedup_high"], color=colour, lw=0.9, zorder=1)
        if len(part) > 1 or against == "speedup":  # over work the frontier names its baselines
            points = part[[against, measure]].itertuples()
            named = _short if baseline and compared else _settings  # what is short its legend explains
            names |= {str(name): Label(named(name), x, y, colour, optional=baseline) for name, x, y in points}
    if frontier is not None and compared:
        edge = _line_to_beat(ax, frontier.table(measure), measure, least=float(shown.work_ratio.min()))
        names |= {spec: label for spec, label in edge.items() if spec not in names}
    timed = f" (n = {int(table.timings.max())} batches)" if "timings" in table else ""  # not the n of the prompts
    ax.set(xlabel=f"speed-up over dense{timed}" if against == "speedup" else "work over dense")
    ax.margins(0.07, 0.09)  # room for names
    ax.set_ylabel(MEASURES[measure])
    ax.set_title(f"What each method keeps at its {'speed' if against == 'speedup' else 'work'}")
    legend_below(ax)
    finish(ax, log_of(facts), f"tradeoff-{measure}", shown.reset_index())
    place(ax, list(names.values()))
    return ax


def _settings(spec: object) -> str:
    """The options of a method, of values by stage the first and the last; a composition has none of its own."""
    return "" if "+" in str(spec) else wrapped(briefer(spec).partition(":")[2], 18)


def _short(spec: object) -> str:
    """Baselines that leave out last stages by a letter and their number: ``t2 c3``."""
    if spec == "none":
        return "dense"
    return SHORT.sub(lambda found: "".join(found.groups("")), brief(spec)).replace("+", " ")


def _line_to_beat(ax: Axes, table: pd.DataFrame, measure: str, least: float) -> dict[str, Label]:
    """The frontier from the last corner that costs no more than the cheapest row shown; dots are the baselines under
    it. Returns the names of its corners by baseline."""
    edge = table[table.on_frontier]
    start = edge.work_ratio[edge.work_ratio <= least].max() if (edge.work_ratio <= least).any() else 0.0
    near = table[table.work_ratio >= start]
    edge = near[near.on_frontier]
    under = near[~near.on_frontier & (near[measure] >= edge[measure].min())]
    if len(under):
        ax.plot(under.work_ratio, under[measure], ".", ms=3, color=SOFT, label="other baselines", zorder=1)
    label = "frontier of baselines" + (f"\n{KEY}" if any(map(SHORT.search, edge.index)) else "")
    ax.plot(edge.work_ratio, edge[measure], "o-", ms=2.5, lw=1.2, color=INK, label=label, zorder=2)
    corners = zip(edge.index, edge.work_ratio, edge[measure], strict=True)
    return {str(spec): Label(_short(spec), x, y, INK, optional=True) for spec, x, y in corners}

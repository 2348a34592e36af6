"""The look of the figures: one theme, one colour per meaning, provenance under every figure."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from varlab.analysis.logs import Log, grids, provenance, provenance_line
from varlab.figures.text import NOTE, OPEN, as_typed, families, parted, wrapped

PROVENANCE = "provenance"  # the mark of that line among the texts of a figure
LETTERS_PER_INCH = 24  # of the provenance line
PAGE = 7.2  # inches: the full width of a page
PACKED = {"compress_level": 3}  # of PNG files: two thirds of the time of the usual 6, for much the same size
INK, SOFT, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
# Okabe and Ito's colours, told apart with every common colour blindness; no yellow, which print loses.
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLOURS = {
    "residual": GREEN,
    "contribution": BLUE,
    "canvas": SKY,
    "preview": ORANGE,
    "preview change": RED,
    "block": INK,
    "attention": BLUE,
    "cross": RED,
    "ffn": GREEN,
}
CYCLE = (BLUE, RED, GREEN, PINK, ORANGE, SKY)
METHODS = {  # a marker and a colour each, unlike the others to colour-blind eyes; baselines in greys and browns
    "sparsevar": (BLUE, "o"),
    "skipvar": (RED, "s"),
    "fastvar": ("#00905A", "^"),
    "fastvar-all-scales": ("#6CBF62", "v"),
    "freqexit": (PINK, "D"),
    "truncate": ("#222222", "X"),
    "cfg-off": ("#6B4423", "P"),
    "random-tokens": ("#646068", "d"),
    "uniform-tokens": ("#C8B29E", "h"),
    "oracle-tokens": (ORANGE, "*"),
}
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (1, 4)))  # of the settings of a method
MARKERS = ("o", "s", "^", "D", "v", "P")
ENERGY = "mako"
Drawn = TypeVar("Drawn", bound=Axes | Figure)

THEME: Any = {
    "font.size": 8,
    "text.parse_math": False,  # prompts and specs are drawn as typed
    "text.usetex": False,
    "text.hinting": "none",  # letters as wide at every resolution, lest a layout found at one clips names at another
    "axes.formatter.use_mathtext": False,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 3.0,  # so that a dash reads as one
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.dpi": 144,
    "savefig.dpi": 220,
    "pdf.fonttype": 42,
    "image.composite_image": False,  # a picture of a sheet can be taken out of a vector file
    "text.color": INK,
}


@contextmanager
def theme() -> Iterator[None]:
    """The theme inside a figure function; a caller's own settings stay as they were."""
    with sns.axes_style("ticks"), mpl.rc_context({**THEME, "font.family": families()}):
        yield
        interactive = mpl.rcParams["interactive"]
    # The inline backend turns this on while the first figure is made, and shows no later figure if it is lost.
    mpl.rcParams["interactive"] = interactive


# --- axes and colours ---------------------------------------------------------------------------------------


def panels(columns: int = 1, rows: int = 1, width: float = PAGE, height: float = 2.6, **options: Any) -> list[Axes]:
    """Empty axes side by side in one figure, for figure functions that take ``ax``; height in inches a row."""
    with theme():
        _, axes = plt.subplots(
            rows, columns, figsize=(width, height * rows), layout="constrained", squeeze=False, **options
        )
    return list(axes.flat)


def own_axes(ax: Axes | None, width: float = 4.6, height: float = 2.9) -> Axes:
    """The given axes, or those of a new figure."""
    return ax if ax is not None else panels(1, 1, width, height)[0]


def method_style(kind: str, others: Sequence[str] = ()) -> tuple[str, str]:
    """Colour and marker of a method; those of plug-ins and of joined methods by their place among ``others``."""
    if kind in METHODS:
        return METHODS[kind]
    place = [other for other in others if other not in METHODS].index(kind) if kind in others else 0
    return (SKY, ORANGE, PINK)[place % 3], MARKERS[place % len(MARKERS)]


def stage_colours(stages: int) -> list[Any]:
    """Light to dark with the stage, the same in every figure."""
    palette = sns.color_palette("mako_r", as_cmap=True)
    return [palette(0.1 + 0.74 * k / max(1, stages - 1)) for k in range(stages)]


def stage_bar(ax: Axes, shown: Sequence[int], stages: int) -> None:
    """A colour bar with one field per stage."""
    colours = stage_colours(stages)
    steps = ListedColormap([colours[k - 1] for k in shown])
    mappable = ScalarMappable(BoundaryNorm([i - 0.5 for i in range(len(shown) + 1)], len(shown)), steps)
    bar = ax.figure.colorbar(mappable, ax=ax, ticks=range(len(shown)), pad=0.02, aspect=24, fraction=0.05)
    bar.set_ticklabels([str(k) for k in shown])
    bar.set_label("stage")
    clean_bar(bar)


def clean_bar(bar: Any) -> None:
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, which="both")


def stage_axis(ax: Axes, log: Log, stages: Sequence[int]) -> None:
    """Stages on x, each with its grid."""
    sides = grids(log)
    ax.set_xticks(list(stages))
    every = 1 if len(stages) <= 9 else 2
    named = [(max(stages) - k) % every == 0 for k in stages]
    ax.set_xticklabels([stage_name(k, sides) if shown else "" for k, shown in zip(stages, named, strict=True)])
    ax.set_xlabel("stage and its grid" if sides else "stage")
    ax.set_xlim(min(stages) - 0.4, max(stages) + 0.4)


def stage_name(k: int, sides: list[tuple[int, int]]) -> str:
    if not sides:
        return str(k)
    height, width = sides[k - 1]
    return f"{k}\n{height}²" if height == width else f"{k}\n{height}x{width}"


def stage_title(k: int, sides: list[tuple[int, int]]) -> str:
    """The name of a stage in one line."""
    return stage_name(k, sides).replace("\n", " · ")


def block_axis(ax: Axes, blocks: Sequence[int]) -> None:
    """Blocks on x; every fourth is named where there are many, every second where a column has more than nine."""
    narrow = figure_of(ax).get_figwidth() < 4 and len(blocks) > 9
    step = 4 if len(blocks) > 16 else 2 if narrow else 1
    ax.set_xticks([b for b in blocks if (b - blocks[0]) % step == 0 or step == 1])
    ax.set_xlabel("block")
    ax.set_xlim(min(blocks) - 0.6, max(blocks) + 0.6)


def line(ax: Axes, table: pd.DataFrame, x: str, label: str, colour: Any, marker: str = "o", **options: Any) -> None:
    """Means as a line with points, the interval as a band (as bars where it is a lone point)."""
    data = table.dropna(subset=["mean"]).sort_values(x)
    if data.empty:
        return
    ax.plot(data[x], data["mean"], marker=marker, color=colour, label=label, mec="white", mew=0.5, zorder=3, **options)
    if len(data) > 1:
        ax.fill_between(data[x], data["low"], data["high"], color=colour, alpha=0.18, lw=0, zorder=2)
    else:
        ax.vlines(data[x], data["low"], data["high"], color=colour, lw=1, zorder=2)


def reference(ax: Axes, y: float, text: str, side: str = "right") -> None:
    """A level to compare with, named at its left end, or right of the axes, where it covers nothing."""
    ax.axhline(y, color=SOFT, lw=0.8, ls=(0, (4, 3)), zorder=1)
    outside = side == "right"
    ax.annotate(
        text, (float(outside), y), xycoords=("axes fraction", "data"), xytext=(3, 0) if outside else (2, 2),
        textcoords="offset points", ha="left", va="center" if outside else "bottom", fontsize=6.5, color=SOFT,
        path_effects=halo(), annotation_clip=False,
    )  # fmt: skip


def note_below(ax: Axes, text: str) -> None:
    """Says under the name of the x axis, where it covers nothing, how the lines or their limits are to be read."""
    ax.set_xlabel(f"{ax.get_xlabel()}\n({text})")


def one_legend(*axes: Axes, columns: int = 4) -> None:
    """One legend over a figure's panels in place of one in each; a name that several have stands once."""
    with theme():
        found: dict[str, Any] = {}
        for ax in axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                found.setdefault(label, handle)
            if legend := ax.get_legend():
                legend.remove()
        figure = figure_of(axes[0])
        figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=columns, columnspacing=1.2)
    _draw_as_typed(figure)


def two_digits(value: float) -> str:
    """Two significant digits, and no power of ten where a number is not small."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:.0f}" if rounded >= 10 else f"{value:#.2g}"


def halo(width: float = 1.6) -> list[Any]:
    """White around letters and lines, so that they stay readable over others."""
    return [withStroke(linewidth=width, foreground="white")]


def plain_log(axis: Any) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5, and at more where it spans less than a decade."""
    low, high = axis.get_view_interval()
    subs = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5)
    axis.set_major_locator(mpl.ticker.LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


def decades(axis: Any) -> None:
    """Powers of ten on a logarithmic axis, without matplotlib's formulas."""
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: _power(value)))
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


def _power(value: float) -> str:
    """``10⁻³``; a number that is no power of ten as it is."""
    if value <= 0:
        return f"{value:g}"
    exponent = round(math.log10(value))
    raised = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return raised if math.isclose(value, 10.0**exponent, rel_tol=1e-9) else f"{value:g}"


def retitle(ax: Axes, text: str) -> None:
    """Another title in place of a figure's own, say to tell two logs apart."""
    size, weight = THEME["axes.titlesize"], THEME["axes.titleweight"]
    ax.set_title(as_typed(text), parse_math=False, loc="left", fontsize=size, fontweight=weight)


# --- what a figure remembers --------------------------------------------------------------------------------


@dataclass
class Kept:
    """What was drawn in a figure: a line on its data, and for each of its axes provenance and table."""

    line: str = ""
    tables: dict[str, tuple[dict[str, str], pd.DataFrame]] = field(default_factory=dict)


_KEPT: "WeakKeyDictionary[Figure, Kept]" = WeakKeyDictionary()


def kept(figure: Figure) -> Kept:
    """What ``finish`` noted for this figure; empty for a figure of another origin."""
    return _KEPT.get(figure, Kept())


def figure_of(drawn: Axes | Figure) -> Figure:
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert figure is not None
    return figure


def finish(drawn: Drawn, log: Log, name: str, table: pd.DataFrame) -> Drawn:
    """Set the provenance line under the figure and remember the table for ``save``; returns what was drawn."""
    figure, text = figure_of(drawn), provenance_line(log)
    note = _KEPT.setdefault(figure, Kept())
    if text not in note.line:
        note.line = f"{note.line}\n{text}".strip()
    while name in note.tables:
        name += " (2)"
    note.tables[name] = (provenance(log), table)
    _draw_as_typed(drawn)
    letters = int(figure.get_figwidth() * LETTERS_PER_INCH)
    lines = [parted(one, letters) for one in note.line.split("\n")]
    written = (text.get_text() for text in _texts(figure))
    if any(OPEN in text for text in [*lines, *written]):
        lines.append(wrapped(NOTE, letters))
    below = "\n".join(lines)
    figure.supxlabel(below, x=0.005, ha="left", fontsize=5.5, color=SOFT, parse_math=False, gid=PROVENANCE)
    return drawn


def _draw_as_typed(drawn: Axes | Figure) -> None:
    """No formulas, on axes of a caller's own either; the power of ten beside an axis is matplotlib's text."""
    for text in _texts(drawn):
        text.set_parse_math(False)


def _texts(artist: Artist) -> Iterator[Text]:
    """All texts in an artist; an axis without ticks is not asked for their names, as it would make one first."""
    if isinstance(artist, Axis):
        yield artist.label
        if len(artist.get_majorticklocs()):
            yield from artist.get_ticklabels(which="both")  # has the axis write them
    elif isinstance(artist, Text):
        yield artist
    else:
        for child in artist.get_children():
            yield from _texts(child)

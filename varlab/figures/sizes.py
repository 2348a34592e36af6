"""A figure at the size of a talk or a poster: letters, lines, markers, legends and names beside points grow with it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection, PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.offsetbox import DrawingArea, PackerBase, VPacker
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from varlab.figures.labels import place_again
from varlab.figures.layout import lay_out
from varlab.figures.legends import BELOW as UNDER
from varlab.figures.legends import put_below
from varlab.figures.style import PROVENANCE, figure_of
from varlab.figures.text import into_lines

STYLES = {"paper": (1.0, 1.0), "talk": (1.6, 1.9), "poster": (2.6, 3.2)}  # size of the figure, of letters and lines
ROUNDS = 5  # at most: more lines leave less room
CLOSE = 0.2  # of its height: blank around the name of a tick
WIDEST, BESIDE, BELOW = 0.82, 0.42, 0.95  # of the width of a panel: a legend, one beside the axes, one below them


def resize(figure: Figure, style: str, full: bool = False) -> None:
    """Give a figure of a paper's size that of a style, and lay it out; letters and lines grow more than the figure.

    full: it has no room for that, and grows as much as they do.
    """
    size, letters = STYLES[style]
    size = letters if full else size
    if letters > 1:
        enlarge(figure, size)
        if full and (layout := figure.get_layout_engine()) is not None:
            layout.set(w_pad=size * layout.get()["w_pad"])  # type: ignore[call-arg]
        for artist in figure.findobj():
            _grow(artist, size, letters)
    for legend in [*figure.legends, *(one for ax in figure.axes for one in ax.get_children())]:
        if isinstance(legend, Legend):
            _fit_legend(legend, figure)
    for _ in range(ROUNDS):
        lay_out(figure)
        if not _fit(figure):
            break
    else:
        lay_out(figure)
    if place_again(figure, letters):
        lay_out(figure)


def enlarge(figure: Figure, factor: float) -> None:
    figure.set_size_inches(factor * figure.get_figwidth(), factor * figure.get_figheight())


def _grow(artist: Artist, size: float, letters: float) -> None:
    """Letters and lines; and in legends the handles and the blanks between them, which matplotlib fixes at first."""
    if isinstance(artist, Text):
        artist.set_fontsize(float(artist.get_fontsize()) * (size if artist.get_gid() == PROVENANCE else letters))
    elif isinstance(artist, Line2D):
        artist.set(linewidth=artist.get_linewidth() * letters, markersize=artist.get_markersize() * letters)
    elif isinstance(artist, Collection | Spine):
        artist.set_linewidth(np.multiply(artist.get_linewidth(), letters))  # type: ignore[arg-type]
        if isinstance(artist, PathCollection):
            artist.set_sizes(artist.get_sizes() * letters**2)
    elif isinstance(artist, Axis):
        _grow_axis(artist, size, letters)
    elif isinstance(artist, PackerBase):
        artist.pad, artist.sep = ((length or 0) * letters for length in (artist.pad, artist.sep))
    elif isinstance(artist, DrawingArea):
        _grow_handle(artist, letters)


def _grow_axis(axis: Axis, size: float, letters: float) -> None:
    """The lines of its ticks, which have grown in length by now, and the blanks between them and the letters."""
    axis.labelpad *= size
    kinds: Any = (("major", axis.get_major_ticks), ("minor", axis.get_minor_ticks))
    for which, ticks in kinds:
        if some := ticks():
            mark, pad = some[0].tick1line, some[0].get_pad() * size
            width, length = mark.get_markeredgewidth() * letters, mark.get_markersize()
            axis.set_tick_params(which=which, length=length, width=width, pad=pad)


def _grow_handle(area: DrawingArea, factor: float) -> None:
    """What stands for a line in a legend; the sizes of its markers are not those of the area."""
    for name in ("width", "height", "xdescent", "ydescent"):
        setattr(area, name, getattr(area, name) * factor)
    for drawn in area.get_children():
        grown = Affine2D().scale(factor)
        if isinstance(drawn, PathCollection):
            drawn.set_offset_transform(grown + drawn.get_offset_transform())
        else:
            drawn.set_transform(grown + Artist.get_transform(drawn))  # a patch adds its own shape to it


def _fit_legend(legend: Any, figure: Figure) -> None:
    """Into fewer columns where it is wider than its panel; below axes beside which it takes half of the width, and a
    figure is higher by as much as stands there."""
    ax, most = legend.axes, len(_columns(legend))
    spec = None if ax is None else ax.get_subplotspec()
    room = figure.bbox.width / (1 if spec is None else spec.get_gridspec().ncols)
    beside = ax is not None and legend.get_bbox_to_anchor().x0 >= ax.bbox.x1 - 1
    if moved := beside and legend.get_window_extent().width > BESIDE * room:
        put_below(legend, ax)
    for count in range(3 if moved else most, 0, -1):
        _set_columns(legend, count)
        if legend.get_window_extent().width <= (BELOW if legend.get_gid() == UNDER else WIDEST) * room:
            break
    if legend.get_gid() == UNDER:
        figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def _columns(legend: Any) -> list[Any]:
    """The columns of a legend, below its title: a list that can be changed."""
    columns: list[Any] = legend.get_children()[0].get_children()[-1].get_children()
    return columns


def _set_columns(legend: Any, count: int) -> None:
    columns = _columns(legend)
    entries, first = [entry for column in columns for entry in column.get_children()], columns[0]
    parts = [part for part in np.array_split(np.arange(len(entries)), count) if len(part)]
    columns[:] = [
        VPacker(pad=first.pad, sep=first.sep, align=first.align, children=[entries[i] for i in part]) for part in parts
    ]
    for column in columns:
        column.set_figure(legend.get_figure())


def _fit(figure: Figure) -> bool:
    """Titles and names of axes in as many lines as their room asks for, fewer ticks where their names would touch.

    Whether anything changed, and so the room.
    """
    titles = [title for ax in figure.axes for title in _titles(ax)]
    changed = [into_lines(title, title.get_window_extent().width, room) for title, room in titles]
    if any(changed):
        return True  # a long one takes room from the axes
    for ax in figure.axes:
        for axis, room, side in ((ax.xaxis, ax.bbox.width, "width"), (ax.yaxis, ax.bbox.height, "height")):
            changed += [into_lines(axis.label, getattr(axis.label.get_window_extent(), side), room), _thin(axis)]
    return any(changed)


def _titles(ax: Axes) -> Iterator[tuple[Text, float]]:
    """The titles of axes and the room of each in pixels: to the next title, that of the last to the edge."""
    panels, edge = figure_of(ax).axes, figure_of(ax).bbox.x1
    left, centre = ax.get_title(loc="left"), ax.get_title()
    starts = [other.bbox.x0 - ax.bbox.x0 for other in panels if other.get_title(loc="left")]
    steps = [abs(other.bbox.x0 - ax.bbox.x0) for other in panels if other.get_title()]
    rooms = {left: min((step for step in starts if step > 1), default=edge - ax.bbox.x0)}
    rooms |= {centre: min((step for step in steps if step > 1), default=edge)}
    for text in ax.get_children():
        if isinstance(text, Text) and text.get_text() in rooms.keys() - {""}:
            yield text, rooms[text.get_text()]


def _thin(axis: Axis) -> bool:
    """Every second tick where numbers at two touch, or nearly so: with the last one, or with 0 where that is first."""
    low, high = sorted(axis.get_view_interval())
    named = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
    shown = [(at, name.get_text(), name.get_window_extent()) for at, name in named if low <= at <= high]
    ticks = [(at, text, box.padded(CLOSE * box.height)) for at, text, box in shown]
    if any(letter.isalpha() for _, text, _ in ticks for letter in text):
        return False  # each names something
    while any(one[2].overlaps(two[2]) for one, two in pairwise(ticks)):
        ticks = ticks[0 if ticks[0][0] == 0 else (len(ticks) - 1) % 2 :: 2]
        axis.set_ticks([at for at, _, _ in ticks], [text for _, text, _ in ticks])
    return len(ticks) < len(shown)

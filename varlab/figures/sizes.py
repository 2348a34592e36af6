"""A figure at the size of a talk or a poster: letters, lines, markers, legends and names beside points grow with it."""

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import Collection, PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.offsetbox import DrawingArea, PackerBase
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from varlab.figures.labels import place_again
from varlab.figures.style import PROVENANCE
from varlab.figures.text import balanced

STYLES = {"paper": (1.0, 1.0), "talk": (1.6, 1.9), "poster": (2.6, 3.2)}  # size of the figure, of letters and lines
LETTERS = 11.5  # of a title, an inch
WIDEST = 0.95  # of the width of a figure: a legend


def resize(figure: Figure, style: str) -> None:
    """Give a figure of a paper's size that of a style; letters and lines grow more than the figure."""
    size, letters = STYLES[style]
    _wrap_titles(figure, LETTERS * size / letters)
    if letters == 1:
        return
    enlarge(figure, size)
    for artist in figure.findobj():
        _grow(artist, size, letters)
    for legend in figure.findobj(Legend):
        _narrow(legend, WIDEST * figure.bbox.width)
    _wrap_axis_names(figure)
    place_again(figure, letters)


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
    elif isinstance(artist, PackerBase):
        artist.pad, artist.sep = ((length or 0) * letters for length in (artist.pad, artist.sep))
    elif isinstance(artist, DrawingArea):
        _grow_handle(artist, letters)


def _grow_handle(area: DrawingArea, factor: float) -> None:
    """What stands for a line in a legend; the sizes of its markers are not those of the area."""
    for name in ("width", "height", "xdescent", "ydescent"):
        setattr(area, name, getattr(area, name) * factor)
    for drawn in area.get_children():
        grown = Affine2D().scale(factor)
        if isinstance(drawn, PathCollection):
            drawn.set_offset_transform(grown + drawn.get_offset_transform())
        else:
            drawn.set_transform(grown + drawn.get_transform())


def _narrow(legend: Any, width: float) -> None:
    """Put a legend that is wider, in pixels, into fewer columns."""
    columns = legend.get_children()[0].get_children()[-1].get_children()  # below the title; lists that can be changed
    while legend.get_window_extent().width > width and len(columns) > 1:
        entries = [entry for column in columns for entry in column.get_children()]
        columns.pop()
        for column, part in zip(columns, np.array_split(np.arange(len(entries)), len(columns)), strict=True):
            column.get_children()[:] = [entries[i] for i in part]


def _wrap_titles(figure: Figure, letters: float) -> None:
    """Titles in as many lines as the width asks for, so many letters an inch."""
    titles = {ax.get_title(loc="left") for ax in figure.axes} - {""}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text() in titles:
            text.set_text(fill(text.get_text(), int(letters * figure.get_figwidth() / len(_columns(figure)))))


def _columns(figure: Figure) -> set[int]:
    """The left ends of panels side by side; colour bars have no title."""
    titled = [ax for ax in figure.axes if ax.get_title(loc="left")]
    return {spec.colspan.start for ax in titled if (spec := ax.get_subplotspec()) is not None} or {0}


def _wrap_axis_names(figure: Figure) -> None:
    """Names of axes in as many lines as their axes are long."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        for name, room in ((ax.xaxis.label, "width"), (ax.yaxis.label, "height")):
            share = getattr(ax.bbox, room) / (getattr(name.get_window_extent(), room) or 1)
            if share < 1:
                name.set_text(balanced(name.get_text(), int(share * len(name.get_text()))))

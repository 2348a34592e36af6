"""Names beside points, where they hide neither one another nor what is drawn."""

from dataclasses import dataclass
from itertools import combinations, pairwise, product
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from numpy.typing import ArrayLike

from varlab.figures.geometry import Floats, crosses, grown, meets, overlaps
from varlab.figures.layout import lay_out
from varlab.figures.style import figure_of, halo

DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))  # the earlier one where equal
DISTANCES = (3.0, 6.0, 10.0, 15.0, 21.0, 28.0, 36.0, 45.0)  # points; from the second on a thin line leads to the point
HORIZONTAL, VERTICAL = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
GAP = 1.0  # points around a name that must stay free
TOUCHES = 1000.0  # what it costs a name to touch another name or a marker, or to leave the axes
CROSSED = 300.0  # to lie on a line, and of the line that leads to it to cross another such line or a marker
PASSED = 3.0  # of that line to cross one that is drawn
ENOUGH = 60.0  # what it costs to leave out an optional name
DARKER = 0.75  # letters are thin, and light ones are hard to read
PASSES = 6  # at most, over all pairs of names
WAYS = list(product(DISTANCES, DIRECTIONS))

FAR: Floats = np.array([distance for distance, _ in WAYS])


@dataclass(frozen=True)
class Label:
    """A name at a point in data coordinates; an ``optional`` one is left out where no place is free."""

    text: str
    x: float
    y: float
    colour: str
    size: float = 5.0
    optional: bool = False


@dataclass(frozen=True)
class Places:
    """Where a name may stand, a row each of ``WAYS``: its boxes [ways, 4] and the lines that lead to them [ways, 4]."""

    boxes: Floats
    leaders: Floats


_PLACED: "WeakKeyDictionary[Axes, tuple[list[Label], list[Annotation]]]" = WeakKeyDictionary()


def place_again(figure: Figure, letters: float) -> bool:
    """Draw the names of a figure anew, in letters and at distances so many times as large as they were first.

    Whether there are any.
    """
    named = False
    for ax in figure.axes:
        labels, drawn = _PLACED.pop(ax, ([], []))
        for text in drawn:
            text.remove()
        place(ax, labels, letters)
        named |= bool(labels)
    return named


def place(ax: Axes, labels: list[Label], letters: float = 1.0) -> None:
    """Draw each name where it covers nothing, or least; the limits of the axes must be final.

    What is drawn counts: markers, lines, intervals, and the lines that lead to other names. ``letters``: the size of
    all that is drawn, 1 in a paper; points below are of that size.
    """
    shown = [label for label in labels if label.text and np.isfinite([label.x, label.y]).all()]
    if not shown:
        return
    figure = figure_of(ax)
    lay_out(figure)  # on which distances depend
    points = 72.0 / figure.dpi / letters
    places = [_places(ax, label, letters, points) for label in shown]
    alone = [
        np.append(_alone(ax, one, letters, points), ENOUGH if label.optional else np.inf)
        for label, one in zip(shown, places, strict=True)
    ]
    ways = _least(alone, {(i, j): _beside(places[i], places[j]) for i, j in combinations(range(len(shown)), 2)})
    written = [
        _write(ax, label, letters, *WAYS[way]) for label, way in zip(shown, ways, strict=True) if way < len(WAYS)
    ]
    _PLACED[ax] = labels, written


def _least(alone: list[Floats], beside: dict[tuple[int, int], Floats]) -> list[int]:
    """The way of each name, ``len(WAYS)`` where it is left out, such that no two names would better move together."""
    ways = [int(np.argmin(costs)) for costs in alone]

    def costs(i: int, but: int) -> Floats:
        others = [j for j in range(len(alone)) if j not in (i, but)]
        found: Floats = alone[i] + sum(beside[i, j][:, ways[j]] if i < j else beside[j, i][ways[j]] for j in others)
        return found

    for _ in range(PASSES):
        before = list(ways)
        for i, j in beside:
            both = costs(i, j)[:, None] + costs(j, i) + beside[i, j]
            ways[i], ways[j] = (int(way) for way in np.unravel_index(np.argmin(both), both.shape))
        if ways == before:
            break
    return ways


def _alone(ax: Axes, places: Places, letters: float, points: float) -> Floats:
    """The cost of each place before there are other names."""
    lines, markers = _lines(ax) * points, _markers(ax, letters, points)
    frame = grown(ax.get_window_extent().get_points().reshape(1, 4) * points, -GAP)
    outside = (places.boxes[:, :2] < frame[:, :2]).any(1) | (places.boxes[:, 2:] > frame[:, 2:]).any(1)
    touched = overlaps(places.boxes, grown(markers, GAP)).sum(1) + 2 * outside
    crossed = crosses(lines, grown(places.boxes, GAP)).sum(0) + crosses(places.leaders, markers).sum(1)
    passed = meets(places.leaders, lines).sum(1)
    costs: Floats = FAR + TOUCHES * touched + CROSSED * crossed + PASSED * passed
    return costs


def _beside(places: Places, other: Places) -> Floats:
    """What two names at their places cost together; nothing where one is left out, the last of each."""
    boxes, taken = grown(places.boxes, GAP / 2), grown(other.boxes, GAP / 2)
    touched = overlaps(boxes, taken) + crosses(places.leaders, taken) + crosses(other.leaders, boxes).T.astype(float)
    crossed = meets(places.leaders, other.leaders)
    return np.pad(TOUCHES * touched + CROSSED * crossed, ((0, 1), (0, 1)))


def _places(ax: Axes, label: Label, letters: float, points: float) -> Places:
    """The places of a name, in points."""
    at = ax.transData.transform((label.x, label.y)) * points
    size = _size(ax, label, letters) * points
    ways = np.array([way for _, way in WAYS])
    ends = at + FAR[:, None] * ways
    corners = ends + size * (ways - 1) / 2
    begins = at + min(DISTANCES) * ways  # beyond its own marker
    return Places(np.hstack([corners, corners + size]), np.hstack([begins, ends]))


def _lines(ax: Axes) -> Floats:
    """The pieces of all lines and intervals from end to end, in pixels, [n, 4]."""
    lines = [_in_pixels(line, line.get_xydata()) for line in ax.lines if line.get_linestyle() != "None"]
    for bars in ax.collections:
        if isinstance(bars, LineCollection):
            lines += [_in_pixels(bars, part) for part in bars.get_segments()]
    pieces = np.array([np.concatenate([a, b]) for line in lines for a, b in pairwise(line)]).reshape(-1, 4)
    return pieces[np.isfinite(pieces).all(1)]  # an interval that is unknown has no ends


def _markers(ax: Axes, letters: float, points: float) -> Floats:
    """The boxes of all markers, in points, [n, 4]."""
    boxes = [np.empty((0, 4))]
    for line in ax.lines:
        if line.get_marker() not in ("None", "", None):
            at = _in_pixels(line, line.get_xydata()) * points
            half = line.get_markersize() / letters / 2
            boxes.append(np.hstack([at - half, at + half]))
    found: Floats = np.concatenate(boxes)
    return found[np.isfinite(found).all(1)]


def _in_pixels(drawn: Artist, ends: ArrayLike) -> Floats:
    """Ends [n, 2] of a line of its own coordinates: that of ``axhline`` counts in widths of the axes."""
    pixels: Floats = drawn.get_transform().transform(np.asarray(ends, float))
    return pixels


def _size(ax: Axes, label: Label, letters: float) -> Floats:
    """Width and height in pixels."""
    text = ax.text(0, 0, label.text, fontsize=letters * label.size, linespacing=1.0, parse_math=False)
    box = text.get_window_extent()
    text.remove()
    return np.array([box.width, box.height])


def _write(ax: Axes, label: Label, letters: float, distance: float, way: tuple[int, int]) -> Annotation:
    """A name and, at a distance, the line from its nearest corner or side to the point."""
    near = (1 - way[0]) / 2, (1 - way[1]) / 2
    leader = {"arrowstyle": "-", "lw": 0.4 * letters, "color": label.colour, "shrinkA": 0, "shrinkB": 1}
    leader |= {"relpos": near, "patchA": None}
    shift = letters * distance * way[0], letters * distance * way[1]
    return ax.annotate(
        label.text, (label.x, label.y), shift, textcoords="offset points", ha=HORIZONTAL[way[0]], va=VERTICAL[way[1]],
        fontsize=letters * label.size, color=DARKER * np.array(to_rgb(label.colour)), path_effects=halo(1.6 * letters),
        arrowprops=leader if distance > min(DISTANCES) else None, linespacing=1.0, parse_math=False,
    )  # fmt: skip

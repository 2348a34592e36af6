"""Names beside points, where they hide neither one another nor what is drawn."""

from dataclasses import dataclass
from itertools import pairwise, product
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from numpy.typing import NDArray

from varlab.figures.layout import lay_out
from varlab.figures.style import figure_of, halo

DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))  # the earlier one where equal
DISTANCES = (3.0, 8.0, 14.0, 22.0, 32.0)  # points; from the second on a thin line leads to the point
HORIZONTAL, VERTICAL = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
MARKER = 4.0  # points a side that a marker or a line takes
STEPS = 12  # points that stand for a piece of a line
GAP = 1.0  # points around a name that no other one touches
WORSE = 1000.0  # what it costs to touch a name, or to leave the axes: more than all lines, which stay readable
ENOUGH = 28.0  # of points and their squares: an optional name that would cost more is left out
PASSES = 3  # the first name knows of no other when it is placed, and so is placed again
WAYS = list(product(DISTANCES, DIRECTIONS))

Floats = NDArray[np.float64]
FAR: Floats = np.array([distance for distance, _ in WAYS])
OUTWARD: Floats = np.array([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Label:
    """A name at a point in data coordinates; an ``optional`` one is left out where no place is free."""

    text: str
    x: float
    y: float
    colour: str
    size: float = 5.0
    optional: bool = False


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
    """Draw each name where it covers least; the limits of the axes must be final.

    Ink counts too: markers, and the lines between them and of intervals. ``letters``: the size of all that is drawn,
    1 in a paper; points below are of that size.
    """
    shown = [label for label in labels if label.text and np.isfinite([label.x, label.y]).all()]
    if not shown:
        return
    figure = figure_of(ax)
    lay_out(figure)  # on which distances depend
    points = 72.0 / figure.dpi / letters
    frame = ax.get_window_extent().get_points().ravel() * points - GAP * OUTWARD
    ink = np.array([_box(at, MARKER, MARKER, (0, 0)) for at in _ink(ax) * points]).reshape(-1, 4)
    places = [_places(ax, label, letters, points) for label in shown]
    alone = [_shared(boxes[:, None], ink).sum(1) + FAR + _worse(_outside(boxes, frame)) for boxes in places]
    chosen: dict[int, int] = {}
    for i in [*range(len(shown))] * PASSES:
        others = np.reshape([places[j][way] for j, way in chosen.items() if j != i], (-1, 4))
        costs = alone[i] + _worse(_shared(places[i][:, None] + GAP * OUTWARD, others).sum(1))
        chosen[i] = int(np.argmin(costs))
        if shown[i].optional and costs[chosen[i]] > ENOUGH:
            del chosen[i]
    _PLACED[ax] = labels, [_write(ax, shown[i], letters, *WAYS[way]) for i, way in sorted(chosen.items())]


def _worse(area: Floats) -> Floats:
    """The cost of covering what must stay free; more for more of it where nothing is."""
    return np.where(area > 0, WORSE + area, 0.0)


def _places(ax: Axes, label: Label, letters: float, points: float) -> Floats:
    """The boxes in which a name may stand, a row each of ``WAYS``, in points."""
    at = ax.transData.transform((label.x, label.y)) * points
    width, height = _size(ax, label, letters) * points
    return np.array([_box(at + distance * np.array(way), width, height, way) for distance, way in WAYS])


def _outside(boxes: Floats, frame: Floats) -> Floats:
    """Area of each box that lies beyond the frame."""
    whole: Floats = (boxes[:, 2:] - boxes[:, :2]).prod(1) - _shared(boxes, frame)
    return whole


def _ink(ax: Axes) -> Floats:
    """Points along all lines, markers among them, in pixels, shape (n, 2)."""
    lines = [np.asarray(line.get_xydata()) for line in ax.lines]
    lines += [part for bars in ax.collections if isinstance(bars, LineCollection) for part in bars.get_segments()]
    pieces = [np.linspace(a, b, STEPS) for line in lines for a, b in pairwise(line)]
    parts = [part.reshape(-1, 2) for part in [*lines, *pieces]]
    pixels: Floats = ax.transData.transform(np.concatenate([np.empty((0, 2)), *parts]))
    return pixels[np.isfinite(pixels).all(1)]  # an interval that is unknown has no ends


def _size(ax: Axes, label: Label, letters: float) -> Floats:
    """Width and height in pixels."""
    text = ax.text(0, 0, label.text, fontsize=letters * label.size, linespacing=1.0, parse_math=False)
    box = text.get_window_extent()
    text.remove()
    return np.array([box.width, box.height])


def _box(at: Floats, width: float, height: float, way: tuple[int, int]) -> Floats:
    """Left, bottom, right, top of the box that begins at a point and lies in that direction of it, or around it."""
    size = np.array([width, height])
    corner = at + size * (np.array(way) - 1) / 2
    return np.concatenate([corner, corner + size])


def _shared(boxes: Floats, others: Floats) -> Floats:
    """Area that boxes share with others, the last axis being left, bottom, right, top."""
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    area: Floats = np.clip(sides, 0.0, None).prod(-1)
    return area


def _write(ax: Axes, label: Label, letters: float, distance: float, way: tuple[int, int]) -> Annotation:
    leader = {"arrowstyle": "-", "lw": 0.4 * letters, "color": label.colour, "shrinkA": 0, "shrinkB": 1}
    shift = letters * distance * way[0], letters * distance * way[1]
    return ax.annotate(
        label.text, (label.x, label.y), shift, textcoords="offset points", ha=HORIZONTAL[way[0]], va=VERTICAL[way[1]],
        fontsize=letters * label.size, color=label.colour, path_effects=halo(1.6 * letters),
        arrowprops=leader if distance > min(DISTANCES) else None, linespacing=1.0, parse_math=False,
    )  # fmt: skip

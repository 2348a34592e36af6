"""Names beside points, where they hide neither one another nor what is drawn."""

from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from varlab.figures.style import figure_of, halo

DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))  # the earlier one where equal
DISTANCES = (3.0, 8.0, 14.0)  # points; from the second on a thin line leads to the point
HORIZONTAL, VERTICAL = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
MARKER = 4.0  # points a side that a marker or a line takes
STEPS = 12  # points that stand for a piece of a line
WAYS = list(product(DISTANCES, DIRECTIONS))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Label:
    """A name at a point in data coordinates; an ``optional`` one is left out where no place is free."""

    text: str
    x: float
    y: float
    colour: str
    size: float = 5.0
    optional: bool = False


def place(ax: Axes, labels: list[Label]) -> None:
    """Draw each name, the first of the list first, where it covers least; the limits of the axes must be final.

    Ink counts as much as names: markers, and the lines between them and of intervals.
    """
    if not labels:
        return
    figure = figure_of(ax)
    figure.draw_without_rendering()  # the layout, on which distances depend
    points = 72.0 / figure.dpi
    frame = ax.get_window_extent().get_points().ravel() * points
    taken = [_box(at, MARKER, MARKER, (0, 0)) for at in _ink(ax) * points]
    for label in labels:
        if not label.text or not np.isfinite([label.x, label.y]).all():
            continue
        at = ax.transData.transform((label.x, label.y)) * points
        width, height = _size(ax, label) * points
        boxes = np.array([_box(at + distance * np.array(way), width, height, way) for distance, way in WAYS])
        outside = width * height - _shared(boxes, frame)
        over = _shared(boxes[:, None], np.reshape(taken, (-1, 4))).sum(1)
        costs = over + outside + [distance for distance, _ in WAYS]
        best = int(np.argmin(costs))
        if not label.optional or costs[best] <= 2 * max(DISTANCES):
            taken.append(boxes[best])
            _write(ax, label, *WAYS[best])


def _ink(ax: Axes) -> Floats:
    """Points along all lines, markers among them, in pixels, shape (n, 2)."""
    lines = [np.asarray(line.get_xydata()) for line in ax.lines]
    lines += [part for bars in ax.collections if isinstance(bars, LineCollection) for part in bars.get_segments()]
    pieces = [np.linspace(a, b, STEPS) for line in lines for a, b in pairwise(line)]
    parts = [part.reshape(-1, 2) for part in [*lines, *pieces]]
    pixels: Floats = ax.transData.transform(np.concatenate([np.empty((0, 2)), *parts]))
    return pixels[np.isfinite(pixels).all(1)]  # an interval that is unknown has no ends


def _size(ax: Axes, label: Label) -> Floats:
    """Width and height in pixels."""
    text = ax.text(0, 0, label.text, fontsize=label.size, linespacing=1.0, parse_math=False)
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


def _write(ax: Axes, label: Label, distance: float, way: tuple[int, int]) -> None:
    leader = {"arrowstyle": "-", "lw": 0.4, "color": label.colour, "shrinkA": 0, "shrinkB": 1}
    ax.annotate(
        label.text, (label.x, label.y), (distance * way[0], distance * way[1]), textcoords="offset points",
        ha=HORIZONTAL[way[0]], va=VERTICAL[way[1]], fontsize=label.size, color=label.colour, path_effects=halo(),
        arrowprops=leader if distance > min(DISTANCES) else None, linespacing=1.0, parse_math=False,
    )  # fmt: skip

"""Names beside points: readable however close the points lie."""

from itertools import combinations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.text import Text

from varlab.figures.labels import Label, place


def test_names_of_close_points_lie_apart_and_within_the_axes() -> None:
    figure, ax = plt.subplots(figsize=(3.2, 2.4), layout="constrained")
    points = [(0.2, 0.90), (0.2, 0.902), (0.21, 0.899), (1.0, 1.0), (0.6, 0.97), (0.61, 0.971)]
    ax.plot(*zip(*points, strict=True), "o")
    place(ax, [Label(f"keep=0.{i}/last=3", x, y, "black") for i, (x, y) in enumerate(points)])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the lines that lead to the points
    assert len(boxes) == len(points)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 + 1 and frame.y0 <= box.y0 for box in boxes)


def test_an_optional_name_gives_way_and_a_needed_one_does_not() -> None:
    _, ax = plt.subplots(figsize=(1.0, 1.0), layout="constrained")
    ax.plot([0, 1], [0, 1], "o")
    long, longer = "a name longer than the figure is wide", "another name far longer than the figure is wide"
    place(ax, [Label(longer, 0.5, 0.5, "black", optional=True), Label(long, 0, 0, "black"), Label("", 1, 1, "black")])
    assert [text.get_text() for text in ax.texts] == [long]


def test_axes_without_ink_have_room_for_every_name() -> None:
    _, ax = plt.subplots(layout="constrained")
    place(ax, [])
    place(ax, [Label("alone", 0.5, 0.5, "black")])
    assert [text.get_text() for text in ax.texts] == ["alone"]


def test_points_and_intervals_that_are_unknown_are_no_ink() -> None:
    _, ax = plt.subplots(layout="constrained")
    ax.plot([0, 1], [0, np.nan], "o")
    ax.vlines([0, 1], [np.nan, 0], [np.nan, 1])
    place(ax, [Label("seen", 0, 0, "black"), Label("unseen", 1, np.nan, "black")])
    assert [text.get_text() for text in ax.texts] == ["seen"]

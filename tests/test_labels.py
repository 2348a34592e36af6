"""Names beside points: readable however close the points lie."""

from collections.abc import Callable, Iterator
from itertools import combinations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from tests.toy_logs import toy_log
from varlab import figures
from varlab.figures import style
from varlab.figures.labels import Label, place
from varlab.figures.save import laid_out
from varlab.figures.text import brief


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


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


def test_names_of_a_line_and_of_the_points_upon_it_do_not_touch() -> None:
    """SparseVAR's trade-off: the first names to be placed gave way to no later one."""
    figure, ax = plt.subplots(figsize=(3.0, 2.2), layout="constrained")
    edge = [(0.254, 0.940), (0.377, 0.958), (0.444, 0.966), (0.660, 0.9866), (0.784, 0.9925), (1.0, 1.0)]
    own = [(0.330, 0.928), (0.376, 0.942), (0.545, 0.977), (0.878, 0.994), (0.990, 0.9987)]
    for points in (own, edge):
        ax.plot(*zip(*points, strict=True), "o-")
    ax.vlines([x for x, _ in own], [y - 0.01 for _, y in own], [min(1, y + 0.01) for _, y in own])
    ax.set_ylim(0.88, 1.005)
    names = [Label(f"keep=0.{i}7", x, y, "black") for i, (x, y) in enumerate(own)]
    corners = (
        "truncate 1\ncfg-off 4",
        "truncate 1\ncfg-off 3",
        "truncate 1\ncfg-off 2",
        "cfg-off 2",
        "cfg-off 1",
        "dense",
    )
    names += [Label(text, x, y, "black", 4.5, optional=True) for text, (x, y) in zip(corners, edge, strict=True)]
    place(ax, names)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) >= len(own) + 4
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_legend_below_its_axes_covers_nothing_in_a_saved_figure() -> None:
    """It moves with the height of the axes: after one layout it lay on the lines below."""
    figure, ax = plt.subplots(figsize=(3.9, 2.7), layout="constrained")
    ax.plot([0, 1], [0, 1], label="a line")
    ax.set_xlabel("stage and its grid\nand more")
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.4))
    below = figure.supxlabel("three\nlines of\nprovenance")
    with laid_out(figure):
        figure.draw_without_rendering()
        assert not legend.get_window_extent().overlaps(below.get_window_extent())


def test_text_is_as_wide_in_a_file_as_where_the_layout_was_found() -> None:
    """The layout is found at the resolution of the screen: wider letters in the file would leave the page."""
    with style.theme():
        widths = []
        for dpi in (72, 144, 220):
            name = plt.figure(dpi=dpi).text(0.5, 0.5, "random-tokens:keep=0.27/0.27/0.27,last=3", fontsize=5)
            widths.append(name.get_window_extent().width / dpi)
    assert widths == pytest.approx([widths[0]] * 3, rel=0.002)


@pytest.mark.parametrize("letters", [1.0, 2.0])
@pytest.mark.parametrize("draw", [figures.high_frequency_share, figures.guidance_effect, figures.concentration])
def test_a_legend_stands_right_below_the_name_of_its_axis(draw: Callable[..., Axes], letters: float) -> None:
    """Where it covers neither lines nor names, however high the lines and however large the letters."""
    ax = draw(toy_log(), ax=figures.panels(1, 1, 3.25 * letters, 2.4 * letters)[0])
    figure, legend = style.figure_of(ax), ax.get_legend()
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_fontsize(letters * float(text.get_fontsize()))
    assert legend is not None
    with style.theme(), laid_out(figure):
        figure.draw_without_rendering()
        gap = ax.xaxis.label.get_window_extent().y0 - legend.get_window_extent().y1
        assert 0 < gap < 10 * letters and legend.get_window_extent().y0 > 0


def test_a_narrow_logarithmic_scale_has_more_than_two_numbers() -> None:
    for ends, wanted in (((0.19, 0.9), [0.2, 0.3, 0.5, 0.7]), ((0.05, 5.0), [0.05, 0.1, 0.2, 0.5, 1, 2, 5])):
        ax = plt.subplots()[1]
        ax.set(yscale="log", ylim=ends)
        style.plain_log(ax.yaxis)
        shown = [tick for tick in ax.get_yticks() if ends[0] <= tick <= ends[1]]
        assert shown == pytest.approx(wanted)


def test_a_share_that_is_that_of_all_stages_is_written_once() -> None:
    assert brief("random-tokens:keep=0.27/0.27/0.27,last=3") == "random-tokens:keep=0.27,last=3"
    assert brief("uniform-tokens:keep=0.7/0.7/0.71,last=3") == "uniform-tokens:keep=0.7/0.7/0.71,last=3"

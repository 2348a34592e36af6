"""Names beside points: readable however close the points lie."""

from collections.abc import Callable, Iterator
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.toy_logs import toy_log
from varlab import figures
from varlab.analysis.frontier import Frontier
from varlab.figures import style
from varlab.figures.labels import Label, place
from varlab.figures.layout import laid_out, lay_out
from varlab.figures.sizes import STYLES, resize
from varlab.markup import brief


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


def test_a_line_across_the_axes_of_a_caller_is_seen_as_it_is_drawn() -> None:
    """Its ends count in widths of the axes, which here are no place in the data."""
    figure, ax = plt.subplots(figsize=(3, 2), layout="constrained")
    ax.plot([100, 102], [100, 102], "o")
    ax.axhline(101.1)
    place(ax, [Label("a name of some letters", 101, 101, "black")])
    figure.draw_without_rendering()
    box, level = Text.get_window_extent(ax.texts[0]), float(ax.transData.transform((101, 101.1))[1])
    assert not box.y0 < level < box.y1


EDGE = {  # work and SSIM of baselines, and below of a method's settings: SparseVAR's trade-off, whose names crowd
    "truncate:last=1+cfg-off:last=4": (0.254, 0.940), "truncate:last=1+cfg-off:last=3": (0.377, 0.958),
    "truncate:last=1+cfg-off:last=2": (0.444, 0.966), "cfg-off:last=2": (0.660, 0.9866),
    "cfg-off:last=1": (0.784, 0.9925), "none": (1.0, 1.0), "truncate:last=2": (0.33, 0.948),
}  # fmt: skip
OWN = {
    "sparsevar:keep=0.27": (0.376, 0.927, 2.13), "sparsevar:tau=0.6": (0.922, 0.996, 1.02),
    "sparsevar:keep=0.87": (0.877, 0.9925, 1.09), "sparsevar:keep=0.49": (0.546, 0.9706, 1.72),
    "sparsevar:keep=0.21": (0.331, 0.906, 2.20), "random-tokens:keep=0.27,last=3": (0.376, 0.90, 1.85),
    "uniform-tokens:keep=0.27,last=3": (0.376, 0.89, 2.04), "oracle-tokens:keep=0.27,last=3": (0.376, 0.939, 1.95),
    "truncate:last=1": (0.569, 0.972, 1.62), "cfg-off:last=2": (0.660, 0.984, 1.43),
}  # fmt: skip


def traded() -> Any:
    """A comparison of these."""
    table = pd.DataFrame.from_dict(OWN, orient="index", columns=["work_ratio", "ssim", "speedup"])
    ends = {"ssim_low": table.ssim - 0.01, "ssim_high": table.ssim + 0.01}
    ends |= {"speedup_low": 0.9 * table.speedup, "speedup_high": 1.1 * table.speedup}
    rows = [(spec, 0, work, ssim) for spec, (work, ssim) in EDGE.items()]
    frontier = Frontier(pd.DataFrame(rows, columns=["baseline", "prompt", "flops", "ssim"]), {})
    facts = {"model": "toy", "weights": "random (seed 0)", "n": 1}
    return SimpleNamespace(table=table.assign(**ends, timings=6).rename_axis("method"), facts=facts, frontier=frontier)


def texts(figure: Figure) -> list[Text]:
    """All that is written in a figure; no names of ticks beyond the ends of an axis."""
    ticks = [(tick, axis) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_major_ticks()]
    ends = {axis: axis.get_view_interval() for _, axis in ticks}
    unseen = {tick.label1 for tick, axis in ticks if not ends[axis][0] <= tick.get_loc() <= ends[axis][1]}
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
    return [text for text in found if text.get_text().strip() and text not in unseen]


def covered(ax: Axes, name: Text) -> bool:
    """Whether a name lies on a line, an interval or a marker of its axes."""
    box = Text.get_window_extent(name)
    parts = [path for bars in ax.collections for path in bars.get_paths()]
    parts += [line.get_path() for line in ax.lines if line.get_linestyle() != "None"]
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    crossed = any(path.transformed(ax.transData).intersects_bbox(box, filled=False) for path in parts)
    return crossed or any(box.contains(*point) for point in ax.transData.transform(points))


@pytest.mark.parametrize("style_name", STYLES)
@pytest.mark.parametrize("against", ["work_ratio", "speedup"])
def test_names_of_a_trade_off_touch_nothing_in_any_style(style_name: str, against: str) -> None:
    with style.theme():
        ax = figures.tradeoff(traded(), against=against, ax=figures.panels(1, 1, 3.25, 2.4)[0])
        figure = style.figure_of(ax)
        resize(figure, style_name)
    with style.theme(), laid_out(figure):
        figure.draw_without_rendering()
        boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts(figure)]
        assert not [(a, b) for (a, box), (b, other) in combinations(boxes, 2) if box.overlaps(other)]
        assert not [name.get_text() for name in ax.texts if covered(ax, name)]
        named = {name.get_text() for name in ax.texts}
        assert named >= {spec.partition(":")[2] for spec in OWN if spec.startswith("sparsevar")}
        assert len(named & {"t1 c4", "t1 c3", "t1 c2", "c2", "c1", "dense"}) >= (5 if against == "work_ratio" else 0)
        frame, names = ax.get_window_extent(), [Text.get_window_extent(text) for text in ax.texts]
        assert all(frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1 for box in names)
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for _, box in boxes)
        legend = ax.get_legend()
        assert legend is not None
        explained = any("t2: truncate:last=2" in entry.get_text() for entry in legend.get_texts())
        assert explained == (against == "work_ratio")


@pytest.mark.parametrize("measure", ["ssim", "psnr"])
def test_without_a_frontier_no_name_is_shortened(measure: str) -> None:
    """Nothing would explain it: of PSNR there is no frontier, and an older comparison has none."""
    compared = traded()
    compared.table["psnr"] = 30.0 * compared.table.ssim
    another = compared.table.loc[["truncate:last=1"]].rename({"truncate:last=1": "truncate:last=2"})
    compared.table = pd.concat([compared.table, another.assign(work_ratio=0.4)])
    if measure == "ssim":
        compared.frontier = None
    ax = figures.tradeoff(compared, measure, "work_ratio", figures.panels()[0])
    assert {text.get_text() for text in ax.texts} & {"last=1", "last=2", "t1", "t2"} == {"last=1", "last=2"}


def test_a_crowded_figure_fits_a_poster() -> None:
    """A long title, twelve ticks of which the last stays, names that all stay, a legend that takes half the width."""
    with style.theme():
        ax = figures.panels(1, 1, 3.25, 2.4)[0]
        for i in range(4):
            ax.bar(range(1, 13), 1, label=f"a name of many letters: {i}")
        ax.set(xticks=range(1, 13), xticklabels=range(101, 113), yticks=[0, 0.1], yticklabels=["a star", "a ring"])
        ax.set_title("A title that is longer than the page of a paper is wide")
        legend, figure = ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5)), style.figure_of(ax)
        resize(figure, "poster")
        with laid_out(figure):
            figure.draw_without_rendering()
            boxes = [Text.get_window_extent(text) for text in texts(figure)]
            assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
            assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
            named = [text.get_text() for axis in (ax.xaxis, ax.yaxis) for text in axis.get_majorticklabels()]
            assert "112" in named and "111" not in named and named[-2:] == ["a star", "a ring"]
            bars = [handle.get_window_extent() for handle in legend.get_patches()]
            assert all(bar.height < box.height for bar, box in zip(bars, boxes[-4:], strict=True))
            assert legend.get_window_extent().y1 < ax.bbox.y0 and figure.get_figwidth() == pytest.approx(2.6 * 3.25)


def test_a_legend_below_its_axes_covers_nothing_in_a_saved_figure() -> None:
    """It moves with the height of the axes: after one layout it lay on the lines below."""
    figure, ax = plt.subplots(figsize=(3.9, 2.7), layout="constrained")
    ax.plot([0, 1], [0, 1], label="a line")
    ax.set_xlabel("stage and its grid\nand more")
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.4))
    below = figure.supxlabel("three\nlines of\nprovenance")
    lay_out(figure)
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
    with style.theme():
        lay_out(figure)
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

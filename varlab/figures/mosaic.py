"""Pictures in rows and columns: one axes for all, as one for each of 24 takes eight times as long to lay out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import LayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from varlab.figures.style import INK, SOFT, clean_bar, figure_of
from varlab.figures.text import into_lines

EDGE = 0.06  # inches: blank around, and between the pictures and what stands over or under all of them
POINT = 1 / 72  # inches
CLOSE = 0.97  # of the distance of two columns: the widest title; of two rows: the highest name
FLAT = 0.85  # of the blank between two rows: the highest note in it
TITLE: Any = {"ha": "center", "va": "bottom", "fontsize": 6.5, "fontweight": "bold"}
NAME: Any = {"rotation": 90, "fontsize": 6.5, "color": SOFT}
BELOW: Any = {"fontsize": 6, "color": SOFT}
METHOD: Any = {"rotation": 0, "fontsize": 5.5, "color": INK}  # name of a row
PROMPT: Any = {"fontsize": 5, "fontweight": "normal", "pad": 2}  # title of a column
BARS = MaxNLocator(5)  # ticks of a colour bar
BAR = 0.1  # inches: width of a colour bar, and what is blank before it


@dataclass(frozen=True)
class Mosaic:
    """Fields whose longer side is the unit of ``ax``: ``lefts`` and ``tops`` of columns and rows, y downwards.

    ``side``: inches, at most. ``high`` and ``wide``: of a field, the longer one 1. Pictures of another shape stand in
    the middle of their fields. ``frames``: the lines around.
    """

    ax: Axes
    side: float
    high: float
    wide: float
    lefts: np.ndarray
    tops: np.ndarray
    frames: LineCollection
    titles: list[Text] = field(default_factory=list)
    notes: list[Text] = field(default_factory=list)
    names: list[Text] = field(default_factory=list)

    @property
    def figure(self) -> Figure:
        return figure_of(self.ax)

    def picture(self, row: int, column: int, values: Any, **how: Any) -> None:
        """An image [H, W, 3], or values [H, W] with ``cmap`` and ``norm``."""
        shown = np.asarray(values)
        height, width = np.array(shown.shape[:2]) / max(shown.shape[0] / self.high, shown.shape[1] / self.wide)
        left, top = self.lefts[column] + (self.wide - width) / 2, self.tops[row] + (self.high - height) / 2
        image = AxesImage(self.ax, extent=(left, left + width, top + height, top), interpolation="nearest", **how)
        image.set_data(shown)
        self.ax.add_image(image)
        self._frame(left, top, width, height)

    def not_run(self, row: int, column: int) -> None:
        """Says so in a field without a picture, or with one that a later stage would have changed."""
        x, y = self.lefts[column], self.tops[row]
        centre = x + self.wide / 2, y + self.high / 2
        self.ax.text(*centre, "not run", ha="center", va="center", fontsize=6.5, color=SOFT)
        self._frame(x, y, self.wide, self.high)

    def title(self, column: int, text: str, pad: float = 3, row: int = 0, **look: Any) -> Text:
        """Over a column, or over the picture of a row in it; ``pad``: points."""
        look = TITLE | look
        at = self.lefts[column] + {"left": 0, "center": self.wide / 2}[look["ha"]]
        self.titles.append(self.ax.text(at, self.tops[row] - self._points(pad), text, **look))
        return self.titles[-1]

    def heading(self, column: int, text: str, over: Text) -> None:
        """Over the titles of several columns; ``over``: that of the first, ``column``."""
        place: Any = {"xycoords": (self.ax.transData, over), "textcoords": "offset points"}
        self.ax.annotate(text, (self.lefts[column], 1), (0, 3), **place, va="bottom", fontsize=7, fontweight="bold")

    def name(self, row: int, text: str, column: int = 0, pad: float = 2, **look: Any) -> None:
        """Left of a row, or of a column in it."""
        look = NAME | look
        x, y = self.lefts[column] - self._points(pad), self.tops[row] + self.high / 2
        self.names.append(self.ax.text(x, y, text, ha="right", va="center", **look))

    def below(self, row: int, column: int, text: str, pad: float = 1, **look: Any) -> None:
        """Under a picture: the room between rows must allow it."""
        look = BELOW | look
        x, y = self.lefts[column] + self.wide / 2, self.tops[row] + self.high + self._points(pad)
        self.notes.append(self.ax.text(x, y, text, ha="center", va="top", **look))

    def bar(self, scale: Normalize, colours: str, label: str, extend: str, ticks: Any = BARS) -> None:
        """A colour bar at the right, as high as the rows; its label has as many lines as that asks for."""
        width = (self.lefts[-1] + self.wide) * self.side
        place = self.ax.inset_axes((1 + BAR / width, 0, BAR / width, 1))
        bar = self.figure.colorbar(ScalarMappable(scale, colours), cax=place, extend=extend, ticks=ticks)
        bar.set_label(label, fontsize=7)
        clean_bar(bar)

    def _points(self, pad: float) -> float:
        return pad * POINT / self.side

    def _frame(self, left: float, top: float, width: float, height: float) -> None:
        right, end = left + width, top + height
        corners = [(left, top), (right, top), (right, end), (left, end), (left, top)]
        self.frames.set_segments([*self.frames.get_segments(), np.array(corners)])


def mosaic(
    rows: int,
    columns: int,
    side: float,
    beside: float,
    *,
    shape: Sequence[int] = (1, 1),
    gap: float = 0.02,
    between: float = 0.0,
    apart: Mapping[int, float] | None = None,
    frame: float = 0.4,
) -> Mosaic:
    """Empty fields of at most ``side`` inches, their longer side, in a new figure.

    Parameters
    ----------
    beside
        Inches that the figure is wider than its fields: for names, and for a colour bar.
    shape
        Height and width of the pictures, in any unit.
    gap
        Inches between neighbours; ``between`` more between rows, ``apart`` more before a column.
    frame
        Points: the lines around pictures.
    """
    high, wide = np.array(shape[:2]) / max(shape[:2])
    steps = np.full(columns, wide * side + gap)
    steps[0] = 0
    for column, more in (apart or {}).items():
        steps[column] += more
    lefts, tops = np.cumsum(steps) / side, np.arange(rows) * (high * side + gap + between) / side
    width, height = lefts[-1] + wide, tops[-1] + high
    figure, ax = plt.subplots(figsize=(width * side + beside, height * side))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    frames = LineCollection([], linewidths=frame, colors="#444444", clip_on=False)
    ax.add_collection(frames, autolim=False)
    sheet = Mosaic(ax, side, high, wide, lefts, tops, frames)
    figure.set_layout_engine(_Around(sheet))
    return sheet


class _Around(LayoutEngine):
    """Makes the fields as large as names and bar beside them allow, and the figure as high as all of it.

    matplotlib's own layouts would leave axes of a fixed shape blank around, or cut their names.
    """

    _adjust_compatible = False
    _colorbar_gridspec = False

    def __init__(self, sheet: Mosaic) -> None:
        super().__init__()
        self.sheet, self.largest = sheet, sheet.side / sheet.figure.get_figwidth()

    def execute(self, fig: Figure) -> None:
        ax, units = (
            self.sheet.ax,
            np.abs([np.diff(self.sheet.ax.get_xlim()), np.diff(self.sheet.ax.get_ylim())]).ravel(),
        )
        edge, width = EDGE * fig.dpi, fig.bbox.width
        title, note = fig._suptitle, fig._supxlabel  # type: ignore[attr-defined]
        if title is not None:
            into_lines(title, title.get_window_extent().width, width * (1 - 2 * title.get_position()[0]))
        over, under = (0.0 if text is None else text.get_window_extent().height + edge for text in (title, note))
        for _ in range(3):  # what stands around hardly depends on the size of the fields
            box, whole = ax.bbox, ax.get_tightbbox()
            assert whole is not None
            left, right = box.x0 - whole.x0, whole.x1 - box.x1
            top, bottom = whole.y1 - box.y1, box.y0 - whole.y0
            side = min((width - left - right - 2 * edge) / units[0], self.largest * width)
            height = units[1] * side + top + bottom + over + under + 2 * edge
            fig.set_size_inches(width / fig.dpi, height / fig.dpi)
            start = (left + edge) / width, (under + bottom + edge) / height
            ax.set_position((*start, units[0] * side / width, units[1] * side / height))
            for text, at in ((title, 1 - edge / height), (note, edge / height)):
                if text is not None:
                    text.set_y(at)
            for bar in ax.child_axes:
                label = bar.yaxis.label
                into_lines(label, label.get_window_extent().height, ax.bbox.height)
            places = self.sheet.lefts, self.sheet.tops
            across, down = (CLOSE * side * min(np.diff(place), default=math.inf) for place in places)
            self._narrow(self.sheet.titles, across, math.inf)
            self._narrow(self.sheet.notes, across, side * self._blank())
            self._narrow(self.sheet.names, math.inf, down)

    def _blank(self) -> float:
        """How high a note may be, in fields: one under the last row has room."""
        between = any(note.get_position()[1] < self.sheet.tops[-1] for note in self.sheet.notes)
        return float(FLAT * min(np.diff(self.sheet.tops) - self.sheet.high)) if between else math.inf

    def _narrow(self, texts: Sequence[Text], width: float, height: float) -> None:
        """Smaller letters where neighbours would touch; ``width`` and ``height``: pixels of one of them."""
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        share = min((min(width / box.width, height / box.height) for box in boxes), default=1.0)
        for text in texts if share < 1 else ():
            text.set_fontsize(float(text.get_fontsize()) * share)

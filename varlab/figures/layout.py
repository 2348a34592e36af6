"""Where the parts of a figure stand: found once, and then the same in all its files."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from varlab.figures.legends import hanging, settle_legends
from varlab.figures.once import same_texts, same_ticks


def lay_out(figure: Figure) -> None:
    """Give all axes their places, twice where a legend below them moves with their height."""
    engine = figure.get_layout_engine()
    if engine is None:
        figure.draw_without_rendering()
        return
    _place(figure)
    if hanging(figure):
        settle_legends(figure)
        _place(figure)


def _place(figure: Figure) -> None:
    engine = figure.get_layout_engine()
    assert engine is not None
    with same_ticks():
        engine.execute(figure)
    for ax in figure.axes:
        locator: Any = ax.get_axes_locator()
        ax.apply_aspect(None if locator is None else locator(ax, None))


@contextmanager
def laid_out(figure: Figure) -> Iterator[None]:
    """Inside, the parts of a figure stay where they are: with an engine, "none" too, each file would be drawn twice."""
    engine = figure.get_layout_engine()
    with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
    try:
        with same_texts(), same_ticks():
            yield
    finally:
        if engine is not None:
            figure.set_layout_engine(engine)

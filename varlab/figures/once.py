"""What matplotlib works out again and again while a figure is laid out and written, worked out once.

One pass of a layout asks for the ticks of an axis five times, and for the size of each of their names as often, though
nothing changes in between; writing a file asks again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.axis import Axis
from matplotlib.text import Text

_REMEMBERING: set[Any] = set()


@contextmanager
def same_texts() -> Iterator[None]:
    """Inside, what a text of given letters, font, size and direction takes is measured once for each kind of file."""
    found: dict[Any, Any] = {}

    def remembered(usual: Callable[..., Any], text: Text, renderer: Any) -> Any:
        if text.get_wrap():  # its lines depend on the figure
            return usual(text, renderer)
        key = _look(text, renderer)
        if key not in found:
            found[key] = usual(text, renderer)
        return found[key]

    with _instead(Text, "_get_layout", remembered):
        yield


@contextmanager
def same_ticks() -> Iterator[None]:
    """Inside, the ticks of an axis are looked for again only where its ends or its axes have moved.

    Neither its locator nor its formatter may change inside.
    """
    found: dict[Axis, tuple[Any, Any]] = {}  # the last only: another place moves the ticks

    def remembered(usual: Callable[..., Any], axis: Axis) -> Any:
        key = (*axis.axes.bbox.bounds, *axis.get_view_interval(), axis.axes.figure.dpi)
        if axis not in found or found[axis][0] != key:
            found[axis] = key, usual(axis)
        return found[axis][1]

    with _instead(Axis, "_update_ticks", remembered):
        yield


def _look(text: Any, renderer: Any) -> tuple[Any, ...]:
    """All that decides where the letters of a text stand, seen from its own place."""
    figure, kind = text.get_figure(root=True), type(getattr(renderer, "_renderer", renderer))
    return (
        kind, figure and figure.dpi, text.get_text(), hash(text.get_fontproperties()), text.get_rotation(),
        text.get_rotation_mode(), text.get_horizontalalignment(), text.get_verticalalignment(), text._linespacing,
        text._multialignment, text.get_parse_math(), text.get_usetex(),
    )  # fmt: skip


@contextmanager
def _instead(owner: type, name: str, remembered: Callable[..., Any]) -> Iterator[None]:
    """A method of matplotlib's own that remembers; as it was where it does so already, or where a version lacks it."""
    usual = getattr(owner, name, None)
    if usual is None or usual in _REMEMBERING:
        yield
        return

    def instead(self: Any, *given: Any) -> Any:
        return remembered(usual, self, *given)

    _REMEMBERING.add(instead)
    try:
        with replaced(owner, name, instead):
            yield
    finally:
        _REMEMBERING.discard(instead)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for an attribute of a class or module, inside."""
    usual = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, usual)

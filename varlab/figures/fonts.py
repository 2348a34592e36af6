"""The letters of a figure in its PDF file: cut out of their font in a tenth of matplotlib's time, to the same bytes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import Any

from fontTools import subset
from matplotlib.backends import _backend_pdf_ps
from matplotlib.font_manager import get_font

from varlab.figures.once import replaced

USUAL = [  # letters of Europe's west and Greece, dashes and dots, small numbers, arrows, minus, comparisons, fi and fl
    *range(0x20, 0x7F), *range(0xA0, 0x100), *range(0x391, 0x3CA), *range(0x2010, 0x2028), *range(0x2070, 0x2090),
    *range(0x2190, 0x2194), 0x2212, *range(0x2264, 0x2266), *range(0xFB00, 0xFB05),
]  # fmt: skip
Cut = Callable[[Any, Any], AbstractContextManager[Any]]

_small: dict[tuple[str, int], tuple[bytes, dict[int, int]]] = {}  # a font's glyphs so far, and their numbers there


@contextmanager
def bare_fonts() -> Iterator[None]:
    """Puts fonts into PDF files without rules for ligatures, kerning and formulas, and reads each whole font once.

    Each letter has its place by then, and to cut these rules down to the letters used is most of the work on a font.
    """
    usual, cut = subset.Options._drop_tables_default, _backend_pdf_ps.get_glyphs_subset
    with (
        replaced(subset.Options, "_drop_tables_default", [*usual, "GDEF", "GPOS", "GSUB", "MATH"]),
        replaced(_backend_pdf_ps, "get_glyphs_subset", lambda font, glyphs: _cut(cut, font, glyphs)),
    ):
        yield


def _cut(usual: Cut, font: Any, glyphs: str | Iterable[int]) -> AbstractContextManager[Any]:
    """What matplotlib would cut out of the whole font, out of a small one."""
    if isinstance(glyphs, str):  # before matplotlib 3.11: letters
        return usual(font, glyphs)
    wanted, name = set(glyphs), (str(font), getattr(font, "face_index", 0))
    if name not in _small or not wanted <= _small[name][1].keys():
        _small[name] = _cut_down(font, wanted.union(_small[name][1] if name in _small else ()))
    data, numbers = _small[name]
    load = subset.load_font
    with replaced(subset, "load_font", lambda _, options: load(BytesIO(data), options)):
        return _renumbered(usual(font, {numbers[glyph] for glyph in wanted}), numbers)


@contextmanager
def _renumbered(found: AbstractContextManager[Any], numbers: dict[int, int]) -> Iterator[Any]:
    """The cut-out font, its glyphs by their numbers in the whole one."""
    with found as cut:
        there = cut.glyph_index_map
        yield cut._replace(glyph_index_map={old: there[new] for old, new in numbers.items() if new in there})


def _cut_down(font: Any, wanted: set[int]) -> tuple[bytes, dict[int, int]]:
    """The usual letters of a font and those wanted: as a file, and their numbers in it."""
    face = get_font(font)
    options = subset.Options(glyph_names=True, recommended_glyphs=True, font_number=getattr(font, "face_index", 0))
    options.drop_tables += ["FFTM"]  # when it was made
    cutter, file = subset.Subsetter(options=options), BytesIO()
    with subset.load_font(font, options) as whole:
        cutter.populate(gids=wanted | {face.get_char_index(letter) for letter in USUAL})
        cutter.subset(whole)
        whole.save(file, reorderTables=False)
    return file.getvalue(), cutter.glyph_index_map

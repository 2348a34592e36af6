"""Text that users give (prompts, specs, names, paths) as figures draw it: as typed, in fonts that have its letters.

matplotlib would set what stands between two ``$`` as a formula, fold line breaks into blanks, and draw an empty box,
with a warning each, for a letter that its font lacks.
"""

import re
import textwrap
import unicodedata
from collections.abc import Iterable
from itertools import groupby

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from varlab.markup import brief

MAIN = "DejaVu Sans"  # comes with matplotlib: the same figure on every machine
# Taken where they are installed, for the letters that the ones before them lack. No colour font: matplotlib draws none.
FALLBACKS = (
    "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei",
    "SimHei", "PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Noto Sans Arabic",
    "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu",
    "Noto Sans Thai", "Noto Sans Ethiopic", "Noto Sans Georgian", "Noto Sans Armenian", "Nirmala UI", "Leelawadee UI",
    "Arial Unicode MS", "Noto Emoji", "Symbola", "Segoe UI Emoji", "Segoe UI Symbol", "Noto Sans Symbols",
    "Noto Sans Symbols 2", "Unifont",
)  # fmt: skip
SIGNS = {"\n": "↵", "\r": "↵", "\t": "⇥"}  # what a line break and a tab within a text become
JOINERS = "\u200c\u200d\u200e\u200f\ufe0e\ufe0f"  # they belong to the letter before them
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # kinds of characters that no font shows, or that would turn the line round
OPEN = "⟨U+"
NOTE = f"{OPEN}…⟩: characters that no installed font has, by code point; Noto Sans CJK and Noto Emoji cover most."
STAGES = re.compile(r"(?<==)([\d.]+)/(?:[\d.]+/)*([\d.]+)(?![\d./])")
BREAKS = re.compile(r"( +|(?<=[:,+/\-])(?=\S))")  # where a line may end: at blanks, and after these signs in a spec


def families() -> list[str]:
    """The fonts of the figures, the first that has a letter draws it."""
    installed = {font.name for font in fontManager.ttflist}
    return [MAIN, *(name for name in FALLBACKS if name in installed)]


def as_typed(text: object) -> str:
    """The text as matplotlib can draw it: a character that no font has by its code point, ``⟨U+7EA2⟩``.

    Line breaks become ``↵`` and tabs ``⇥``.
    """
    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in families()]
    parts: list[tuple[bool, str]] = []
    for character in str(text).replace("\r\n", "\n"):
        character = SIGNS.get(character, character)
        if character in JOINERS and parts:
            known = parts[-1][0]
        else:
            unseen = unicodedata.category(character) in UNSEEN
            known = not unseen and any(font.get_char_index(ord(character)) for font in fonts)
        parts.append((known, character))
    runs = ((known, [character for _, character in run]) for known, run in groupby(parts, key=lambda part: part[0]))
    return "".join("".join(run) if known else _code_points(run) for known, run in runs)


def _code_points(characters: Iterable[str]) -> str:
    return OPEN + " ".join(f"{ord(character):04X}" for character in characters) + "⟩"


def briefer(spec: object) -> str:
    """``brief``, and of values that differ by stage the first and the last: ``keep=0.71…0.44``."""
    return STAGES.sub(r"\1…\2", brief(spec))


def balanced(text: object, width: int) -> str:
    """``wrapped`` with lines of like length, so that no word stands alone in the last one."""
    lines = wrapped(text, width)
    for narrower in range(width - 1, width // 2, -1):
        closer = wrapped(text, narrower)
        if closer.count("\n") > lines.count("\n"):
            break
        lines = closer
    return lines


def into_lines(text: Text, extent: float, room: float) -> bool:
    """Lines that are too long end at a middle dot first, and then at any blank. Whether any was."""
    before = text.get_text()
    if extent > room:
        letters = int(0.98 * room / extent * max(map(len, before.split("\n"))))
        lines = before.replace(" · ", "\n").split("\n")
        longest = max(map(len, before.split()))  # no word is broken
        text.set_text("\n".join(balanced(line, max(longest, letters)) for line in lines))
    return text.get_text() != before


def parted(text: object, width: int) -> str:
    """Provenance in lines that end only where a part of it does, at a middle dot or a semicolon."""
    parts = re.split(r"(?<=·) |(?<=;) ", as_typed(text).replace(" · ", "\N{NO-BREAK SPACE}· "))
    whole = " ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)
    return "\n".join(textwrap.wrap(whole, width, break_on_hyphens=False))


def wrapped(text: object, width: int, lines: int | None = None) -> str:
    """The text as typed in lines of ``width`` Latin letters; cut with an ellipsis after ``lines`` of them."""
    drawn = as_typed(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in drawn)
    letters = max(4, width * len(drawn) // (len(drawn) + wide)) if wide else width
    cut = textwrap.TextWrapper(letters, replace_whitespace=False, max_lines=lines, placeholder="…")
    cut.wordsep_re = BREAKS
    return "\n".join(cut.wrap(drawn))

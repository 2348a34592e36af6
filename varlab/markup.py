"""Texts that users give (prompts, specs, names, paths) within Markdown and terminals, so that they read as typed."""

import re
import unicodedata
from collections.abc import Mapping
from html import escape

EQUAL = re.compile(r"(?<==)([\d.]+)(?:/\1)+(?![\d./])")  # one value at all stages of a spec
KEPT_TOGETHER = re.compile(  # blanks at which no line ends: in 5 %, n = 8, (0.1 to 0.2) and [0.1, 0.2]
    r"(?<=\d) (?=%)|(?<=\bn) (?== )|(?<=\bn =) (?=\d)|(?<=\d) (?=to \S+\))|(?<=\d to) (?=\S+\))|(?<=,) (?=\S+\])"
)
SIGNS = re.compile(r"[\\`*_\[\]<>&|~]")
UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # kinds of characters that a terminal obeys or drops
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # and what turns the rest of a line round


def as_markdown(text: object) -> str:
    """The text with the signs of Markdown and HTML as character references, a line break as ``<br>``.

    A ``$`` stands in an element of its own: MathJax, which draws the formulas of notebooks, looks for none
    across elements.
    """
    plain = SIGNS.sub(lambda sign: f"&#{ord(sign[0])};", str(text))
    return re.sub(r"\r\n?|\n", "<br>", plain.replace("$", "<span>&#36;</span>"))


def in_terminal(text: object) -> str:
    """The text with characters that a terminal would obey or drop by their code points, as figures draw them."""

    def seen(sign: str) -> bool:
        return sign in "\n\t" or (
            unicodedata.category(sign) not in UNSEEN and unicodedata.bidirectional(sign) not in TURNS
        )

    return "".join(s if seen(s) else f"⟨U+{ord(s):04X}⟩" for s in str(text).replace("\r\n", "\n"))


def summary(title: str, **facts: object) -> str:
    """A title and a line a fact, its words cut where a person would stop reading."""
    wide = max(map(len, facts), default=0)
    lines = [f"  {name.replace('_', ' '):<{wide}}  {_short(str(value))}" for name, value in facts.items()]
    return "\n".join([title, *lines])


def count(n: int, what: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{n:,} {what}" + "s" * (n != 1)


def _short(text: str, longest: int = 100) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def as_html(text: str) -> str:
    """What ``summary`` wrote, for a notebook: the title, and a table of the facts; a text of one line as code."""
    title, *lines = text.splitlines()
    if not lines:
        return f"<code>{escape(title)}</code>"
    pairs = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines]
    return table_html(title, {name: "".join(rest) for name, *rest in pairs})


def table_html(title: str, facts: Mapping[str, str]) -> str:
    """A title and a row a fact, drawn as typed."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts.items())
    return f'<p class="mathjax_ignore">{escape(title)}</p><table class="mathjax_ignore">{cells}</table>'


class Shown:
    """A notebook shows what has a ``summary`` as a table."""

    def _repr_html_(self) -> str:
        return as_html(repr(self))


def together(text: str) -> str:
    """With blanks at which no line ends within ``5 %``, ``n = 8``, ``(0.1 to 0.2)`` and ``[0.1, 0.2]``."""
    return KEPT_TOGETHER.sub("\N{NO-BREAK SPACE}", text)


def brief(spec: object) -> str:
    """A spec with a value once where it is that of all stages: ``keep=0.27`` for ``keep=0.27/0.27/0.27``."""
    return EQUAL.sub(r"\1", str(spec))

"""The title of a notebook and the first sentence after it, from its Markdown cells."""

import html as markup
import re
from collections.abc import Mapping, Sequence
from typing import Any

SENTENCE = re.compile(r".+?[.!?](?=\s+[A-Z(\[*`$]|\s*$)", re.DOTALL)
NO_TEXT = ("#", "|", "!", "<", "```", "$$")  # how a heading, table, picture, markup, code, formula begin
ABBREVIATION = re.compile(r"(?:e\.g|i\.e|cf|vs|al|Fig|Eq|Sec|Tab)\.$")
FORMULA = re.compile(r"(?<![\\$])\$(?! )([^$]*[^$ \\])\$(?![\d$])")
MARKS = re.compile(r"<[^>]+>|(?<!\\)[*`]")
ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


def heading(cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The first heading as plain text and the first sentence after it, which stays Markdown."""
    written = [cell for cell in cells if cell["cell_type"] == "markdown"]
    marked = "papermill-error-cell-tag"  # what papermill says of a failure is not the author's text
    own = [cell for cell in written if marked not in cell["metadata"].get("tags", [])]
    text = "\n\n".join("".join(cell["source"]) for cell in own)
    found = re.search(r"^#{1,6}\s+(.+?)\s*#*\s*$", text, re.MULTILINE)
    body = text[found.end() :] if found else text
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", body))
    first = next((part for part in paragraphs if part and not part.startswith(NO_TEXT)), "")
    return plain(found[1]) if found else "", first_sentence(first)


def first_sentence(paragraph: str) -> str:
    """Up to the first full stop that ends a sentence."""
    end = 0
    for match in SENTENCE.finditer(paragraph):
        end = match.end()
        if not ABBREVIATION.search(match[0]):
            return paragraph[:end].strip()
    return paragraph


def plain(markdown: str) -> str:
    """Markdown as text without its marks; a sum of money keeps its ``$``."""
    unlinked = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return markup.unescape(ESCAPED.sub(r"\1", MARKS.sub("", FORMULA.sub(r"\1", unlinked))))

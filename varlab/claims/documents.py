"""Does every number of the papers' documents have a row? Read from the texts, where a user has them."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from varlab.claims.ledger import DOCUMENTS, Claim, claims_folder
from varlab.errors import VarlabError

LINKS = re.compile(r"https?://\S+|<[^<>]*>|\^\{[^}]*\}|\]\([^)]*\)|@\w+\{[^,]*,")
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![A-Z]\b|\.\d)")
"""A number, but not one within a name: 2B, HPSv2.1, 4K."""
ENDINGS = (".txt", ".md")


@dataclass(frozen=True)
class Coverage:
    """``missing``: numbers of a document without a row, ``surplus``: rows whose figure the document does not hold."""

    document: str
    numbers: int
    missing: dict[str, int]
    surplus: dict[str, int]

    @property
    def complete(self) -> bool:
        return not self.missing and not self.surplus

    def line(self) -> str:
        if self.complete:
            return f"{self.document}: every one of {self.numbers} numbers has its row or is a label"
        parts = []
        if self.missing:
            parts.append("without a row: " + _listed(self.missing))
        if self.surplus:
            parts.append("rows that the document does not hold: " + _listed(self.surplus))
        return f"{self.document}: {self.numbers} numbers; {'; '.join(parts)}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(number if n == 1 else f"{number} ({n} times)" for number, n in sorted(counts.items()))


def numbers_in(text: str) -> list[str]:
    """The numbers of a text as printed; none of links, markup, superscripts and names."""
    return NUMBER.findall(LINKS.sub(" ", text))


def coverage(claims: Sequence[Claim], folder: Path, ledger: Path | None = None) -> list[Coverage]:
    """One result a text of ``folder``: its numbers, as often as they stand there, against the rows of that document.

    A text that is not recognised has no rows, so all its numbers are missing.

    Raises
    ------
    VarlabError: the folder holds no text.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS) if folder.is_dir() else []
    if not paths:
        raise VarlabError(f"{folder} holds no document (a file that ends in {' or '.join(ENDINGS)}).")
    known = read_documents(ledger)
    found = []
    for path in paths:
        text = path.read_text("utf-8", errors="replace")
        name = next((name for name, about in known.items() if about["contains"] in text), "")
        labels = known[name]["labels"] if name else {}
        found.append(_covered(name or f"{path.name} (no document of the ledger)", numbers_in(text), labels, claims))
    return found


def kept_coverage(claims: Sequence[Claim], ledger: Path | None = None) -> list[Coverage]:
    """The same by the numbers of the documents alone, which the ledger keeps: no text is needed."""
    known = read_documents(ledger)
    return [_covered(name, about["numbers"], about["labels"], claims) for name, about in known.items()]


def read_documents(ledger: Path | None = None) -> dict[str, dict[str, Any]]:
    """By document: ``contains``, words by which it is recognised; ``numbers`` as printed, in order; ``labels``: how
    often a number stands there as a year, a stage or the setting of a row."""
    found: dict[str, dict[str, Any]] = json.loads(((ledger or claims_folder()) / DOCUMENTS).read_text("utf-8"))
    return found


def _covered(name: str, numbers: Sequence[str], labels: dict[str, int], claims: Sequence[Claim]) -> Coverage:
    printed = Counter(map(_canonical, numbers))
    expected = Counter({_canonical(number): n for number, n in labels.items()})
    expected += Counter(_canonical(n) for c in claims if f"{c.method} {c.document}" == name for n in _figures(c.quote))
    return Coverage(name, printed.total(), dict(printed - expected), dict(expected - printed))


def _figures(quote: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", quote)


def _canonical(number: str) -> str:
    """Two printings of a number are one: 0.90 and .9."""
    return f"{float(number):g}"

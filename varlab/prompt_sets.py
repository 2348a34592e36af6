"""Named prompt sets: the scene benchmark with GenEval's proportions, its categories, and text files."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path
from typing import overload

import numpy as np

from varlab.errors import VarlabError, unknown
from varlab.scenes.grammar import CATEGORIES, COLORS, NUMBERS, RELATIONS, SHAPES, noun_phrase

GENEVAL_COUNTS = dict(zip(CATEGORIES, (80, 99, 80, 94, 100, 100), strict=True))
CUSTOM = "custom"


@dataclass(frozen=True)
class Prompt:
    """A text and the benchmark category it is scored under ("custom" outside the benchmark)."""

    text: str
    category: str = CUSTOM


@dataclass(frozen=True)
class PromptSet(Sequence[str]):
    """Behaves like a list of texts, and knows where they come from. A slice is again a set."""

    items: tuple[Prompt, ...]
    name: str = CUSTOM
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.items:
            raise VarlabError(f"The prompt set {self.name!r} is empty. Give at least one prompt.")
        if any(not item.text.strip() for item in self.items):
            raise VarlabError(f"The prompt set {self.name!r} holds an empty prompt.")

    @classmethod
    def from_texts(cls, texts: Iterable[str], name: str = CUSTOM) -> "PromptSet":
        """A set of plain strings, all of category "custom"."""
        if isinstance(texts, str):
            raise VarlabError(f"Expected a list of prompts, not one string: [{texts!r}].")
        return cls(tuple(Prompt(text) for text in texts), name)

    @property
    def texts(self) -> list[str]:
        return [item.text for item in self.items]

    @property
    def categories(self) -> list[str]:
        return [item.category for item in self.items]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change with any text, category or their order."""
        lines = "\n".join(f"{item.category}\t{item.text}" for item in self.items)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "PromptSet": ...
    def __getitem__(self, index: int | slice) -> "str | PromptSet":
        if isinstance(index, slice):
            return PromptSet(self.items[index], self.name, self.seed)
        return self.items[index].text


def prompts(name: str, n: int | None = None, seed: int = 0) -> PromptSet:
    """The set of that name, or of a .txt file (one prompt a line, blank lines skipped).

    "scenes" has 553 prompts in GenEval's category counts, in turn from each category, so that any first n are
    balanced; "scenes-counting" and its likes hold one category. A larger n goes on: each category runs
    through a new shuffle of all its prompts once the last is used up, and then repeats texts. `seed` decides
    the shuffles. Files ignore it, and hold no more than their lines.
    Raises VarlabError for an unknown name, a file that is missing, empty or shorter than n, and n below 1.
    """
    if n is not None and n < 1:
        raise VarlabError(f"A prompt set needs at least one prompt, not n={n}.")
    if name.endswith(".txt"):
        return _from_file(Path(name), n)
    if seed < 0:
        raise VarlabError(f"The seed of a prompt set must not be negative: {seed}.")
    counts = _sets().get(name)
    if counts is None:
        raise unknown("prompt set", name, _sets())
    size = sum(counts.values()) if n is None else n
    return PromptSet(tuple(islice(_interleaved(counts, seed), size)), name, seed)


def distinct(name: str, n: int) -> list[str]:
    """The first n different texts of the set or file of that name. Raises VarlabError where it has fewer."""
    chosen = prompts(name)  # refuses what is no set
    if name.endswith(".txt"):
        found = list(dict.fromkeys(chosen))
        known = len(found)
    else:
        counts = _sets()[name]
        known = sum(len(_all_texts(category)) for category in counts)
        found = list(islice(_unlike(item.text for item in _interleaved(counts, 0)), min(n, known)))
    if n > known:
        raise VarlabError(
            f"The prompt set {name!r} holds {known} different texts, and {n} are asked for. Ask for fewer, or take a "
            "larger set."
        )
    return found[:n]


def dealt(name: str, n: int, others: int, seed: int) -> tuple[list[str], list[str]]:
    """n texts of a set to fit on and ``others`` to judge by, all different, dealt out by ``seed`` so that both parts
    hold every kind of prompt. Raises VarlabError where the set has too few."""
    texts = distinct(name, n + others)
    order = np.random.default_rng(seed).permutation(len(texts))
    mixed = [texts[i] for i in order]
    return mixed[:n], mixed[n:]


def digest_of(texts: Iterable[str]) -> str:
    """12 hexadecimal digits that tell one list of texts from another."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _unlike(texts: Iterable[str]) -> Iterator[str]:
    """Each text the first time that it comes."""
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def _sets() -> dict[str, dict[str, int]]:
    """Category counts by set name."""
    return {"scenes": GENEVAL_COUNTS} | {f"scenes-{c}": {c: k} for c, k in GENEVAL_COUNTS.items()}


def _from_file(path: Path, n: int | None) -> PromptSet:
    if not path.is_file():
        raise VarlabError(f"There is no prompt file {str(path)!r}. Known sets: {', '.join(_sets())}.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise VarlabError(f"The prompt file {str(path)!r} is not UTF-8 text: {error}.") from error
    texts = [line.strip() for line in lines if line.strip()]
    if n is not None and n > len(texts):
        raise VarlabError(
            f"The prompt file {str(path)!r} holds {len(texts)} prompts, not {n}. Give n={len(texts)} or fewer."
        )
    return PromptSet.from_texts(texts[:n], name=str(path))


def _interleaved(counts: dict[str, int], seed: int) -> Iterator[Prompt]:
    """Rounds of one prompt a category, without those whose count is used up; then the same anew."""
    streams = {category: _stream(category, seed) for category in counts}
    while True:
        for turn in range(max(counts.values())):
            for category, count in counts.items():
                if turn < count:
                    yield Prompt(next(streams[category]), category)


def _stream(category: str, seed: int) -> Iterator[str]:
    """All prompts of a category, shuffled anew each time they are used up."""
    texts = _all_texts(category)
    cycle = 0
    while True:
        rng = np.random.default_rng((seed, CATEGORIES.index(category), cycle))
        yield from (texts[i] for i in rng.permutation(len(texts)))
        cycle += 1


def _all_texts(category: str) -> list[str]:
    """Every benchmark prompt of a category; their number: 6, 30, 18, 48, 120, 1680."""
    pairs = list(permutations(SHAPES, 2))
    if category == "single_object":
        return [noun_phrase(shape) for shape in SHAPES]
    if category == "two_object":
        return [f"{noun_phrase(a)} and {noun_phrase(b)}" for a, b in pairs]
    if category == "counting":
        return [noun_phrase(shape, count) for shape, count in product(SHAPES, NUMBERS)]
    if category == "colors":
        return [noun_phrase(shape, 1, (color,)) for shape, color in product(SHAPES, COLORS)]
    if category == "position":
        return [f"{noun_phrase(a)} {r} {noun_phrase(b)}" for (a, b), r in product(pairs, RELATIONS)]
    return [
        f"{noun_phrase(a, 1, (first,))} and {noun_phrase(b, 1, (second,))}"
        for (a, b), (first, second) in product(pairs, permutations(COLORS, 2))
    ]

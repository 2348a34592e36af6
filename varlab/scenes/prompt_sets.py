"""Named prompt sets: the scene benchmark with GenEval's proportions, GenEval itself, a model's classes, and files."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, permutations, product
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from varlab.errors import VarlabError, quoted, unknown
from varlab.markup import count as numbered
from varlab.resources import shipped
from varlab.scenes.grammar import CATEGORIES, COLORS, NUMBERS, RELATIONS, SHAPES, noun_phrase
from varlab.scenes.prompt_files import ENDINGS, FilePrompts, as_text, is_prompt_file, read_prompts

if TYPE_CHECKING:
    from varlab.models.base import NextScaleModel

GENEVAL_COUNTS = dict(zip(CATEGORIES, (80, 99, 80, 94, 100, 100), strict=True))
GENEVAL = shipped("data") / "geneval" / "evaluation_metadata.jsonl"
CUSTOM, CLASSES = "custom", "classes"
SHOWN = 3  # prompts that a set prints
MOST = 100_000  # prompts or images of one call


@dataclass(frozen=True)
class Prompt:
    """A text and the benchmark category it is scored under ("custom" outside the benchmark)."""

    text: str
    category: str = CUSTOM


@dataclass(frozen=True)
class PromptSet(Sequence[str]):
    """Behaves like a list of texts, and knows where they come from. A slice is again a set.

    ``notes``: what a reader of its numbers must know, such as lines of a file that were skipped.
    """

    items: tuple[Prompt, ...]
    name: str = CUSTOM
    seed: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.items:
            raise VarlabError(f"The prompt set {quoted(self.name)} is empty. Give at least one prompt.")
        for i, item in enumerate(self.items):
            as_text(item.text, i)

    @classmethod
    def from_texts(cls, texts: Iterable[str], name: str = CUSTOM) -> "PromptSet":
        """A set of plain strings, all of category "custom"; whole numbers name classes."""
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            kind = "string" if isinstance(texts, str) else type(texts).__name__
            raise VarlabError(f"Expected a list of prompts, not one {kind}: [{quoted(texts)}].")
        return cls(tuple(Prompt(as_text(text, i)) for i, text in enumerate(texts)), name)

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
            return PromptSet(self.items[index], self.name, self.seed, self.notes)
        return self.items[index].text

    def __repr__(self) -> str:
        lines = [f"PromptSet {quoted(self.name)}: {numbered(len(self), 'prompt')}, seed {self.seed}"]
        lines += [f"  {i}  {text}" for i, text in enumerate(self.texts[:SHOWN])]
        return "\n".join([*lines, *["  ..."][: len(self) > SHOWN], *(f"  {note}" for note in self.notes)])


Given = str | PathLike[str] | Sequence[str] | None  # a set's name, a file, texts, or None for a model's own set


def prompts(
    name: str | PathLike[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    model: "NextScaleModel | str | None" = None,
) -> PromptSet:
    """The prompt set of that name, or the prompts of a file.

    "scenes" has 553 prompts in GenEval's category counts, in turn from each category, so that any first n are
    balanced; "scenes-counting" and its likes hold one category. A larger n goes on: each category runs
    through a new shuffle of all its prompts once the last is used up, and then repeats texts. "classes" are those of
    a class-conditional ``model``, shuffled in the same way. "geneval" are GenEval's own 553 prompts in its order.

    Parameters
    ----------
    name : a set, or a file: .txt, .jsonl, .json, .csv or .tsv, read as ``varlab.scenes.prompt_files`` says. None is the
        set that every ``model`` of its kind can read: "classes" of a class-conditional one, else "scenes".
    n : how many; time grows in proportion. None is the whole set. Files and "geneval" hold no more than they do.
    seed : decides the shuffles of "scenes" and "classes".
    model : a model or its name; needed for "classes" alone.

    Raises
    ------
    VarlabError : an unknown name; a file that is missing, damaged, empty or shorter than n; n below 1, above ``MOST``;
        "classes" of a model that reads captions.

    Examples
    --------
    >>> prompts("scenes", n=2).texts
    ['a photo of a circle', 'a photo of a star and a triangle']
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, Integral) or n < 1):
        raise VarlabError(f"A prompt set needs at least one prompt, not n={quoted(n)}.")
    if n is not None and n > MOST:
        raise VarlabError(
            f"A prompt set gives up to {MOST:,} prompts, not {n}. Other images of the same prompts "
            "come from other seeds."
        )
    if seed < 0:
        raise VarlabError(f"The seed of a prompt set must not be negative: {seed}.")
    classes = _classes(model)
    name = str(name) if name is not None else CLASSES if classes else "scenes"
    if name == CLASSES:
        _require_classes(classes, model)
        endless = chain.from_iterable(_shuffles(classes, (seed,)))
        return PromptSet(tuple(map(Prompt, islice(endless, n or len(classes)))), name, seed)
    if (counts := _sets().get(name)) is not None:
        return PromptSet(tuple(islice(_interleaved(counts, seed), n or sum(counts.values()))), name, seed)
    if name == "geneval":
        return _first(read_prompts(GENEVAL), n, name)
    if not is_prompt_file(name):
        files = f"Or give a file of prompts: {', '.join(ENDINGS)}."
        raise VarlabError(f"{unknown('prompt set', name, (*_sets(), CLASSES, 'geneval'))} {files}")
    return _first(read_prompts(Path(name).expanduser()), n, name)


def choose(
    given: Given, n: int | None = None, model: "NextScaleModel | str | None" = None, most: int | None = None
) -> PromptSet:
    """The first n of whatever a caller gives: as ``prompts`` takes it, or the texts themselves.

    ``most``: how many at most where ``n`` is None.
    """
    if given is None or isinstance(given, str | PathLike):
        return prompts(given, n, model=model)[: most if n is None else n]
    chosen = given if isinstance(given, PromptSet) else PromptSet.from_texts(given)
    return chosen[: most if n is None else n]


def distinct(name: str | None, n: int, model: "NextScaleModel | str | None" = None) -> list[str]:
    """The first n different texts of the set or file of that name. Raises VarlabError where it has fewer."""
    chosen = prompts(name, model=model)  # refuses what is no set
    counts = _sets().get(chosen.name)
    if counts is None:
        found = list(dict.fromkeys(chosen))
        known = len(found)
    else:
        known = sum(len(_all_texts(category)) for category in counts)
        found = list(islice(_unlike(item.text for item in _interleaved(counts, 0)), min(n, known)))
    if n > known:
        raise VarlabError(
            f"The prompt set {quoted(chosen.name)} holds {known} different texts, and {n} are asked for. Ask for "
            "fewer, or take a larger set."
        )
    return found[:n]


def dealt(
    name: str | None, n: int, others: int, seed: int, model: "NextScaleModel | str | None" = None
) -> tuple[list[str], list[str]]:
    """n texts of a set to fit on and ``others`` to judge by, all different, dealt out by ``seed`` so that both parts
    hold every kind of prompt. Raises VarlabError where the set has too few."""
    texts = distinct(name, n + others, model)
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


def _first(found: FilePrompts, n: int | None, name: str) -> PromptSet:
    if n is not None and n > len(found.texts):
        raise VarlabError(
            f"The prompt file {quoted(name)} holds {numbered(len(found.texts), 'prompt')}, not {n}. "
            f"Give n={len(found.texts)} or fewer."
        )
    return PromptSet(tuple(map(Prompt, found.texts[:n])), name, notes=found.notes)


def _classes(model: "NextScaleModel | str | None") -> Sequence[str]:
    """The classes that a model reads, as texts; none of a model that reads captions."""
    from varlab.models.classes import ClassReader  # waits for torch, which a set of prompts does not need

    if isinstance(model, str):
        from varlab.models.var import VARConfig
        from varlab.weights.registry import find
        from varlab.weights.zoo import class_names

        entry = find(model)
        config = entry.transformer
        return ClassReader(config.classes, class_names(entry)).texts if isinstance(config, VARConfig) else ()
    reader = getattr(model, "text", None)
    return reader.texts if isinstance(reader, ClassReader) else ()


def _require_classes(classes: Sequence[str], model: "NextScaleModel | str | None") -> None:
    if not classes and model is None:
        raise VarlabError("'classes' are those of a model: name it, as in prompts('classes', model='mini-var').")
    if not classes:
        name = model if isinstance(model, str) else model and model.name
        raise VarlabError(f"{name} has no classes: it reads captions. Take the prompt set 'scenes', or a file.")


def _interleaved(counts: dict[str, int], seed: int) -> Iterator[Prompt]:
    """Rounds of one prompt a category, without those whose count is used up; then the same anew."""
    # All prompts of a category, shuffled anew each time they are used up.
    shuffled = {name: _shuffles(_all_texts(name), (seed, CATEGORIES.index(name))) for name in counts}
    streams = {name: chain.from_iterable(parts) for name, parts in shuffled.items()}
    while True:
        for turn in range(max(counts.values())):
            for category, wanted in counts.items():
                if turn < wanted:
                    yield Prompt(next(streams[category]), category)


def _shuffles(texts: Sequence[str], seeds: tuple[int, ...]) -> Iterator[list[str]]:
    """The texts in a new order each time."""
    for cycle in count():
        yield [texts[i] for i in np.random.default_rng((*seeds, cycle)).permutation(len(texts))]


def _all_texts(category: str) -> list[str]:
    """Every benchmark prompt of a category; their number: 6, 30, 18, 48, 120, 1680."""
    pairs = list(permutations(SHAPES, 2))
    if category == "single_object":
        return [noun_phrase(shape) for shape in SHAPES]
    if category == "two_object":
        return [f"{noun_phrase(a)} and {noun_phrase(b)}" for a, b in pairs]
    if category == "counting":
        return [noun_phrase(shape, number) for shape, number in product(SHAPES, NUMBERS)]
    if category == "colors":
        return [noun_phrase(shape, 1, (color,)) for shape, color in product(SHAPES, COLORS)]
    if category == "position":
        return [f"{noun_phrase(a)} {r} {noun_phrase(b)}" for (a, b), r in product(pairs, RELATIONS)]
    return [
        f"{noun_phrase(a, 1, (first,))} and {noun_phrase(b, 1, (second,))}"
        for (a, b), (first, second) in product(pairs, permutations(COLORS, 2))
    ]

"""What a benchmark is: prompts, images of each, where they lie, how they are scored, and the table of it."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from varlab.errors import VarlabError, cause
from varlab.markup import count as numbered
from varlab.measures.statistics import Design, Interval, clustered_interval

if TYPE_CHECKING:
    from varlab.models.base import NextScaleModel

RECORD = "benchmark.json"  # of a folder that ``varlab generate`` made: prompts, model, settings
IMAGES = "images"  # in such a folder: the official layout and nothing else
MODES = ("official", "corrected")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
SHOWN = 5  # names that a message lists


@dataclass(frozen=True)
class Item:
    """A prompt: its name in the layout, what is drawn, its category, and whatever else the benchmark knows of it."""

    id: str
    text: str
    category: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Folder:
    """Images to judge. ``home``: where ``varlab generate`` keeps its record and results lie; None of a bare folder."""

    images: Path
    home: Path | None
    record: Mapping[str, Any]

    @classmethod
    def at(cls, place: Path) -> "Folder":
        """Raises VarlabError where there is no folder, or its record cannot be read."""
        if not place.is_dir():
            raise VarlabError(f"There is no folder {place}. Give the folder of the images.")
        if not (place / RECORD).is_file():
            return cls(place / IMAGES if (place / IMAGES).is_dir() else place, None, {})
        try:
            record = json.loads((place / RECORD).read_text("utf-8"))
            for item in record["items"]:
                Item(**item)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise VarlabError(
                f"{place / RECORD} cannot be read ({cause(error)}). Generate the images again."
            ) from error
        return cls(place / IMAGES, place, record)

    @property
    def items(self) -> list[Item]:
        """The prompts that the record names; none of a bare folder."""
        return [Item(**item) for item in self.record.get("items", ())]

    def layout(self, benchmark: "Benchmark") -> tuple[int, str]:
        """Images of each prompt and the ending of their names, as drawn, else as the benchmark has them."""
        record = {"images_per_prompt": benchmark.per_prompt, "ending": benchmark.ending, **self.record}
        return int(record["images_per_prompt"]), str(record["ending"])


@dataclass(frozen=True)
class Scores:
    """``entries``: a row an image, with entry, image, category, prompt and the score; ``table``: what is reported."""

    entries: pd.DataFrame
    table: pd.DataFrame
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the results: networks, options


@dataclass(frozen=True)
class Asked:
    """What a scorer is given: the prompts, the images, the results of the model half, and how strict to be."""

    items: Sequence[Item]
    folder: Folder
    results: Path | None
    mode: str = "official"
    allow_missing: bool = False
    prompts: Path | None = None
    references: tuple[Path, ...] = ()
    scene_version: str | None = None

    @property
    def corrected(self) -> bool:
        return self.mode == "corrected"


class Benchmark(ABC):
    """One benchmark. A new one is a file with a subclass, and its name in ``benchmarks``.

    per_prompt : images of each prompt that the official code asks for.
    place : of the picture k of a prompt in the official layout, below the folder of images and without its ending.
    results : the file of the model half, by its script ``adapter`` in ``scripts``; none where varlab judges itself.
    needs : what the user's own prompt file is, where its licence forbids to ship it.
    reads_prompts : whether a user's prompt file can stand for its own prompts.
    """

    name: str
    title: str
    place = "{id}"
    per_prompt = 1
    ending = ".png"
    endings: tuple[str, ...] = (".png", ".jpg")
    results = ""
    adapter = ""
    packages: tuple[str, ...] = ()  # that the adapter imports
    needs = ""
    reads_prompts = True
    tiles = 1  # samples that one stored picture holds

    @abstractmethod
    def items(self, prompts: Path | None, model: "NextScaleModel | None" = None) -> list[Item]:
        """The prompts, of the user's file or of those that ship. Raises VarlabError where they are not here."""

    def first(self, n: int | None, prompts: Path | None, model: "NextScaleModel | None" = None) -> list[Item]:
        """The first n prompts, or all. Raises VarlabError where there are fewer."""
        found = self.items(prompts, model)
        if n is not None and n > len(found):
            raise VarlabError(
                f"{self.title} has {numbered(len(found), 'prompt')}, not {n}. Give n={len(found)} or fewer."
            )
        return found[:n]

    def paths(self, item: Item, count: int, ending: str) -> list[str]:
        """The pictures of a prompt in the official layout, below the folder of images."""
        places = [self.place.format(id=item.id, category=item.category, k=k) for k in range(count)]
        return [f"{place}{ending}" for place in dict.fromkeys(places)]

    @abstractmethod
    def score(self, asked: Asked) -> Scores:
        """The table and the score of every image. Raises VarlabError by file and line for what cannot be scored."""

    def texts(self, item: Item) -> dict[str, str]:
        """Other files of the layout: path -> content."""
        return {}

    def stored(self, samples: Sequence[Image.Image]) -> list[Image.Image]:
        """The samples of a prompt as the pictures that are stored."""
        return list(samples)

    def requires(self, options: Sequence[str]) -> tuple[str, ...]:
        """The packages that the adapter's script imports with these options of it."""
        return self.packages

    def command(self, folder: Folder, prompts: Path | None, out: Path) -> list[str]:
        """The arguments of the adapter's script."""
        return [str(folder.images), *([str(prompts)] if prompts else []), str(out)]

    def remarks(self, folder: Folder, items: Sequence[Item], prompts: Path | None) -> Iterator[str]:
        """What is wrong with a folder beyond missing, foreign and damaged files."""
        return iter(())

    def check_prompts(self, prompts: Path | None) -> None:
        """Raises VarlabError for a prompt file that this benchmark would not look at."""
        if prompts is not None and not self.reads_prompts:
            raise VarlabError(
                f"{self.title} reads no prompt file: leave --prompts out. varlab log --prompts FILE draws any prompts."
            )

    def check_count(self, per_prompt: int | None) -> None:
        """Raises VarlabError for a number of images of a prompt that the official layout has no place for."""
        if per_prompt in (None, 1, self.tiles) or len(self.paths(Item("0", ""), 2, self.ending)) > 1:
            return
        asks = "one image" if self.tiles == 1 else f"a square of {self.tiles} images, or one,"
        raise VarlabError(f"{self.title} has {asks} of each prompt, not {per_prompt}: leave --per-prompt out.")

    def require_prompts(self, prompts: Path | None) -> Path:
        """The user's prompt file. Raises VarlabError, which says what it is, where none is given or there."""
        if prompts is None:
            raise VarlabError(f"{self.title} needs {self.needs}: give it with --prompts.")
        if not prompts.exists():
            raise VarlabError(f"There is no {prompts}. {self.title} needs {self.needs}.")
        return prompts


def named(names: Sequence[str]) -> str:
    """The first of many names, and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def require_all(asked: Asked, expected: Sequence[str], found: Sequence[str], what: str = "images") -> int:
    """How many are missing. Raises VarlabError where any is, unless that is allowed, or none is there at all."""
    missing = sorted(set(expected) - set(found))
    place = asked.results or asked.folder.images
    if len(missing) == len(set(expected)):
        raise VarlabError(f"{place} holds none of the {len(missing)} {what} that are asked for, such as {missing[0]}.")
    if missing and not asked.allow_missing:
        raise VarlabError(
            f"{place} lacks {len(missing)} of {len(set(expected))} {what}: {named(missing)}. Make them, or allow it "
            "with --allow-missing; the table then says so."
        )
    return len(missing)


def rates(entries: pd.DataFrame, column: str, by_category: bool = True, n_resamples: int = 10_000) -> pd.DataFrame:
    """A row a category and one overall, their plain mean: mean of the images, 95 % over prompts, prompts, images.

    Not ``by_category``: overall is the mean of all images, and the only row.
    """
    design = Design(entries["entry"].to_numpy(), entries["category"].to_numpy() if by_category else None)
    answers = entries[column].dtype == bool  # where all are equal, as if one had been wrong and one right
    found = clustered_interval(entries[column].to_numpy(float), design, n_resamples=n_resamples, flips=answers)
    if answers:
        found = Interval(found.estimate, np.maximum(found.low, 0.0), np.minimum(found.high, 1.0))
    return pd.DataFrame({
        "measure": design.labels, "value": found.estimate, "low": found.low, "high": found.high,
        "prompts": design.prompts(), "images": design.images(),
    })  # fmt: skip


def moved(row: Mapping[Any, Any], value: float, name: str | None = None) -> dict[str, Any]:
    """A row whose estimate is the official one and no plain mean: its interval keeps its width and moves along."""
    offset = value - row["value"]
    ends = {"value": value, "low": row["low"] + offset, "high": row["high"] + offset}
    return dict(row) | ends | ({"measure": name} if name else {})


def interval_row(measure: str, found: Interval, images: int) -> dict[str, Any]:
    """A row of a measure of single images, one of each prompt."""
    ends = {"value": found.estimate, "low": found.low, "high": found.high}
    return {"measure": measure} | ends | {"prompts": images, "images": images}


def finished(
    rows: pd.DataFrame | Sequence[Mapping[Any, Any]], asked: Asked, missing: int, entries: pd.DataFrame,
    notes: Sequence[str] = (), facts: Mapping[str, Any] | None = None,
) -> Scores:  # fmt: skip
    """Scores whose table says its mode, whose weights, which seed, and how much is missing."""
    table = pd.DataFrame(rows)
    record = asked.folder.record
    table = table.assign(
        missing=missing, mode=asked.mode, spec=record.get("spec", "not stated"),
        weights=record.get("weights", "not stated"), seed=str(record.get("seed", "not stated")),
    )  # fmt: skip
    said = [f"missing: {numbered(missing, 'image')}, for which nothing stands"] if missing else []
    held = {*entries["category"]} if "category" in entries else {item.category for item in asked.items}
    if gone := sorted({item.category for item in asked.items} - held):
        said.append(f"no image of {named(gone)}: means over categories leave {'it' if len(gone) == 1 else 'them'} out")
    return Scores(entries, table, (*said, *notes), facts or {})

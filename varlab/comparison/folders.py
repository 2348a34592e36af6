"""Folders of pictures joined image by image, and refused where they do not belong together; before any work."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from varlab.comparison.layouts import Layout, Picture, by_name, read_layout
from varlab.comparison.likeness import fields_of, refuse_unlike
from varlab.comparison.pictures import check_grid, check_picture
from varlab.errors import VarlabError, quoted

OF_ONE = ("prompt", "image", "seed")  # of a picture: they pair it, and are compared as its key


class Row(NamedTuple):
    """A dense picture and its partner in each other folder."""

    dense: Picture
    others: tuple[Picture, ...]

    @property
    def category(self) -> str:
        return next((picture.category for picture in (self.dense, *self.others) if picture.category), "")


@dataclass(frozen=True)
class Set:
    """What is compared: ``rows`` in order, of ``expected`` images; what the folders are; notes for a reader."""

    rows: list[Row]
    expected: int
    kind: str
    label: str
    size: tuple[int, int]  # width and height of a sample
    formats: dict[str, list[str]]
    grid: int | None
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def labels(folders: Sequence[Path]) -> list[str]:
    """Short names that differ: as many last parts of the paths as that needs."""
    parts = [folder.absolute().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise VarlabError("A folder is given twice. Give each once, the dense run's first.")
    depth = next(n for n in range(1, 99) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-depth:]) for part in parts]


def gather(
    dense: Path, others: Sequence[Path], names: Sequence[str], grid: int | None, allow_missing: bool,
    despite: Sequence[str], elsewhere: Sequence[str] = (),
) -> Set:  # fmt: skip
    """All pictures checked and paired; ``elsewhere``: those of ``despite`` that the scores' records have. Errors: see
    ``compare_images``."""
    found, notes = alike(names, [read_layout(folder) for folder in (dense, *others)]), list[str]()
    for other in found[1:]:
        here = fields_of(despite, found[0].facts, other.facts)
        notes += unlike(found[0], other, [name for name in despite if name in here or name not in elsewhere])
    rows, expected, said = pair_up(names, found, allow_missing)
    size, formats, more = _check(names, rows, grid)
    return Set(rows, expected, found[0].kind, names[0], size, formats, grid, found[0].facts, [*notes, *said, *more])


def alike(names: Sequence[str], found: Sequence[Layout]) -> list[Layout]:
    """Layouts that can be paired. Raises VarlabError where there is no way."""
    kinds = {layout.kind for layout in found}
    if kinds == {"varlab", "flat"}:
        return [by_name(layout) if layout.kind == "varlab" else layout for layout in found]
    if len(kinds) > 1:
        shown = ", ".join(f"{name}: {layout.kind}" for name, layout in zip(names, found, strict=True))
        raise VarlabError(f"The folders have different layouts ({shown}) and cannot be paired. Bring them into one.")
    return list(found)


def unlike(dense: Layout, other: Layout, despite: Sequence[str]) -> list[str]:
    """Pictures of varlab must be of one model, with the same settings; others do not say, foreign ones cannot be."""
    if foreign := [layout.facts for layout in (dense, other) if layout.facts.get("source") == "attached"]:
        names = " and ".join(dict.fromkeys(f"{facts['model']} ({facts['module']['class']})" for facts in foreign))
        return [f"Foreign: {names}, drawn by a sampler that was attached; its random numbers and timing are not ours."]
    ours, theirs = ({k: v for k, v in layout.facts.items() if k not in OF_ONE} for layout in (dense, other))
    return refuse_unlike(ours, theirs, despite) if ours and theirs else []


def pair_up(names: Sequence[str], found: Sequence[Layout], allow_missing: bool) -> tuple[list[Row], int, list[str]]:
    """(rows, images that any has, notes). Raises VarlabError for missing partners and for other prompts."""
    every = dict.fromkeys(key for layout in found for key in layout.pictures)
    common = [key for key in found[0].pictures if all(key in layout.pictures for layout in found)]
    if len(common) < len(every) and (not allow_missing or not common):
        parts = []
        for name, layout in zip(names, found, strict=True):
            gone = [key for key in every if key not in layout.pictures]
            if gone:
                parts.append(f"{name} lacks {len(gone)}, such as image {gone[0][1]} of {quoted(gone[0][0])}")
        raise VarlabError(
            f"Of {len(every)} images {len(common)} are in all folders: {'; '.join(parts)}. Draw the missing ones, or "
            "add --allow-missing (allow_missing=True) to compare what all have."
        )
    rows = [Row(found[0].pictures[key], tuple(layout.pictures[key] for layout in found[1:])) for key in common]
    for row in rows:
        for other in row.others:
            if row.dense.prompt and other.prompt and row.dense.prompt != other.prompt:
                raise VarlabError(
                    f"{row.dense.path} and {other.path} have different prompts: {quoted(row.dense.prompt)} and "
                    f"{quoted(other.prompt)}. Compare pictures of the same prompts."
                )
    lost = len(every) - len(common)
    return (
        rows,
        len(every),
        [f"Only {len(common)} of {len(every)} images are compared: not all have the rest."] * (lost > 0),
    )


def _check(
    names: Sequence[str], rows: Sequence[Row], grid: int | None
) -> tuple[tuple[int, int], dict[str, list[str]], list[str]]:
    """(size of a sample, formats of each folder, notes): every file is opened, and those that look cut are decoded."""
    formats: dict[str, Counter[str]] = {name: Counter() for name in names}
    first: tuple[int, int] | None = None
    for row in rows:
        pictures = (row.dense, *row.others)
        checked = [check_picture(picture.path) for picture in pictures]
        for name, (_, kind) in zip(names, checked, strict=True):
            formats[name][kind] += 1
        for picture, (size, _) in zip(pictures, checked, strict=True):
            first = first or size
            if size != first:
                raise VarlabError(
                    f"{picture.path} is {size[0]} x {size[1]}, {rows[0].dense.path} is {first[0]} x {first[1]}. Draw "
                    "all at one size; resizing would change what is measured."
                )
    assert first is not None
    check_grid(rows[0].dense.path, first, grid)
    kinds = {kind for count in formats.values() for kind in count}
    notes = [] if kinds <= {"PNG", "BMP"} else ["Some pictures are JPEG or WebP, whose loss counts as a difference."]
    said = {name: [f"{n} {kind}" for kind, n in count.items()] for name, count in formats.items()}
    return (first if grid is None else (grid, grid)), said, notes

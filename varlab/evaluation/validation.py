"""Faults of a folder of images, found before it is scored: a line each, with the file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from varlab.errors import cause
from varlab.evaluation.contract import ENDINGS, Benchmark, Folder, Item

PASSED_OVER = ("grid.png", "grid.jpg")  # that official scripts write beside the samples


def faults(benchmark: Benchmark, folder: Folder, items: Sequence[Item], prompts: Path | None = None) -> list[str]:
    """What is wrong: missing, foreign, damaged or unequal images, and whatever the benchmark itself looks for.

    Every picture is read in full, about 50 a second at 1024 pixels.
    """
    expected = {path for item in items for path in benchmark.paths(item, *folder.layout(benchmark))}
    texts = {path for item in items for path in benchmark.texts(item)}
    found = {place.relative_to(folder.images).as_posix() for place in folder.images.rglob("*") if place.is_file()}
    found = {name for name in found if not Path(name).name.startswith(".")}
    lines = [*_missing(folder, expected, texts, found), *_foreign(folder, expected | texts if items else found, found)]
    lines += _damaged(folder, sorted(name for name in found if Path(name).suffix.lower() in ENDINGS))
    return list(dict.fromkeys([*lines, *benchmark.remarks(folder, items, prompts)]))


def _missing(folder: Folder, expected: set[str], texts: set[str], found: set[str]) -> Iterator[str]:
    stems = {str(Path(name).with_suffix("")): name for name in found}
    for name in sorted(expected - found):
        other = stems.get(str(Path(name).with_suffix("")))
        yield f"{folder.images / name}: missing{f'; {Path(other).name} is there' if other else ''}"
    for name in sorted(texts - found):
        yield f"{folder.images / name}: missing"


def _foreign(folder: Folder, expected: set[str], found: set[str]) -> Iterator[str]:
    for name in sorted(found - expected):
        if Path(name).name not in PASSED_OVER:
            yield f"{folder.images / name}: no file of this layout"


def _damaged(folder: Folder, pictures: Sequence[str]) -> Iterator[str]:
    """Pictures that cannot be read to their end, and those whose size is not that of most."""
    sizes: dict[str, tuple[int, int]] = {}
    for name in pictures:
        place = folder.images / name
        try:
            with Image.open(place) as picture:
                picture.load()
                sizes[name] = picture.size
        except (OSError, SyntaxError, ValueError) as error:
            yield f"{place}: damaged ({cause(error)})"
    if not sizes:
        return
    usual, _ = Counter(sizes.values()).most_common(1)[0]
    for name, size in sizes.items():
        if size != usual:
            yield f"{folder.images / name}: {size[0]} x {size[1]}, the others {usual[0]} x {usual[1]}"

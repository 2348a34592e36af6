"""The finished batches of a run as one log that is never joined in memory: values are read when they are used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from varlab.errors import VarlabError
from varlab.probes import log as logs
from varlab.probes.log import Group, Log
from varlab.runs.manifest import damaged

CHUNK = 1 << 22  # bytes of a variable that are read, and stored, together
T = TypeVar("T")


def load_part(path: Path) -> Log:
    """A finished batch. Raises VarlabError when it is damaged."""
    return _read(path, lambda: logs.load(path))


def joined_lazily(paths: Sequence[Path]) -> Log:
    """Batches one after another, large maps rounded; NaN where a batch lacks a group (it skipped a stage).

    The values are dask arrays whose chunks hold ``CHUNK`` bytes, whatever the number of prompts. Of the batches
    themselves only the numbers of their images are kept.
    Raises VarlabError for a batch that is damaged, now or when its values are asked for, and for batches whose previews
    differ in size: those of one were drawn by another version.
    """
    parts, first, sizes = [], dict[str, Path](), dict[str, Any]()
    for path in paths:
        samples, places = _read(path, lambda path=path: logs.contents(path))  # type: ignore[misc]
        parts += [(path, samples, frozenset(places))]
        for place, facts in places.items():
            first.setdefault(place, path)
            size = facts.get("preview_pixels")
            if sizes.setdefault(place, size) != size:
                former, own = (" x ".join(map(str, sides or ["no"])) for sides in (sizes[place], size))
                raise VarlabError(
                    f"{path.parent.parent} was begun with previews of {former} pixels, in {path.name} they have "
                    f"{own}: another version of varlab began it. Draw the run in another folder."
                )
    rows = tuple(row for _, samples, _ in parts for row in samples)
    joined: Log = {}
    for place, path in first.items():
        like = _read(path, lambda path=path, place=place: logs.load(path, place)[place])  # type: ignore[misc]
        held = [(path if place in places else None, len(samples)) for path, samples, places in parts]
        variables = {
            name: (dims, _lazy(Rows(f"{place}::{name}", held, (len(rows), *values.shape[1:]), values.dtype)), unit)
            for name, (dims, values, unit) in like.variables.items()
        }
        joined[place] = Group(rows, variables, like.names, like.attrs).rounded()
    return joined


def _lazy(rows: "Rows") -> Any:
    import dask.array as da

    chunks = chunk_of(rows.shape, rows.dtype.itemsize)
    return da.from_array(rows, chunks, name=False, asarray=False, fancy=False, inline_array=True)  # type: ignore[no-untyped-call]


def chunk_of(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The part of a variable that is read, and stored, together: whole rows of the first axis, in ``CHUNK`` bytes."""
    each = max(1, int(np.prod(shape[1:], dtype=np.int64)) * itemsize)
    return tuple(max(1, size) for size in (min(shape[0], CHUNK // each), *shape[1:])) if shape else ()


@dataclass(frozen=True)
class Rows:
    """One variable of all batches as dask takes it: an array that is read when it is sliced.

    ``parts``: file and number of images of each batch; no file where a batch lacks the variable.
    """

    key: str
    parts: Sequence[tuple[Path | None, int]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        head, *rest = index if isinstance(index, tuple) else (index,)
        wanted = range(self.shape[0])[head]
        rows = [wanted] if isinstance(wanted, int) else wanted
        low, high = min(rows, default=0), max(rows, default=-1) + 1
        found = self._between(low, high)[np.array(rows, dtype=int) - low]
        return found[(0 if isinstance(wanted, int) else slice(None), *rest)]

    def _between(self, low: int, high: int) -> np.ndarray:
        found = np.full((high - low, *self.shape[1:]), np.nan, self.dtype)
        start = 0
        for path, count in self.parts:
            own = slice(max(low, start), min(high, start + count))
            if path is not None and own.start < own.stop:
                inside = slice(own.start - start, own.stop - start)
                found[own.start - low : own.stop - low] = _read(path, lambda path=path: _values(path, self.key))[inside]  # type: ignore[misc]
            start += count
        return found


def _values(path: Path, key: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as stored:
        return np.asarray(stored[key])


def _read(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except FileNotFoundError as error:
        folder = path.parent.parent
        raise VarlabError(f"{folder} was finished or removed since this log was opened: open it again.") from error
    except Exception as error:  # numpy, zipfile, json and zlib have a class each for a damaged file
        raise damaged(path, error, path.parent.parent) from error

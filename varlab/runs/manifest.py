"""What a finished run consists of: files, sizes, hashes; written last, so that a log counts only when it is whole."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from varlab.errors import VarlabError
from varlab.outputs import is_whole
from varlab.writing import write_text

STORE = "log.zarr"
MANIFEST = "complete.json"


def write_manifest(folder: Path, names: Sequence[str] = (STORE, "images")) -> None:
    """Note every file of these names and folders: by default of the log, and every image."""
    files = {path.relative_to(folder).as_posix(): [path.stat().st_size, _hash(path)] for path in _files(folder, names)}
    _write(folder, files)


def _write(folder: Path, files: dict[str, list[Any]]) -> None:
    write_text(folder / MANIFEST, json.dumps({"version": 1, "files": files}))


def lost_images(folder: Path, numbers: Iterable[int]) -> list[int]:
    """Those of a run's images that are not there or cut short; read are those that are not of the manifest's size."""
    known = read_manifest(folder) or {}

    def lost(path: Path) -> bool:
        size, _ = known.get(path.relative_to(folder).as_posix(), (None, ""))
        return not path.is_file() or (path.stat().st_size != size and not is_whole(path))

    return [i for i in numbers if lost(image_path(folder, i))]


def unreadable_images(folder: Path) -> list[Path]:
    """Pictures of a run that are there and cannot be read; looks into all of them."""
    return [path for path in sorted((folder / "images").glob("[0-9]*.png")) if not is_whole(path)]


def image_path(folder: Path, i: int) -> Path:
    return folder / "images" / f"{i:06d}.png"


def note_images(folder: Path, numbers: Iterable[int]) -> None:
    """Note in a manifest the images that were drawn again; those of older versions have none."""
    if (files := read_manifest(folder)) is None:
        return
    for path in (image_path(folder, i) for i in numbers):
        files[path.relative_to(folder).as_posix()] = [path.stat().st_size, _hash(path)]
    _write(folder, files)


def read_manifest(folder: Path) -> dict[str, list[Any]] | None:
    """File -> size and sha256; None for a folder without one. Raises VarlabError when it is damaged."""
    path = folder / MANIFEST
    try:
        files: dict[str, list[Any]] = json.loads(path.read_text("utf-8"))["files"]
        return {str(name): [int(size), str(digest)] for name, (size, digest) in files.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(path, error, folder) from error


def faults(folder: Path, full: bool = False, beginning: str = "") -> list[str]:
    """What differs from the manifest, file by file: by size, or by content too, which reads everything.

    ``beginning`` limits the files looked at.
    """
    found = []
    for name, (size, digest) in (read_manifest(folder) or {}).items():
        path = folder / name
        if not name.startswith(beginning):
            continue
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != size:
            found.append(f"{name} has {path.stat().st_size} bytes, not {size}")
        elif full and _hash(path) != digest:
            found.append(f"{name} has changed")
    return found


def damaged(path: Path, why: object, folder: Path) -> VarlabError:
    """The error for a damaged file of a run folder."""
    reason = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
    first = reason.splitlines()[0]
    return VarlabError(
        f"{path} is damaged ({first}). `varlab runs repair {quote(str(folder))}` mends what it can; the same command "
        "then goes on."
    )


def _files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    for place in (folder / name for name in names):
        found = [place] if place.is_file() else sorted(place.rglob("*"))
        yield from (path for path in found if path.is_file() and not path.name.startswith("."))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

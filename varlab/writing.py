"""Files that appear only when they are whole, and whether a place can be written in."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from varlab.errors import VarlabError, cause

DRAFT = ".draft-"  # what the names of unfinished files and folders begin with
FILES = (
    ".csv", ".html", ".ipynb", ".jpeg", ".jpg", ".json", ".jsonl", ".npz", ".pdf", ".png", ".safetensors", ".svg",
    ".tsv", ".txt",
)  # fmt: skip


def draft_of(path: Path) -> Path:
    """A name beside ``path`` that no other process takes, with the same ending."""
    return path.with_name(f"{DRAFT}{os.getpid()}-{uuid4().hex[:8]}{path.suffix}")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place to write a file, which becomes ``path`` when all went well; else nothing is left or changed.

    Raises
    ------
    VarlabError: the file cannot be written, as on a full disk.
    """
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        raise VarlabError(f"{path} could not be written ({cause(error)}). What was there is unchanged.") from error
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file, whole or as it was."""
    with beside(path) as draft:
        draft.write_text(text, "utf-8")


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written in, and a new one that is named as a file.

    Makes nothing: another process may be at the same check.
    """
    if folder.suffix.lower() in FILES and not folder.exists():
        raise VarlabError(f"{folder} is named as a file, and is to be a folder. Give a name without {folder.suffix}.")
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise VarlabError(f"{folder} cannot be written in ({error.strerror}). Give another folder.") from error


def check_writable_file(file: Path, suffix: str) -> None:
    """Refuse a file whose folder cannot be made or written in, one that is a folder, and another ending.

    Makes nothing.
    """
    if file.is_dir():
        raise VarlabError(f"{file} is a folder, not a file. Give the name of a file in it.")
    if file.suffix != suffix:
        raise VarlabError(f"{file} would hold {suffix[1:].upper()}. Give a name that ends in {suffix}.")
    check_writable(file.parent)

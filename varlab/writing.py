"""Files that appear only when they are whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from varlab.errors import VarlabError

DRAFT = ".draft-"  # what the names of unfinished files and folders begin with


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
        raise VarlabError(f"{path} could not be written ({error}). What was there is unchanged.") from error
    finally:
        draft.unlink(missing_ok=True)

"""Where the code comes from, and where the files that ship with it lie: weights and prompts (``data``), and notebooks.

In a checkout they stand at its top level; a wheel carries them inside the package, where ``setup.py`` puts them.
"""

import subprocess
from functools import cache
from hashlib import sha256
from pathlib import Path

from varlab.errors import VarlabError

PACKAGE = Path(__file__).resolve().parent
INSIDE = PACKAGE / "_shipped"  # of a wheel; the same name stands in setup.py


@cache
def checkout() -> Path | None:
    """The checkout that this code runs from; None where it is installed as a package."""
    place = PACKAGE.parent
    return place if not INSIDE.is_dir() and (place / "pyproject.toml").is_file() else None


def shipped(name: str) -> Path:
    """The folder ``data`` or ``notebooks`` as it was shipped."""
    return (checkout() or INSIDE) / name


def refuse_shipped(folder: Path) -> None:
    """Refuse to write beside the files of an installed package, which its next installation would undo.

    Raises
    ------
    VarlabError
        For a folder within them; a checkout holds its own files to be changed.
    """
    if folder.resolve().is_relative_to(INSIDE):
        raise VarlabError(
            f"{folder} belongs to the installed package and is not written to. Copy it to a folder DATA/{folder.name} "
            "and set VARLAB_DATA=DATA, or work in a checkout of the repository."
        )


@cache
def code_digest() -> str:
    """Of the package's own files as they are at the process's first question."""
    return sha256(b"".join(file.read_bytes() for file in sorted(PACKAGE.rglob("*.py")))).hexdigest()


@cache
def git_state() -> str:
    """Commit of the checkout that this code runs from, ``+`` when it had changes at the process's first question.

    "installed" where it runs from no checkout, "unknown" where git does not know the checkout as a repository of its
    own, such as an unpacked archive within another repository.
    """
    place = checkout()
    if place is None:
        return "installed"
    try:
        if Path(_git(place, "rev-parse", "--show-toplevel")).resolve() != place:
            return "unknown"
        commit, changes = _git(place, "rev-parse", "--short=12", "HEAD"), _git(place, "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changes else "")


def _git(place: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=place, capture_output=True, text=True, check=True).stdout.strip()

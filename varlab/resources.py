"""Where the files that ship with varlab lie: weights and prompts (``data``), and notebooks.

In a checkout they stand at its top level; a wheel carries them inside the package, where ``setup.py`` puts them.
"""

from functools import cache
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

"""Which of the folders that a caller gives are drawn, and which are ours and hold nothing of their own to draw."""

from collections.abc import Sequence
from pathlib import Path

from varlab.errors import VarlabError
from varlab.figures.sources import sources
from varlab.outputs import CARD, RECORDS
from varlab.runs.kinds import kind_at

# What says that a folder is ours; beside records, of benchmarks, worlds, a ledger of claims and drawn figures.
SIGNS = (*RECORDS, CARD, "latency.json", "predicted.csv", "motivation.json", "claims.jsonl", "figures.json")


def sort_given(folders: Sequence[Path | str]) -> tuple[list[Path], list[Path]]:
    """(sources to draw, what is passed over): ``reports/*`` holds pages and tables beside what can be drawn.

    Raises
    ------
    VarlabError
        For what is not there or not ours, and where nothing at all can be drawn.
    """
    found: list[Path] = []
    passed: list[Path] = []
    refused: VarlabError | None = None
    for folder in map(Path, folders):
        try:
            found += sources(folder)
        except VarlabError as error:
            if not (folder.is_file() or is_ours(folder)):
                raise
            refused = refused or error
            passed.append(folder)
    if refused and not found:
        raise refused
    return found, passed


def is_ours(folder: Path) -> bool:
    """Whether varlab wrote a folder, or one of those right in it."""
    places = [folder, *(item for item in folder.glob("*") if item.is_dir())]
    return any(kind_at(place) or any((place / name).is_file() for name in SIGNS) for place in places)

"""A comparison that grows in its folder: begun, gone on with, opened again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from varlab.comparison.result import RECORD, Comparison, refuse_others
from varlab.comparison.turns import BEGUN, TURNS
from varlab.errors import VarlabError
from varlab.json_files import read_json
from varlab.locks import one_writer
from varlab.outputs import plain, read_facts, save_json
from varlab.runs.folders import is_passing
from varlab.writing import check_writable

AGAIN = "Give --overwrite to begin anew."
PASSING = ("date", "git", "versions", "notes")  # may differ when a comparison goes on


def check_place(folder: Path, asked: dict[str, Any] | None, overwrite: bool = False) -> bool:
    """Whether the comparison is there and whole. Makes nothing.

    asked: its facts; None where they are not known yet, which refuses nothing of a comparison.

    Raises
    ------
    VarlabError
        Another comparison is there, or other files, and they are not to be replaced; the folder cannot be written in.
    """
    check_writable(folder)
    finished, begun = folder / RECORD, folder / TURNS / BEGUN
    if overwrite:
        refuse_others(folder)
        return False
    if begun.is_file() and asked is not None:
        _refuse_another(folder, _as_now(read_json(begun, AGAIN)), asked)
        return False
    if finished.is_file() and asked is not None:
        _refuse_another(folder, _as_now(read_facts(finished)), asked)
        return True
    known = finished.is_file() or begun.is_file()
    if not known and folder.is_dir() and not all(is_passing(item) for item in folder.iterdir()):
        raise VarlabError(
            f"{folder} is not empty and holds no comparison. Give another place, or --overwrite (overwrite=True)."
        )
    return False


def _as_now(held: dict[str, Any]) -> dict[str, Any]:
    """Facts as they are stated now: older ones count rounds of all batches in place of the timed batches."""
    if not {"rounds", "n", "batch"} <= set(held):
        return held
    now = {name: value for name, value in held.items() if name != "rounds"}
    return now | {"timed": held["rounds"] * -(-held["n"] // held["batch"])}


def _refuse_another(folder: Path, held: dict[str, Any], asked: dict[str, Any]) -> None:
    if names := _differing(held, asked):
        raise VarlabError(
            f"{folder} holds another comparison (different: {', '.join(names)}). Give another place, or --overwrite "
            "(overwrite=True) to replace it."
        )


def _differing(held: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    wanted, there = ({"contents": {}} | facts | facts.get("compared", {}) for facts in (plain(asked), held))
    names = [name for name in dict.fromkeys((*wanted, *there)) if name not in (*PASSING, "compared")]
    return [name for name in names if there.get(name) != wanted.get(name)]


@contextmanager
def growing(folder: Path | None, facts: dict[str, Any], overwrite: bool, wait: bool) -> Iterator["Growing"]:
    """The one writer of a comparison's folder; with None, a comparison that nothing keeps."""
    if folder is None:
        yield Growing(None, facts)
        return
    check_place(folder, facts, overwrite)  # before the folder is made
    with one_writer(folder, wait=wait):
        whole, begun = check_place(folder, facts, overwrite), folder / TURNS / BEGUN
        held = _begun(begun, facts, overwrite)
        if held is None:
            shutil.rmtree(folder / TURNS, ignore_errors=True)
            if not whole:
                save_json(begun, held := plain(facts))
        yield Growing(folder, facts if held is None else held, Comparison.read(folder) if whole else None)


def _begun(path: Path, facts: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """What was begun as it is asked for; None where nothing was, or what is to be replaced."""
    if not path.is_file():
        return None
    try:
        held = _as_now(read_json(path, AGAIN))
    except VarlabError:
        if not overwrite:
            raise
        return None
    return None if _differing(held, facts) else held


class Growing:
    """``facts``: of the comparison as it was begun. ``whole``: what the folder holds, where that is all of it."""

    def __init__(self, folder: Path | None, facts: dict[str, Any], whole: Comparison | None = None) -> None:
        self.folder, self.facts, self.whole = folder, facts, whole

    @property
    def turns(self) -> Path | None:
        return None if self.folder is None else self.folder / TURNS

    def finish(self, found: Comparison) -> Comparison:
        """Saved, unless it was whole or there is no folder."""
        if self.folder is not None and self.whole is None:
            found.write(self.folder)
            (self.folder / TURNS / BEGUN).unlink()  # first: what is left of a removal that is cut is no comparison
            shutil.rmtree(self.folder / TURNS)
        return found

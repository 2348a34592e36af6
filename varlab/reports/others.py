"""What would be lost if a report were made: one of other inputs under the same name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError
from varlab.outputs import plain
from varlab.reports.cards import DRAFT
from varlab.reports.facts import as_text
from varlab.reports.notebooks import read_notebook
from varlab.reports.tidy import path_cleaner

SHOWN = 24  # letters of two values up to which both are told


def another_report(folder: Path, inputs: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What a folder holds, where that is a report of other inputs: which, and what differs; else nothing.

    ``inputs``: all that are asked for; ``given``: those that are not the notebook's own.
    """
    path = folder / f"{folder.name}.ipynb"
    if not path.is_file():
        return ""
    try:
        held = read_notebook(path).metadata.get("varlab", {}).get("parameters", {})
    except VarlabError as error:
        return f"{folder} ({str(error).rstrip('.')})"
    asked = plain(path_cleaner(folder.parent, folder / DRAFT)(inputs))
    pairs = [(key, as_text(held.get(key)), as_text(value)) for key, value in asked.items() if held.get(key) != value]
    differ = [
        f"{key} was {there} and {'is to be' if key in given else 'by default is now'} {now}"
        if len(there + now) <= SHOWN
        else key
        for key, there, now in pairs
    ]
    return f"{folder} ({', '.join(differ)})" if differ else ""


def refuse_another(*held: str) -> None:
    """Refuse to replace what ``another_report`` tells; empty texts are none."""
    if others := [text for text in held if text]:
        one = len(others) == 1
        raise VarlabError(
            f"{'A report' if one else f'{len(others)} reports'} of other inputs would be replaced: "
            f"{'; '.join(others)}. Give --overwrite (overwrite=True) to replace {'it' if one else 'them'}, or another "
            "place (--out) or name (--suffix, name=, or `name:` in a batch file)."
        )

"""What a report says about itself: model, weights, sample size, and the verdicts on the claims it checks."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from varlab.analysis.measured import Measured
from varlab.claims.verdict import Outcome, Verdict
from varlab.errors import VarlabError, quoted
from varlab.markup import together

FOLDER_VARIABLE = "VARLAB_REPORT_FOLDER"
FACTS = "facts.json"
CLAIM_FIGURE = "claim_{}"  # the figure of a report's verdict, counted from 1
TABLES = "tables"  # what figures of a report are drawn from, in a folder of the report's
VIEWER = "viewer.html"  # of kept pictures, in a folder of the report's
SHOWN_FIRST = ("model", "weights", "n", "seed", "device", "dtype")


def record(*, report_folder: Path | str | None = None, **facts: Any) -> None:
    """Add facts to the report that is being run; they appear on its page and in the index.

    Usual names: model, weights, n, seed, device, dtype, and `verdicts`, a list of `varlab.claims.Verdict`. A later
    call adds to an earlier one; a verdict on the same claim replaces the earlier one. The folder is the running
    report's unless given; a notebook opened by hand, where neither is known, writes nothing. From the first call on
    tables show whole texts as typed, and all columns.

    Errors: a verdict that is none.
    """
    verdicts = [_record(item) for item in facts.get("verdicts", ())]
    if "ipykernel" in sys.modules:
        _show_tables_as_typed()
    place = report_folder or os.environ.get(FOLDER_VARIABLE)
    if not place:
        return
    folder = Path(place)
    known = read_facts(folder)
    merged = known | facts
    merged["verdicts"] = _merge(known.get("verdicts", []), verdicts)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(merged, indent=2, ensure_ascii=False, default=_plain)
    (folder / FACTS).write_text(text + "\n", "utf-8")


def save_tables(**tables: Measured) -> None:
    """Write measured tables beside the running report, for ``varlab figures``; by hand nothing is written."""
    if place := os.environ.get(FOLDER_VARIABLE):
        for name, found in tables.items():
            found.save(Path(place) / TABLES, name)


def _show_tables_as_typed() -> None:
    """No formula between two ``$`` of a table, no text cut at 50 letters, no column left out."""
    import pandas as pd

    pd.set_option("display.html.use_mathjax", False)
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_columns", None)


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts recorded in a report's folder; none when nothing readable was recorded."""
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def claim_figure(folder: Path, row: int) -> Path | None:
    """The figure of a verdict, counted from 0."""
    path = folder / f"{CLAIM_FIGURE.format(row + 1)}.png"
    return path if path.is_file() else None


def fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts as (name, text), the usual ones first, verdicts left out."""
    names = [name for name in SHOWN_FIRST if name in facts]
    names += [name for name in facts if name not in SHOWN_FIRST and name != "verdicts"]
    return [(name, as_text(facts[name])) for name in names]


def as_text(value: Any) -> str:
    """A value as a reader wants it: lists with commas, mappings as name=value."""
    if isinstance(value, list | tuple):
        return ", ".join(as_text(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={as_text(item)}" for name, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def verdict_rows(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The verdicts as a table shows them: claim, finding, verdict, and the tone of its colour."""
    return [_row(record) for record in facts.get("verdicts", [])]


def tally(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """(verdict, tone, how many) of what ``verdict_rows`` gives, on every page in one order."""
    order = [*map(str, Outcome)]
    counted = Counter((row["verdict"], row["tone"]) for row in rows).items()
    return [(*words, n) for words, n in sorted(counted, key=lambda one: [*order, one[0][0]].index(one[0][0]))]


def _row(record: Mapping[str, Any]) -> dict[str, str]:
    try:
        verdict = Verdict.read(record)
    except ValueError:  # an older report's words
        return {**{part: str(record[part]) for part in ("claim", "finding", "verdict")}, "tone": ""}
    outcome = verdict.outcome
    return {"claim": verdict.claim, "finding": together(verdict.text), "verdict": str(outcome), "tone": outcome.tone}


def _record(item: Any) -> dict[str, Any]:
    if not isinstance(item, Verdict):
        raise VarlabError(f"verdicts takes varlab.claims.Verdict(claim, outcome, finding), not {quoted(item)}.")
    return item.record()


def _merge(known: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Earlier verdicts, then new ones; one verdict a claim, the later one."""
    return list({item["claim"]: dict(item) for item in [*known, *new]}.values())


def _plain(value: Any) -> Any:
    """A JSON value for what json does not know: numpy scalars as numbers, the rest as text."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else str(value)

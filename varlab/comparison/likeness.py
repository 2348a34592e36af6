"""In which fields two records of how something was made differ, and which of these stand in a comparison's way."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.errors import VarlabError
from varlab.outputs import plain, read_facts

ALWAYS = ("date", "key", "stage_seconds", "seconds")  # differ from run to run and decide nothing
COMPARED = (  # what is compared, and how
    "accelerators", "methods", "options", "folder", "others", "dense", "notes", "frontier", "formats", "latency",
    "margin", "expected", "spec", "compared",
)  # fmt: skip
AROUND = (  # said only
    "git", "versions", "threads", "device", "execution", "probes", "batch", "timed", "rounds", "log_version",
)  # fmt: skip
SHOWN = 60  # characters of a value
ABSENT = "-"


def differing(a: Mapping[str, Any], b: Mapping[str, Any], skip: Sequence[str] = ALWAYS) -> pd.DataFrame:
    """One row a field that differs, nested ones with dots: ``field``, ``a``, ``b``; "-" for one that is not there."""
    ours, theirs = ({name: value for name, value in plain(facts).items() if name not in skip} for facts in (a, b))
    return pd.DataFrame(list(_differences(ours, theirs, "")), columns=["field", "a", "b"])


def _differences(a: Any, b: Any, name: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _differences(a.get(key, ABSENT), b.get(key, ABSENT), f"{name}.{key}" if name else str(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) > 0:
        for i, (one, two) in enumerate(zip(a, b, strict=True)):
            yield from _differences(one, two, f"{name}[{i}]")
    elif a != b:
        yield name, _short(a), _short(b)


def _short(value: Any) -> str:
    text = f"{len(value)} of them" if isinstance(value, list) else str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def settings_diff(a: Path | str, b: Path | str) -> pd.DataFrame:
    """Every field in which two runs differ but their dates, as ``differing``.

    a, b: whatever ``varlab show`` reads: run folders, comparisons, scores, pictures, weights.
    """
    return differing(read_facts(a), read_facts(b))


def facts_of(path: Path) -> dict[str, Any]:
    """How a file or folder was made; nothing where it does not say."""
    try:
        return read_facts(path)
    except VarlabError:
        return {}


def fields_of(names: Sequence[str], *records: Mapping[str, Any]) -> list[str]:
    """Those of some names, which may lie within a field, that one of the records has."""
    return [name for name in names if any(name.partition(".")[0].partition("[")[0] in record for record in records)]


def refuse_unlike(a: Mapping[str, Any], b: Mapping[str, Any], despite: Sequence[str] = ()) -> list[str]:
    """Refuse to compare what differs in more than the method; returns notes on what may differ and does.

    Parameters
    ----------
    despite: names of fields that may differ; a name covers all within it.

    Raises
    ------
    VarlabError
        For other fields, by name and with both values, and for a name in ``despite`` that neither has.
    """
    for name in despite:
        if not fields_of([name], a, b):
            raise VarlabError(f"--despite {name}: neither has such a field. Theirs: {', '.join({**a, **b})}.")
    if not a or not b:
        return ["Not both say how they were made, so that only prompts and names were held against each other."]
    meant = {*ALWAYS, *COMPARED}
    rows = [row for row in differing(a, b).itertuples() if meant.isdisjoint(re.split(r"[.\[\]]+", row.field))]
    if wrong := [row for row in rows if not any(_within(row.field, name) for name in (*despite, *AROUND))]:
        shown = "; ".join(f"{row.field}: {row.a} and {row.b}" for row in wrong[:4])
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        names = list(dict.fromkeys(row.field.partition("[")[0] for row in wrong))
        raise VarlabError(
            f"The two differ in {shown}{more}. If that is meant, add "
            f"{' '.join(f'--despite {name}' for name in names)} (despite={names})."
        )
    return [f"They differ in {row.field}: {row.a} and {row.b}." for row in rows]


def _within(field: str, name: str) -> bool:
    return field == name or field.startswith((f"{name}.", f"{name}["))

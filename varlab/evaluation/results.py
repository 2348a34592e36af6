"""Files of the model half, read back: what is wrong with one is said by file and line."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError, quoted
from varlab.json_files import read_json


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """("FILE, line N", row) of each row of a CSV file that has these columns."""
    if not path.is_file():
        raise VarlabError(f"There is no file {path}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if missing := [name for name in columns if name not in header]:
                raise VarlabError(f"{path}, line 1: no column {', '.join(missing)}; it has {', '.join(header)}.")
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if len(row) != len(header):
                    raise VarlabError(
                        f"{place}: {len(row)} fields, the header has {len(header)}. The file was cut or damaged."
                    )
                yield place, dict(zip(header, row, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise VarlabError(f"{path}, line {reader.line_num}: {error}. The file was cut or damaged.") from None


def number(text: Any, place: str, what: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or isinstance(text, bool):
        raise VarlabError(f"{place}: {what} is {quoted(text)}, not a finite number. Compute it again.")
    return value


def whole(text: Any, place: str, what: str) -> int:
    """A number from 0."""
    if not str(text).isdecimal():
        raise VarlabError(f"{place}: {what} is {quoted(text)}, not a whole number.")
    return int(text)


def once(seen: set[Any], key: Any, place: str, what: str) -> None:
    """Refuse a key that was there before."""
    if key in seen:
        raise VarlabError(f"{place}: {what} was there before. Remove one of the two.")
    seen.add(key)


def facts_beside(path: Path, benchmark: str, versions: Sequence[str]) -> dict[str, Any]:
    """What the JSON beside a table says of it; nothing where there is none."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    facts = read_json(beside, "Write the results again.")
    return check_facts(facts, str(beside), benchmark, versions)


def check_facts(facts: Mapping[str, Any], place: str, benchmark: str, versions: Sequence[str]) -> dict[str, Any]:
    """Refuse results of another benchmark or version."""
    if facts.get("benchmark") != benchmark:
        raise VarlabError(f"{place}: results of {quoted(facts.get('benchmark'))}, not of {quoted(benchmark)}.")
    if facts.get("version") not in versions:
        raise VarlabError(
            f"{place}: results of version {quoted(facts.get('version'))}; {' or '.join(versions)} is scored here, and "
            "versions are not comparable."
        )
    return dict(facts)


def said(facts: Mapping[str, Any]) -> list[str]:
    """A note on how results were made."""
    if not facts:
        return ["how the results were made is not recorded beside them"]
    known = [f"{name} {value}" for name, value in facts.items() if name not in ("benchmark", "kind")]
    return [f"results: {', '.join(known)}"]

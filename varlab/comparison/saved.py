"""Scores read back from what was saved, so that any two of the same prompts can be paired."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from varlab.comparison.likeness import facts_of
from varlab.errors import VarlabError, cause, quoted
from varlab.json_files import read_json, read_lines

KNOWN = ("method", "name", "k", "prompt", "category")  # columns that describe an image; all others may be scores
ALIASES = {  # of other programs
    "folder": "method", "item_id": "name", "id": "name", "entry": "name", "image": "k", "tag": "category",
    "style": "category", "filename": "path", "file": "path",
}  # fmt: skip
COUNTS = ("seed", "n", "index", "turn", "images", "seconds")  # numbers that are no scores
WRITTEN = "a folder of varlab compare or compare-images, a JSON of varlab score, or a CSV or JSONL with a row an image"


@dataclass(frozen=True)
class Scores:
    """``rows``: one an image and method, with the columns ``KNOWN`` and one a measure, numbers; ``facts``: of all."""

    rows: pd.DataFrame
    facts: dict[str, Any]
    path: Path

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.rows["method"]))

    @property
    def measures(self) -> list[str]:
        """Columns of numbers that hold at least one."""
        return [name for name in self.rows if name not in KNOWN and self.rows[name].notna().any()]

    def of(self, method: str) -> pd.DataFrame:
        """The rows of one method by (name, k)."""
        return self.rows[self.rows["method"] == method].set_index(["name", "k"])


def read_scores(path: Path | str) -> Scores:
    """What was saved, whatever wrote it.

    Raises
    ------
    VarlabError
        Nothing that is known; a file that is cut or holds no scores; an image that occurs twice, with the file and
        the line.
    """
    place = Path(path)
    if not place.exists():
        raise VarlabError(f"There is no {place}. Give {WRITTEN}.")
    if place.is_dir():
        if not (place / "prompts.csv").is_file():
            raise VarlabError(f"{place} holds no prompts.csv. Give {WRITTEN}.")
        return Scores(_tidy(_csv(place / "prompts.csv"), place / "prompts.csv"), facts_of(place), place)
    readers = {".csv": _csv, ".jsonl": lambda path: pd.DataFrame([row for _, row in read_lines(path)]), ".json": _json}
    if place.suffix.lower() not in readers:
        raise VarlabError(f"{place} is no file of scores. Give {WRITTEN}.")
    return Scores(_tidy(readers[place.suffix.lower()](place), place), facts_of(place), place)


def _csv(path: Path) -> pd.DataFrame:
    try:
        text = {name: str for name in (*KNOWN, *ALIASES) if name != "k"}
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=["", "nan", "NaN"])  # ids stay text
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise VarlabError(f"{path} cannot be read as CSV ({cause(error)}).") from error


def _json(path: Path) -> pd.DataFrame:
    found = read_json(path, "The file was cut or edited.", object)
    entries = found.get("entries") if isinstance(found, dict) else found
    if not isinstance(entries, list) or not all(isinstance(row, dict) for row in entries):
        raise VarlabError(f"{path} holds no scores by image or entry. Give {WRITTEN}.")
    return pd.DataFrame(entries)


def _tidy(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The columns ``KNOWN`` and scores as numbers; an image is named by what the file tells first of name, path,
    prompt, or by its place."""
    if table.empty:
        raise VarlabError(f"{path} holds no scores: it is empty.")
    table = table.rename(columns={old: new for old, new in ALIASES.items() if old in table and new not in table})
    if "k" in table and not {"name", "path"} & {*table} and not pd.api.types.is_numeric_dtype(table["k"]):
        table = table.rename(columns={"k": "path"})  # a column "image" of files
    named = pd.DataFrame(index=table.index)
    named["method"] = table["method"].fillna("").astype(str) if "method" in table else ""
    place = table.groupby(named["method"].to_numpy()).cumcount()
    if "name" in table:
        named["name"], named["k"] = table["name"].astype(str), table["k"] if "k" in table else _k(table, "name")
    elif "path" in table:
        parts = [_of_path(text) for text in table["path"].astype(str)]
        named["name"], named["k"] = [name for name, _ in parts], [k for _, k in parts]
    else:
        named["name"], named["k"] = place.map("{:04d}".format), 0
    named["prompt"] = table["prompt"].fillna("").astype(str) if "prompt" in table else ""
    named["category"] = table["category"].fillna("").astype(str) if "category" in table else ""
    scores = dict(_numbers(table.drop(columns=[*KNOWN, *COUNTS, "path"], errors="ignore")))
    if not scores:
        raise VarlabError(f"{path} has no column of numbers, true or false. Columns: {', '.join(table)}.")
    numbers = pd.to_numeric(named["k"], errors="coerce")
    _refuse_first(named, numbers.isna() | (numbers % 1 != 0), path, "has no whole number. Give 0, 1 and so on")
    named["k"] = numbers.astype(int)
    _refuse_first(named, named.duplicated(["method", "name", "k"]), path, "was there before. Remove one")
    return named.assign(**scores)


def _refuse_first(named: pd.DataFrame, wrong: pd.Series, path: Path, says: str) -> None:
    """The first row that is wrong, by its line."""
    if wrong.any():
        row = named[wrong].iloc[0]
        line = int(np.flatnonzero(wrong)[0]) + (2 if path.suffix == ".csv" else 1)
        raise VarlabError(f"{path}, line {line}: image {row.k} of {quoted(row['name'])} {says}.")


def _k(table: pd.DataFrame, name: str) -> pd.Series:
    """Numbers of the images of a name in their order, of each method."""
    keys = [name, *(["method"] if "method" in table else [])]
    return table.groupby(keys).cumcount()


def _of_path(text: str) -> tuple[str, int]:
    """Name and number from a file: ``.../00012/samples/0003.png``, else its stem."""
    path = Path(text)
    if path.parent.name == "samples" and path.stem.isdigit():
        return path.parents[1].name, int(path.stem)
    return path.stem, 0


def _numbers(table: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    for name, column in table.items():
        if not pd.api.types.is_numeric_dtype(column):  # true and false count as numbers; with a hole they are objects
            column = column.map({True: 1.0, False: 0.0, "True": 1.0, "False": 0.0, "true": 1.0, "false": 0.0})
        if column.notna().any():
            yield str(name), column.astype(float)

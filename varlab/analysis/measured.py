"""A table with the provenance of what it was measured on: what figures of exits read, and reports keep."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.errors import VarlabError
from varlab.outputs import save_json, save_table


@dataclass(frozen=True)
class Measured:
    """``table`` and ``facts`` (model, weights, n, seed, device, dtype, ...)."""

    table: pd.DataFrame
    facts: dict[str, Any]

    def save(self, folder: Path | str, name: str) -> Path:
        """Write ``name.csv`` and ``name.json``."""
        place = Path(folder)
        save_json(place / f"{name}.json", self.facts)
        return save_table(place / f"{name}.csv", self.table, digits="%.7g")


def read_measured(folder: Path | str, name: str) -> Measured:
    """A table that ``save`` wrote, with its facts. Errors: a folder without it."""
    place = Path(folder)
    if not (place / f"{name}.csv").is_file() or not (place / f"{name}.json").is_file():
        raise VarlabError(f"There is no {name}.csv with its {name}.json in {place}.")
    return Measured(
        pd.read_csv(place / f"{name}.csv", dtype={"exits": str}), json.loads((place / f"{name}.json").read_text())
    )

"""A table with the provenance of what it was measured on: what figures of exits read, and reports keep."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from varlab.errors import VarlabError
from varlab.outputs import require_picture, save_image, save_json, save_table

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """``table`` and ``facts`` (model, weights, n, seed, device, dtype, ...).

    ``pictures``, uint8 [rows, names, H, W, 3]: of each row one for each name that the fact ``pictures`` lists.
    """

    table: pd.DataFrame
    facts: dict[str, Any]
    pictures: Pictures | None = None

    def save(self, folder: Path | str, name: str) -> Path:
        """Write ``name.csv`` and ``name.json``, and the pictures as rows of one, ``name.png``."""
        place = Path(folder)
        if self.pictures is not None:
            rows, across, height, width, _ = self.pictures.shape
            sheet = self.pictures.swapaxes(1, 2).reshape(rows * height, across * width, 3)
            save_image(place / f"{name}.png", Image.fromarray(sheet), {}, overwrite=True)
        save_json(place / f"{name}.json", self.facts)
        return save_table(place / f"{name}.csv", self.table, digits="%.7g")


def read_measured(folder: Path | str, name: str) -> Measured:
    """A table that ``save`` wrote, with its facts and pictures. Errors: a folder without it, damaged pictures."""
    place = Path(folder)
    if not (place / f"{name}.csv").is_file() or not (place / f"{name}.json").is_file():
        raise VarlabError(f"There is no {name}.csv with its {name}.json in {place}.")
    table = pd.read_csv(place / f"{name}.csv", dtype={"exits": str})
    facts = json.loads((place / f"{name}.json").read_text())
    if "pictures" not in facts:
        return Measured(table, facts)
    require_picture(place / f"{name}.png", "Make its report again: varlab report --fresh.")
    with Image.open(place / f"{name}.png") as sheet:
        rows, across = len(table), len(facts["pictures"])
        found = np.asarray(sheet).reshape(rows, sheet.height // rows, across, sheet.width // across, 3)
    return Measured(table, facts, found.swapaxes(1, 2))

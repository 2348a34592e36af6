"""What there is to load, as a list: read without torch, so that it shows at once.

The released models stand in ``catalogue.json``; a test holds it against the configurations and their modules.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError
from varlab.weights.hart_places import availability
from varlab.weights.places import checkpoint_folder, in_folder, mini_folders

CONSTANT = ".zero_k_bias"
RELEASED = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Listed:
    """A model by name. ``parameters`` are those of the transformer; ``weights`` says whether trained ones are here, and
    ``expected`` where; ``file`` and ``tokenizer_file`` are the official names."""

    name: str
    family: str = ""
    parameters: int | None = None
    stages: int | None = None
    tokens: int | None = None
    text: str = ""
    weights: str = ""
    expected: str = ""
    description: str = ""
    file: str = ""
    tokenizer_file: str = ""


def released() -> list[dict[str, Any]]:
    """The released models, without what is here of them."""
    return list(json.loads(RELEASED.read_text()))


def catalogue() -> Iterator[Listed]:
    """Every model, minis first. A mini whose folder is damaged says so in place of its sizes."""
    names = {row["name"] for row in released()}
    for name, folder in mini_folders().items():
        if name not in names:
            yield _mini(name, folder)
    for row in released():
        yield _released(Listed(**row))


def _mini(name: str, folder: Path) -> Listed:
    try:
        facts = json.loads((folder / "model.json").read_text())
        grids, tokenizer = facts["schedule"]["grids"], facts["tokenizer"]
        stride = tokenizer.get("stride") or 2 ** (len(tokenizer["multipliers"]) - 1)  # half the side a level
        side = facts["schedule"]["extent"][0] * stride
        text = "classes" if facts["family"] == "var" else "captions"
        about = f"trained on procedural scenes, {side} px, ships with varlab"
        tokens, parameters = sum(height * width for height, width in grids), _parameters(folder / "model.safetensors")
        sizes = parameters, len(grids), tokens
        return Listed(name, facts["family"], *sizes, text, "shipped", str(folder), about)
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return Listed(name, weights="damaged", description=_damage(name))


def _parameters(file: Path) -> int:
    """Of the transformer, from the header of a safetensors file; constants that older files hold are not counted."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    keys = [key for key in header if key.startswith("transformer.") and not key.endswith(CONSTANT)]
    return sum(math.prod(header[key]["shape"]) for key in keys)


def _damage(name: str) -> str:
    """What the loader says of a mini that cannot be read."""
    from varlab.weights.registry import MODELS

    try:
        MODELS[name]
    except VarlabError as error:
        return str(error)
    return "its weights are missing or damaged"


def _released(row: Listed) -> Listed:
    if not row.file:
        return replace(row, weights="not released")
    if row.family == "hart":
        whole, expected = availability(row)
    else:
        whole = all(in_folder(checkpoint_folder(), file) for file in (row.file, row.tokenizer_file))
        expected = f"{checkpoint_folder() / row.file} and {row.tokenizer_file}"
    return replace(row, weights="found" if whole else "not here", expected=expected)

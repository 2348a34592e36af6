"""A golden file: arrays that an official code produced, what it ran with, and how near one has to come.

Three forms: an ``.npz`` of arrays; a ``.json`` of canned answers; a ``.jsonl`` of canned cases, whose first line is the
header. The latter two have all but kind and tolerances in ``config``; a ``.jsonl`` has its further lines in
``config["lines"]``.
"""

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.errors import VarlabError, cause, quoted
from varlab.json_files import parse, read_text

_HEADER = ("kind", "config_json", "tolerances_json")


@dataclass(frozen=True)
class Golden:
    """``config`` says what ran, ``tolerances`` how near to come, ``arrays`` holds everything else by name."""

    path: Path
    kind: str
    config: dict[str, Any]
    tolerances: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def stored(self, name: str) -> bool:
        """Whether the file holds the array with something in it: an empty one means that it was not kept."""
        return name in self.arrays and self.arrays[name].size > 0

    def array(self, name: str) -> np.ndarray:
        """An array without which there is nothing to compute."""
        if not self.stored(name):
            raise VarlabError(
                f"{self.path.name} has no {quoted(name)} array, which every {self.kind} golden needs. Copy it again."
            )
        return self.arrays[name]

    def matching(self, pattern: str) -> list[re.Match[str]]:
        """What a pattern finds in the names that it fits in full; a list, so that arrays may be replaced meanwhile."""
        return [found for name in self.arrays if (found := re.fullmatch(pattern, name))]

    def tensor(self, name: str, shape: Sequence[int]) -> Tensor | None:
        """An array of this shape; None where the file does not hold it."""
        stored = self.arrays.get(name)
        return torch.from_numpy(stored) if stored is not None and stored.shape == tuple(shape) else None

    def require(self, name: str, config: Mapping[str, Any] | None = None) -> Any:
        """A value of the config, or of this part of it, without which the run cannot be rebuilt."""
        config = self.config if config is None else config
        if name not in config:
            raise VarlabError(
                f"{self.path.name}: config_json lacks {quoted(name)}, needed to rebuild the {self.kind} run. "
                "Write the golden again with its full configuration."
            )
        return config[name]

    def tolerance(self, name: str) -> float:
        if not isinstance(self.tolerances.get(name), int | float):
            raise VarlabError(
                f"{self.path.name}: tolerances_json gives no number for {quoted(name)} (it has "
                f"{', '.join(sorted(self.tolerances)) or 'nothing'}). State it in the golden; parity assumes none."
            )
        return float(self.tolerances[name])

    def stated(self, name: str, about: str = "") -> float:
        """A tolerance that is written in words, such as "1e-9 abs (scale 100)"; "equal" is 0.

        name: a key of the tolerances, or a name that fits a key's pattern (``*_aa*``). about: words beside which the
        number stands, where the text gives several.
        """
        texts = [
            str(text)
            for key, text in self.tolerances.items()
            if key == name or any(fnmatchcase(name, pattern.strip()) for pattern in key.split(","))
        ]
        part = next((part for text in texts for part in re.split(r"[;,]", text) if about in part), None)
        if part is None:
            raise VarlabError(
                f"{self.path.name}: its tolerances say nothing of {quoted(name)} {quoted(about)} (they name "
                f"{', '.join(sorted(self.tolerances)) or 'nothing'}). State it in the golden; parity assumes none."
            )
        words = part.replace(about, "") if about else part
        number = re.search(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])", words)
        if number is None and "equal" not in part:
            raise VarlabError(
                f"{self.path.name}: the tolerance of {quoted(name)} holds no number: {quoted(part.strip())}."
            )
        return float(number[0]) if number else 0.0


def load(path: str | Path) -> Golden:
    """Read a golden file in full, by its ending. Pickled objects are refused."""
    path = Path(path)
    if path.suffix in (".json", ".jsonl"):
        return _load_text(path)
    arrays = _read(path)
    for name in _HEADER:
        if name not in arrays:
            raise VarlabError(
                f"{path.name} has no {quoted(name)} array, so it is not a golden file. "
                f"A golden states {', '.join(_HEADER)} beside its arrays."
            )
    kind, config, tolerances = (str(arrays.pop(name)) for name in _HEADER)
    return Golden(
        path, kind, _object(path, "config_json", config), _object(path, "tolerances_json", tolerances), arrays
    )


def _load_text(path: Path) -> Golden:
    """A golden of JSON: its head names kind and tolerances."""
    _require_file(path)
    text = read_text(path, "A golden file is text in UTF-8: copy it again.")
    if path.suffix == ".json":
        head = _object(path, "the file", text)
    else:
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]  # a prompt may hold U+2028
        first, *rest = [_object(path, f"line {i}", line) for i, line in lines] or [{}]
        head = first | {"kind": first.get("golden"), "lines": rest}
    kind, tolerances = head.get("kind"), head.get("tolerances")
    if not isinstance(kind, str) or not isinstance(tolerances, dict):
        raise VarlabError(f"{path.name} states no kind and no tolerances, so it is not a golden file.")
    return Golden(path, kind, head, tolerances, {})


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise VarlabError(f"There is no golden file {path}. Give the path of a .npz, .json or .jsonl file.")


def _read(path: Path) -> dict[str, np.ndarray]:
    _require_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, AttributeError) as error:
        what = "is no .npz file, or a damaged one"
        if zipfile.is_zipfile(path):  # what numpy says of another file is advice to unpickle it
            what = f"is damaged or holds pickled objects ({cause(error)})"
        raise VarlabError(f"{path.name} {what}, so it is not a golden file. Copy or produce it again.") from error


def _object(path: Path, name: str, text: str) -> Any:
    return parse(text, f"{path.name}: {name}", "Write the golden again.")

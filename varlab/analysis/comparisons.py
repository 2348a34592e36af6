"""Comparisons of methods as tables: which rows are baselines, and a comparison read back from its folder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, Protocol

import pandas as pd
import xarray as xr
from PIL import Image

from varlab.analysis.frontier import Frontier
from varlab.errors import VarlabError
from varlab.outputs import require_picture

BASELINES = ("truncate", "cfg-off", "random-tokens", "uniform-tokens")


class Compared(Protocol):
    """What ``varlab.comparison`` returns."""

    @property
    def table(self) -> pd.DataFrame: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    @property
    def frontier(self) -> Frontier | None: ...


def family(spec: str) -> str:
    """The method of a spec; of several joined ones the whole."""
    return spec if "+" in spec else spec.partition(":")[0]


def is_baseline(spec: str, *others: str) -> bool:
    """Whether all that a spec joins leave work out blindly, or nothing; ``others`` count as well."""
    return all(family(part) in ("none", *BASELINES, *others) for part in spec.split("+"))


def read_comparison(source: Compared | Path | str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """(table, facts) of a comparison or of the folder that one was saved to."""
    if not isinstance(source, Path | str):
        return source.table, source.facts
    path = Path(source) / "comparison.json"
    if not path.is_file():
        out = quote(str(source))
        raise VarlabError(f"There is no comparison in {source}. Make one: varlab compare MODEL SPEC... --out {out}.")
    record = json.loads(path.read_text())
    return pd.DataFrame(record["rows"]).set_index("method"), record["facts"]


class SavedComparison:
    """A comparison in its folder, as figures of pictures take it; a picture is read when it is looked at."""

    def __init__(self, folder: Path | str) -> None:
        self.table, self.facts = read_comparison(folder)
        self.folder, self.names = Path(folder), [str(name) for name in self.table.index]

    @property
    def prompts(self) -> pd.DataFrame:
        """One row a prompt and method."""
        return pd.read_csv(self.folder / "prompts.csv", keep_default_na=False, na_values={"ssim": ["", "nan"]})

    @property
    def stages(self) -> dict[str, list[dict[int, Image.Image]]]:
        """By method and prompt the pictures after each stage, where they were kept."""
        found: dict[str, list[dict[int, Image.Image]]] = {}
        for row, name in enumerate(self.names):
            for file in sorted((self.folder / "previews" / f"{row:02d}").glob("*-*.png")):
                prompt, stage = map(int, file.stem.split("-"))
                kept = found.setdefault(name, [])
                kept.extend({} for _ in range(prompt + 1 - len(kept)))
                kept[prompt][stage] = Image.open(file)
        return found

    @property
    def images(self) -> Mapping[str, list[Image.Image]]:
        """By method, in the order of the prompts. Errors: a picture that is not there or damaged."""
        return _Images(self)


class _Images(Mapping[str, list[Image.Image]]):
    """Those of a method are opened when it is asked for."""

    def __init__(self, compared: SavedComparison) -> None:
        self.compared = compared

    def __len__(self) -> int:
        return len(self.compared.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.compared.names)

    def __getitem__(self, name: str) -> list[Image.Image]:
        if name not in self.compared.names:
            raise KeyError(name)
        place = self.compared.folder / "images" / f"{self.compared.names.index(name):02d}"
        files = [place / f"{i:04d}.png" for i in range(len(self.compared.facts["prompts"]))]
        for file in files:
            require_picture(file, "Make the comparison again.")
        return [Image.open(file) for file in files]


def read_frontier(source: Compared | Path | str) -> Frontier | None:
    """What the methods of a comparison, or of the folder that one was saved to, are judged by; None where it is not."""
    return Frontier.read(Path(source)) if isinstance(source, Path | str) else source.frontier


def log_of(facts: dict[str, Any]) -> xr.DataTree:
    """Provenance in the form that figures and verdicts know: a log without measurements."""
    return xr.DataTree(xr.Dataset(coords={"prompt": range(int(facts["n"]))}, attrs=facts))

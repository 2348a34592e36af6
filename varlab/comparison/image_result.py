"""What comparing folders of pictures gives: its tables, how they read, and the files they are saved in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from varlab.comparison.pairing import MEDIANS, RIGHT, Paired
from varlab.measures.differences import ROUNDING, SpectrumDifference
from varlab.measures.statistics import Design, bootstrap_interval, clustered_interval
from varlab.outputs import refuse_existing, save_json, save_table

FILES = ("comparison.csv", "comparison.json", "prompts.csv", "spectra.csv", "paired.csv")
SHOWN = {
    "psnr": ("PSNR (dB)", ".1f"), "ssim": ("SSIM", ".3f"), "ms_ssim": ("MS-SSIM", ".3f"),
    "high_frequency_ssim": ("SSIM of detail", ".3f"), "lpips": ("LPIPS", ".3f"), "dists": ("DISTS", ".3f"),
    "detail_error": ("detail error", ".3f"), "detail_gain": ("detail gain", ".3f"),
    "spectrum_db": ("spectrum (dB)", ".2f"), RIGHT: ("score", ".3f"), "speedup": ("speed-up", ".2f"),
}  # fmt: skip


@dataclass(frozen=True)
class ImageComparison:
    """``table``: one row a folder, measures with 95 % intervals over prompts; ``prompts``: one row an image and folder;
    ``pairs``: the folders against one another, as ``compare_saved`` has them; ``spectra``: by bands of frequency;
    ``facts``: how it was made."""

    table: pd.DataFrame
    prompts: pd.DataFrame
    pairs: pd.DataFrame
    spectra: pd.DataFrame
    facts: dict[str, Any]

    @property
    def paired(self) -> Paired | None:
        return Paired(self.pairs, self.facts, []) if len(self.pairs) else None

    def legend(self) -> str:
        """What the columns mean, in one paragraph."""
        facts = self.facts
        width, height = facts["size"]
        of = "" if facts["n"] == facts["expected"] else f" (of {facts['expected']})"
        return (
            f"{facts['n']}{of} images of {width} x {height}, layout {facts['layout']}; {facts['colour']}; PSNR: "
            "median, others: mean, each with a 95 % bootstrap interval over prompts; detail error and gain: energy of "
            "the Haar details of the difference and of the image, over the dense one's; spectrum: root mean square "
            f"over frequencies of the ratio of powers; dense: {facts['made']}"
        )

    def shown(self) -> Iterator[pd.DataFrame]:
        """The table as people read it, in pieces that fit a page."""
        columns = [name for name in dict.fromkeys([*SHOWN, *self.facts.get("scored", ())]) if name in self.table]
        for start in range(0, len(columns), 4):
            shown = self.table[[name for name in ("method", "origin", "n", "prompts") if name in self.table]].copy()
            for name in columns[start : start + 4]:
                title, form = SHOWN.get(name, (name, ".3f"))
                bounds = zip(*(self.table[name + end] for end in ("", "_low", "_high")), strict=True)
                shown[title] = [_cell(value, low, high, form) for value, low, high in bounds]
            yield shown

    def save(self, folder: Path | str, overwrite: bool = False) -> Path:
        """Write ``FILES``; ``compare_saved`` reads them. Raises VarlabError where one of them is, unless
        ``overwrite``."""
        place = Path(folder)
        refuse_existing(*(place / name for name in FILES), overwrite=overwrite)
        save_table(place / "comparison.csv", self.table)
        save_table(place / "prompts.csv", self.prompts)
        save_table(place / "spectra.csv", self.spectra)
        if len(self.pairs):
            save_table(place / "paired.csv", self.pairs)
        rows = json.loads(self.table.to_json(orient="records"))
        save_json(place / "comparison.json", {"facts": self.facts, "rows": rows})
        return place


def _cell(value: float, low: float, high: float, form: str) -> str:
    if np.isnan(value):
        return "-"
    known = np.isfinite(low) and low < high
    return f"{value:{form}} [{low:{form}}, {high:{form}}]" if known else f"{value:{form}}"


def summary(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row a folder: each measure with its interval; the median of PSNR, the mean of others.

    Right scenes are the plain mean of the categories', where there are any.
    """
    measures = [name for name in rows if name not in ("method", "name", "k", "prompt", "category")]
    found = []
    for method, part in rows.groupby("method", sort=False):
        row: dict[str, Any] = {"method": method, "n": len(part), "prompts": part["name"].nunique()}
        for name in measures:
            values = part[name].astype(float).to_numpy()
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), _interval(name, values, part, seed), strict=True))
        found.append(row)
    return pd.DataFrame(found)


def _interval(name: str, values: np.ndarray, part: pd.DataFrame, seed: int) -> tuple[float, float, float]:
    if np.isnan(values).all():
        return (np.nan,) * 3
    if name in MEDIANS:
        prompts = pd.Series(values).groupby(part["name"].to_numpy()).median()
        return tuple(map(float, bootstrap_interval(prompts, np.nanmedian, seed=seed)))  # type: ignore[return-value]
    categories = list(part["category"]) if name == RIGHT and part["category"].ne("").all() else None
    found = clustered_interval(values, Design(list(part["name"]), categories), seed=seed)
    return tuple(float(bound[-1]) for bound in found)  # type: ignore[return-value]


def spectrum_rows(spectrum: SpectrumDifference, edges: np.ndarray) -> np.ndarray:
    """Mean power a ring of image, reference and difference within each band, [3, bands]; NaN where no ring lies."""
    bands = np.digitize(spectrum.frequency.numpy(), edges) - 1
    inside = (bands >= 0) & (bands < len(edges) - 1)
    count = np.bincount(bands[inside], minlength=len(edges) - 1)
    parts = (part.numpy() for part in spectrum[:3])
    with np.errstate(invalid="ignore"):
        return np.stack([np.bincount(bands[inside], part[inside], len(edges) - 1) / count for part in parts])


def spectrum_table(powers: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    """From [images, 3, bands]: by band how much more power the images have, and how large the difference is, both in
    dB of the reference's with a 95 % bootstrap interval over images; the noise of 8-bit rounding is added to each."""
    there = ~np.isnan(powers).all((0, 1))  # small pictures have no ring in some bands
    image, reference, difference = (powers[:, :, there] + ROUNDING).swapaxes(0, 1)
    table = pd.DataFrame({"from": edges[:-1][there], "to": edges[1:][there], "n": len(powers)})
    for name, ratio in (("gain_db", image / reference), ("error_db", difference / reference)):
        found = bootstrap_interval(10 * np.log10(ratio))
        table[name], table[f"{name}_low"], table[f"{name}_high"] = found
    return table

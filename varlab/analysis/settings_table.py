"""Stored tables of many settings on the same prompts: ablations, and what verdicts on published numbers rest on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from varlab.analysis.comparisons import is_baseline
from varlab.errors import VarlabError, cause, unknown
from varlab.measures.statistics import bootstrap_interval, paired_shares, wilson_interval

DENSE = "none"
MEASURES = ("psnr", "ssim", "high_frequency_ssim")
NUMBERS = ("flops", "computed", *MEASURES, "correct", "hf_diff", "hf_ratio", "drop", "replace")
COLUMNS = ("spec", "prompt", *NUMBERS)
"""``flops``: of the transformer, an image. ``computed``: share of the tokens of the pruned stages. ``correct``: what
the scorer says of the picture. The rest: SkipVAR's features and decisions. Empty: does not apply."""


@dataclass(frozen=True)
class SettingsTable:
    """``rows``: one a spec and prompt, the dense run among them (``none``). ``facts``: provenance. ``digest``: 16
    hexadecimal digits of both files."""

    rows: pd.DataFrame
    facts: dict[str, Any]
    digest: str = ""

    @property
    def specs(self) -> list[str]:
        return list(self.rows.spec.unique())

    @property
    def n(self) -> int:
        return int(self.facts["n"])

    @property
    def fitted(self) -> str:
        """Whether SkipVAR's decision model was fitted on these prompts, as a sentence."""
        texts = self.facts.get("fitted", {}).get("texts")
        if texts is None:
            return "Which prompts the decision model was fitted on is not recorded: it may have been these."
        return f"None of these prompts is among the {texts} that the decision model was fitted on."

    @cached_property
    def works(self) -> pd.Series:
        """Operations of the transformer over the dense run's, by spec."""
        flops = self.rows.groupby("spec", sort=False).flops.sum()
        return flops / flops[DENSE]

    def values(self, measure: str, *specs: str) -> pd.DataFrame:
        """A measure by spec (row) and prompt (column).

        Raises
        ------
        VarlabError: a measure or spec that the table does not hold.
        """
        if measure not in NUMBERS:
            raise unknown("measure of the table", measure, NUMBERS)
        known = self.specs
        for spec in specs:
            if spec not in known:
                raise unknown("spec of the table", spec, known)
        wide = self.rows.pivot(index="spec", columns="prompt", values=measure)
        return wide.loc[list(specs or self.specs)]

    def baselines(self, measure: str = "ssim") -> pd.DataFrame:
        """Values of all that leaves work out blindly, the dense run among them."""
        return self.values(measure, *(spec for spec in self.specs if is_baseline(spec)))

    def table(self, *specs: str) -> pd.DataFrame:
        """One row a spec: n, work, computed share, fidelity and score with 95 % intervals over prompts."""
        return pd.DataFrame([self._row(spec) for spec in specs or self.specs]).set_index("spec")

    def _row(self, spec: str) -> dict[str, Any]:
        part = self.rows[self.rows.spec == spec]
        row: dict[str, Any] = {"spec": spec, "n": len(part), "work": float(self.works[spec])}
        row["computed"] = float(part.computed.mean())
        for name in ("ssim", "high_frequency_ssim"):
            row |= _ends(name, bootstrap_interval(part[name]))
        if part.correct.notna().all():
            dense = self.rows[self.rows.spec == DENSE].correct
            row |= _ends("score", wilson_interval(part.correct > 0))
            row |= _ends("score_change", paired_shares(part.correct > 0, dense > 0))
        return row


def _ends(name: str, interval: Any) -> dict[str, float]:
    return {f"{name}{end}": float(value) for end, value in zip(("", "_low", "_high"), interval, strict=True)}


def read_settings_table(folder: Path, name: str) -> SettingsTable:
    """``name.csv`` with ``name.json`` of a folder.

    Raises
    ------
    VarlabError: they are not there, or damaged: rows are missing, or a number cannot be read.
    """
    paths = folder / f"{name}.csv", folder / f"{name}.json"
    for path in paths:
        if not path.is_file():
            raise VarlabError(f"There is no {path}. varlab evidence MODEL {name} draws it.")
    try:
        rows = pd.read_csv(paths[0], keep_default_na=False, na_values=[""])
        facts: dict[str, Any] = json.loads(paths[1].read_text("utf-8"))
        check_rows(rows, facts)
    except (ValueError, KeyError, AttributeError) as error:
        raise VarlabError(
            f"{paths[0]} is damaged ({cause(error)}). Draw it again: varlab evidence, --overwrite."
        ) from error
    whole = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
    return SettingsTable(rows, facts, whole)


def check_rows(rows: pd.DataFrame, facts: Mapping[str, Any]) -> None:
    """Refuses a table without the dense run, with missing prompts, or with a fidelity that is no number."""
    if list(rows.columns) != list(COLUMNS):
        raise ValueError(f"its columns are {', '.join(rows.columns)}")
    for spec, part in rows.groupby("spec", sort=False):
        if list(part.prompt) != list(range(int(facts["n"]))):
            raise ValueError(f"prompts of {spec} are missing")
        if not np.isfinite(part[["flops", "ssim"]].to_numpy(float)).all():
            raise ValueError(f"{spec} has a value that is no number")
    if DENSE not in set(rows.spec):
        raise ValueError("the dense run is missing")

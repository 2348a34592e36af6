"""What the checks share: means over early and late stages and their names, and columns of a table with bounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from varlab.analysis.logs import (
    PROVENANCE,
    Log,
    as_log,
    early_stages,
    late_stages,
    prompt_count,
    stage_count,
    stage_range,
)
from varlab.claims.rules import number
from varlab.claims.verdict import Number, Outcome, Side, Verdict
from varlab.measures.statistics import Interval, independent_difference


def late(log: Log, values: xr.DataArray) -> npt.NDArray[np.float64]:
    """Mean over the late stages, prompt first; NaN where none of them has a value."""
    return _mean(values, late_stages(stage_count(log)))


def early(log: Log, values: xr.DataArray) -> npt.NDArray[np.float64]:
    return _mean(values, early_stages(stage_count(log)))


def late_name(log: Log) -> str:
    return stage_range(log)


def early_name(log: Log) -> str:
    return stage_range(log, early_stages(stage_count(log)))


def of_log(
    log: Log, claim: str, outcome: Outcome, finding: str, reason: str = "", numbers: Sequence[Number] = ()
) -> Verdict:
    """A verdict whose finding ends in the number of prompts."""
    return Verdict(claim, outcome, f"{finding} n = {prompt_count(log)}.", reason, tuple(numbers))


def _mean(values: xr.DataArray, stages: Sequence[int]) -> npt.NDArray[np.float64]:
    chosen = values.sel(stage=list(stages)).mean("stage", skipna=True)
    return chosen.transpose("prompt", ...).values.astype(float)


def source(log: Log) -> dict[str, Any]:
    """What numbers of a log were measured on, as files keep it: model, weights, device, settings, n."""
    return source_of({**{str(name): fact for name, fact in as_log(log).attrs.items()}, "n": prompt_count(log)})


def source_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same from the facts of a measured table, for ``Verdict.of``."""
    return {name: facts[name] for name in (*PROVENANCE, "settings", "n") if name in facts}


def column(row: pd.Series, name: str) -> Number:
    """A column of a row of n values, with its bounds from ``name_low`` and ``name_high``."""
    estimate, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return Number(name, estimate, low, high, int(row.n))


def column_rise(
    about: str, row: pd.Series, other: pd.Series, name: str, reference: float = 0.0, supports: Side = Side.ABOVE
) -> Number:
    """A column of a row less that of another; the rows are taken as independent."""
    one, two = (column(each, name) for each in (row, other))
    intervals = (Interval(each.estimate, each.low, each.high) for each in (one, two))
    return number(about, independent_difference(*intervals), min(one.n, two.n), 0.0, reference, supports)

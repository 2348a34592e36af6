"""What the checks of a log share: means over early and late stages, and how stages are named."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from varlab.analysis.logs import Log, early_stages, late_stages, prompt_count, stage_count, stage_range
from varlab.claims.verdict import Number, Outcome, Verdict


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

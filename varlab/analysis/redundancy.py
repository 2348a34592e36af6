"""Tables of steps: how close a preview is to the last one, and what each stage costs."""

import numpy as np
import pandas as pd
import xarray as xr

from varlab.analysis.logs import Log, as_log, summaries, summary, variable
from varlab.measures.statistics import wilson_interval

PROBE = "step-redundancy"
SIMILARITY = ("ssim", "high_frequency_ssim", "psnr")
ENOUGH = 0.88  # the SSIM that SkipVAR reports to keep on average


def similarity_table(log: Log) -> pd.DataFrame:
    """Preview after a stage against the last: stage, measure (ssim, high_frequency_ssim, psnr), mean, low, high, n.

    PSNR in dB; that of equal images is infinite and left out (see n).
    """
    return summaries("measure", {measure: variable(log, PROBE, measure) for measure in SIMILARITY})


def energy_left_table(log: Log) -> pd.DataFrame:
    """|f_K - f_k|² / |f_K|² of the latent canvas f: stage, mean, low, high, n."""
    return summary(variable(log, PROBE, "energy_left"))


def stage_cost_table(log: Log) -> pd.DataFrame:
    """Shares of a whole image: stage, cost (FLOP, time), mean, low, high, n.

    FLOPs are counted by the ledger (without decoding). Time is that of passes of at most four images without probes
    on the logging machine; its mean is the median pass, low and high the extremes of the n passes. Without times:
    FLOPs only.
    """
    flops = variable(log, PROBE, "flops").mean("prompt")
    share = (flops / flops.sum("stage")).values
    table = pd.DataFrame({"stage": flops["stage"].values, "cost": "FLOP", "mean": share, "low": np.nan, "high": np.nan})
    table["n"] = int(variable(log, PROBE, "flops").sizes["prompt"])
    seconds = as_log(log).attrs.get("stage_seconds")
    if not seconds:
        return table
    shares = np.array(seconds) / np.sum(seconds, axis=1, keepdims=True)
    columns = {"mean": np.median(shares, 0), "low": shares.min(0), "high": shares.max(0), "n": len(shares)}
    times = pd.DataFrame({"stage": table["stage"], "cost": "time", **columns})
    return pd.concat([table, times], ignore_index=True)


def step_redundancy_table(log: Log) -> pd.DataFrame:
    """Similarity and cost together: stage, measure, mean, low, high, n."""
    cost = stage_cost_table(log).rename(columns={"cost": "measure"})
    cost["measure"] = cost["measure"] + " share"
    return pd.concat([similarity_table(log), cost], ignore_index=True)


def saturated(log: Log, enough: float = ENOUGH) -> xr.DataArray:
    """First stage [prompt] from which on the preview's SSIM to the last stays at ``enough`` or above."""
    ssim = variable(log, PROBE, "ssim")
    short = (ssim < enough).transpose("prompt", "stage")
    last_short = (short * short["stage"]).max("stage")
    return (last_short + 1).rename("saturated")


def saturation_table(log: Log, enough: float = ENOUGH) -> pd.DataFrame:
    """By stage: mean SSIM with interval, share of prompts saturated by then with Wilson's, FLOPs and time to come."""
    table = summary(variable(log, PROBE, "ssim"))
    first = saturated(log, enough)
    shares = [wilson_interval((first <= k).values) for k in table["stage"]]
    table[["saturated", "saturated_low", "saturated_high"]] = [(one.estimate, one.low, one.high) for one in shares]
    for cost, rows in stage_cost_table(log).groupby("cost", sort=False):
        table[f"{cost}_left"] = 1 - rows["mean"].cumsum().values / rows["mean"].sum()
    return table

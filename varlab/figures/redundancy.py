"""Steps: what each stage costs and how close the picture already is to the final one."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.figures.logs import Log, as_log, stage_count, summary, variable
from varlab.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    PAGE,
    RED,
    SKY,
    figure_of,
    finish,
    line,
    own_axes,
    panels,
    reference,
    stage_axis,
    theme,
)

PROBE = "step-redundancy"
SIMILARITY = {"ssim": ("picture", BLUE, "o"), "high_frequency_ssim": ("its detail", RED, "s")}
ENOUGH = 0.88  # the SSIM that SkipVAR reports to keep on average


# --- what a stage gives -------------------------------------------------------------------------------------


def similarity_table(log: Log) -> pd.DataFrame:
    """Preview after a stage against the last: stage, measure (ssim, high_frequency_ssim, psnr), mean, low, high, n.

    PSNR in dB; that of equal images is infinite and left out (see n).
    """
    parts = []
    for measure in (*SIMILARITY, "psnr"):
        part = summary(variable(log, PROBE, measure))
        part.insert(1, "measure", measure)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


@theme()
def similarity(log: Log, ax: Axes | None = None) -> Axes:
    """How close is the picture after each stage to the final one? SSIM of the picture and of its detail."""
    table = similarity_table(log)
    table = table[table["measure"] != "psnr"].reset_index(drop=True)
    ax = own_axes(ax, 3.5, 2.7)
    for measure, (label, colour, marker) in SIMILARITY.items():
        line(ax, table[table["measure"] == measure], "stage", label, colour, marker)
    reference(ax, ENOUGH, f"{ENOUGH:g}", "left")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set_ylim(min(0, table["low"].min(), table["mean"].min()), 1.02)
    ax.set_ylabel("SSIM")
    ax.set_title("Similarity to the final preview")
    ax.legend()
    finish(ax, log, "similarity", table)
    return ax


@theme()
def psnr(log: Log, ax: Axes | None = None) -> Axes:
    """How close in decibels? The last stage has no error and no point."""
    table = similarity_table(log)
    table = table[table["measure"] == "psnr"].reset_index(drop=True)
    ax = own_axes(ax, 3.5, 2.7)
    line(ax, table, "stage", "PSNR", GREEN, "^")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set_ylabel("PSNR (dB)")
    ax.set_title("PSNR to the final preview")
    finish(ax, log, "psnr", table)
    return ax


def energy_left_table(log: Log) -> pd.DataFrame:
    """|f_K - f_k|² / |f_K|² of the latent canvas f: stage, mean, low, high, n."""
    return summary(variable(log, PROBE, "energy_left"))


@theme()
def energy_left(log: Log, ax: Axes | None = None) -> Axes:
    """How much of the latent is still to come after each stage?"""
    table = energy_left_table(log)
    ax = own_axes(ax, 3.5, 2.7)
    line(ax, table, "stage", "latent energy left", GREEN, "D")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set_ylim(bottom=0)
    ax.set_ylabel("share of latent energy")
    ax.set_title("Latent energy still to come")
    finish(ax, log, "energy_left", table)
    return ax


# --- what a stage costs -------------------------------------------------------------------------------------


def stage_cost_table(log: Log) -> pd.DataFrame:
    """Shares of a whole image: stage, cost (FLOP, time), mean, low, high, n.

    FLOPs are counted by the ledger (without decoding). Time is that of passes without probes on the logging
    machine; its mean is the median pass, low and high the extremes of the n passes. Without times: FLOPs only.
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


@theme()
def stage_cost(log: Log, ax: Axes | None = None) -> Axes:
    """What does each stage cost? Its share of the FLOPs and of the measured time of an image."""
    table = stage_cost_table(log)
    ax = own_axes(ax, 3.5, 2.7)
    costs = list(table.groupby("cost", sort=False))
    for i, ((cost, rows), colour) in enumerate(zip(costs, (SKY, ORANGE), strict=False)):
        x = rows["stage"] + 0.38 * (i - (len(costs) - 1) / 2)
        ax.bar(x, rows["mean"], 0.36, color=colour, label=str(cost), zorder=2)
        ax.vlines(x, rows["low"], rows["high"], color="#444444", lw=0.9, zorder=3)
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set_xlim(0.4, stage_count(log) + 0.6)
    ax.set_ylabel("share of an image's cost")
    ax.set_title("Cost of a stage")
    ax.legend(loc="upper left")
    finish(ax, log, "stage_cost", table)
    return ax


def step_redundancy_table(log: Log) -> pd.DataFrame:
    """Similarity and cost together: stage, measure, mean, low, high, n."""
    cost = stage_cost_table(log).rename(columns={"cost": "measure"})
    cost["measure"] = cost["measure"] + " share"
    return pd.concat([similarity_table(log), cost], ignore_index=True)


@theme()
def step_redundancy(log: Log) -> Figure:
    """Which stages cost much and change little? Similarity to the final preview, PSNR, and cost, side by side."""
    axes = panels(3, width=PAGE, height=2.5)
    similarity(log, axes[0])
    psnr(log, axes[1])
    stage_cost(log, axes[2])
    return figure_of(axes[0])


# --- saturation ---------------------------------------------------------------------------------------------


def saturated(log: Log, enough: float = ENOUGH) -> xr.DataArray:
    """First stage [prompt] from which on the preview's SSIM to the last stays at ``enough`` or above."""
    ssim = variable(log, PROBE, "ssim")
    short = (ssim < enough).transpose("prompt", "stage")
    last_short = (short * short["stage"]).max("stage")
    return (last_short + 1).rename("saturated")


def saturation_table(log: Log, enough: float = ENOUGH) -> pd.DataFrame:
    """By stage: mean SSIM with interval, share of prompts saturated by then, share of FLOPs and time still to come."""
    table = summary(variable(log, PROBE, "ssim"))
    first = saturated(log, enough)
    table["saturated"] = [float((first <= k).mean()) for k in table["stage"]]
    for cost, rows in stage_cost_table(log).groupby("cost", sort=False):
        table[f"{cost}_left"] = 1 - rows["mean"].cumsum().values / rows["mean"].sum()
    return table


@theme()
def saturation(log: Log, enough: float = ENOUGH, ax: Axes | None = None) -> Axes:
    """Which share of the pictures is done after a stage, and which share of the cost is still to come?"""
    table = saturation_table(log, enough)
    ax = own_axes(ax, 3.5, 2.7)
    ax.plot(table["stage"], table["saturated"], "s-", color=BLUE, label=f"pictures with SSIM ≥ {enough:g}")
    for name, colour in (("FLOP_left", SKY), ("time_left", ORANGE)):
        if name in table:
            ax.plot(table["stage"], table[name], "o-", color=colour, label=f"{name.removesuffix('_left')} to come")
    stage_axis(ax, log, range(1, stage_count(log) + 1))
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("share")
    ax.set_title("Pictures done and cost to come")
    ax.legend()
    finish(ax, log, "saturation", table)
    return ax

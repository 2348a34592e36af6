"""Tables of blocks: how much each changes its tokens, through which guidance_row, and whether it does so on edges.

Values are the mean of the conditional and the unconditional row unless ``guidance_row`` names one of them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from varlab.analysis.controls import token_edges
from varlab.analysis.logs import (
    Images,
    Log,
    both_rows,
    dataset,
    grids,
    has_images,
    late_stages,
    names,
    pick,
    stage_count,
    summary,
    variable,
)

PROBE = "token-mse"


def block_token_mse_table(log: Log, sublayer: str = "block", guidance_row: str = "both") -> pd.DataFrame:
    """Mean squared change of a token over the mean square of the input: stage, block, mean, low, high, n.

    ``sublayer`` is the whole block or one of its sublayers (attention, cross, ffn).
    """
    return summary(both_rows(pick(variable(log, PROBE, "relative_mse"), sublayer=sublayer), guidance_row))


def step_change_table(log: Log) -> pd.DataFrame:
    """Squared distance of a block's output to its own output one stage earlier, resized, over its mean square.

    Conditional row; columns stage, block, mean, low, high, n.
    """
    return summary(variable(log, PROBE, "relative_step_mse"))


def sublayer_split_table(log: Log, guidance_row: str = "both", stages: Sequence[int] | None = None) -> pd.DataFrame:
    """Relative change by each sublayer of a block, mean over the late stages: block, sublayer, mean, low, high, n."""
    values = both_rows(variable(log, PROBE, "relative_mse"), guidance_row)
    sublayers = [sublayer for sublayer in names(values, "sublayer") if sublayer != "block"]
    chosen = values.sel(stage=list(stages or late_stages(stage_count(log)))).mean("stage")
    parts = [summary(pick(chosen, sublayer=sublayer)).assign(sublayer=sublayer) for sublayer in sublayers]
    return pd.concat(parts, ignore_index=True)[["block", "sublayer", "mean", "low", "high", "n"]]


def edge_correlations(log: Log, sublayer: str = "block", guidance_row: str = "both") -> xr.DataArray:
    """[prompt, stage, block]; for both rows that of their mean map, not the mean of two correlations."""
    if guidance_row == "both":
        return pick(variable(log, PROBE, "edge_correlation_rows"), sublayer=sublayer)
    return pick(variable(log, PROBE, "edge_correlation"), sublayer=sublayer, guidance_row=guidance_row)


def block_edge_correlation_table(
    log: Log, images: Images = None, sublayer: str = "block", guidance_row: str = "both"
) -> pd.DataFrame:
    """Rank correlation of a block's change of each token with the edges at that token.

    Columns: stage, block, mean, low, high, n; chance (bound within which 95 % of such means fall when tokens
    are ranked at random) and, where the images are found, other (mean with other prompts' edges).
    """
    values = edge_correlations(log, sublayer, guidance_row)
    pairs = token_edges(log, images, sublayer, guidance_row) if has_images(log, images) else None
    table = summary(values)
    table["chance"] = [_chance(log, k, n) for k, n in zip(table["stage"], table["n"], strict=True)]
    if pairs is not None:
        other = summary(pairs["other"])[["stage", "block", "mean"]]
        table = table.merge(other.rename(columns={"mean": "other"}), on=["stage", "block"])
    return table


def _chance(log: Log, stage: int, n: int) -> float:
    """1.96 standard deviations of the mean of n rank correlations of unrelated cells."""
    sides = grids(log)
    cells = sides[stage - 1][0] * sides[stage - 1][1] if sides else 0
    return float("nan") if cells < 2 or n < 1 else float(1.96 / np.sqrt((cells - 1) * n))


def poster_blocks(log: Log) -> list[int]:
    """The blocks at the depth of those that SparseVAR's poster shows, 16 and 21 of 32, counted from 1."""
    depth = int(dataset(log, "token-mse").sizes["block"])
    return [max(1, round(depth * block / 32)) for block in (16, 21)]


def extreme_blocks(log: Log, sublayer: str = "block", guidance_row: str = "both") -> list[int]:
    """The blocks with the largest and the smallest mean correlation with edges at the late stages.

    First and last where none was measured.
    """
    values = edge_correlations(log, sublayer, guidance_row)
    means = values.sel(stage=late_stages(stage_count(log))).mean(["prompt", "stage"])
    if means.isnull().all():
        return [int(means["block"][0]), int(means["block"][-1])]
    return [int(means.idxmax("block")), int(means.idxmin("block"))]

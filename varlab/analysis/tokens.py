"""Tables of blocks: how much each changes its tokens, through which branch, and whether it does so on edges.

Values are the mean of the conditional and the unconditional row unless ``branch`` names one of them.
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


def block_token_mse_table(log: Log, site: str = "block", branch: str = "both") -> pd.DataFrame:
    """Mean squared change of a token over the mean square of the input: stage, block, mean, low, high, n.

    ``site`` is the whole block or one of its branches (attention, cross, ffn).
    """
    return summary(both_rows(pick(variable(log, PROBE, "relative_mse"), site=site), branch))


def step_change_table(log: Log) -> pd.DataFrame:
    """Squared distance of a block's output to its own output one stage earlier, resized, over its mean square.

    Conditional row; columns stage, block, mean, low, high, n.
    """
    return summary(variable(log, PROBE, "relative_step_mse"))


def branch_split_table(log: Log, branch: str = "both", stages: Sequence[int] | None = None) -> pd.DataFrame:
    """Relative change by each branch of a block, mean over the late stages: block, site, mean, low, high, n."""
    values = both_rows(variable(log, PROBE, "relative_mse"), branch)
    sites = [site for site in names(values, "site") if site != "block"]
    chosen = values.sel(stage=list(stages or late_stages(stage_count(log)))).mean("stage")
    parts = [summary(pick(chosen, site=site)).assign(site=site) for site in sites]
    return pd.concat(parts, ignore_index=True)[["block", "site", "mean", "low", "high", "n"]]


def edge_correlations(log: Log, site: str = "block", branch: str = "both") -> xr.DataArray:
    """[prompt, stage, block]; for both rows that of their mean map, not the mean of two correlations."""
    if branch == "both":
        return pick(variable(log, PROBE, "edge_correlation_rows"), site=site)
    return pick(variable(log, PROBE, "edge_correlation"), site=site, branch=branch)


def block_edge_correlation_table(
    log: Log, images: Images = None, site: str = "block", branch: str = "both"
) -> pd.DataFrame:
    """Rank correlation of a block's change of each token with the edges at that token.

    Columns: stage, block, mean, low, high, n; chance (bound within which 95 % of such means fall when tokens
    are ranked at random) and, where the images are found, other (mean with other prompts' edges).
    """
    values = edge_correlations(log, site, branch)
    pairs = token_edges(log, images, site, branch) if has_images(log, images) else None
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


def extreme_blocks(log: Log, site: str = "block", branch: str = "both") -> list[int]:
    """The blocks with the largest and the smallest mean correlation with edges at the late stages.

    First and last where none was measured.
    """
    values = edge_correlations(log, site, branch)
    means = values.sel(stage=late_stages(stage_count(log))).mean(["prompt", "stage"])
    if means.isnull().all():
        return [int(means["block"][0]), int(means["block"][-1])]
    return [int(means.idxmax("block")), int(means.idxmin("block"))]

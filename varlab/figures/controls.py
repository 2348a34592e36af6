"""Edges of an image against edges of the other prompts' images: what of a correlation is place, not picture.

Objects lie near the middle, so a block (or a change) that favours the middle meets edges in any image. What is
found with an image's own edges counts only as far as it goes beyond that.

Every function returns ``own`` and ``other`` (mean over the other prompts, NaN for a single one), both from the
logged maps of at most 32 cells a side; the probes' own figures come from the whole maps.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from varlab.figures.logs import Images, Log, dataset, edges, images_of, pick, stage_count

Pairs = Callable[[np.ndarray, np.ndarray], np.ndarray]  # maps [n, cells], edges [n, cells] -> [n maps, n images]


def token_edges(log: Log, images: Images = None, site: str = "block", branch: str = "both") -> xr.Dataset:
    """Spearman correlation of a block's change of each token with edges: own and other [prompt, stage, block]."""
    pictures, stages = images_of(log, images), []
    for k in range(1, stage_count(log) + 1):
        maps = pick(dataset(log, f"token-mse/stage-{k:02d}")["mse"], site=site)
        rows = maps if branch == "both" else pick(maps, branch=branch).expand_dims("branch")
        stages.append(_rows_against(rows, pictures).assign_coords(stage=k))
    return xr.concat(stages, "stage").transpose("prompt", "stage", "block")


def _rows_against(maps: xr.DataArray, pictures: np.ndarray) -> xr.Dataset:
    """Of maps [prompt, block, branch, y, x]: the mean over rows, as the log's own correlations are averaged."""
    blocks = []
    for b in range(maps.sizes["block"]):
        rows = [_against(maps.isel(block=b, branch=r), pictures, correlations) for r in range(maps.sizes["branch"])]
        blocks.append(xr.concat(rows, "branch").mean("branch"))
    return xr.concat(blocks, maps["block"])


def energy_edges(log: Log, images: Images = None, source: str = "preview change", shares: bool = True) -> xr.Dataset:
    """Of a source's energy, the share on the quarter of the cells with the largest edges: own, other [prompt, stage].

    ``shares=False`` gives the Spearman correlation instead.
    """
    pictures, name = images_of(log, images), "energy" if source == "contribution" else "energy_preview"
    pairs = quarter_shares if shares else correlations
    stages = [
        _against(dataset(log, f"residual-spectrum/stage-{k:02d}")[name], pictures, pairs).assign_coords(stage=k)
        for k in range(1, stage_count(log) + 1)
    ]
    return xr.concat(stages, "stage").transpose("prompt", "stage")


def _against(maps: xr.DataArray, pictures: np.ndarray, pairs: Pairs) -> xr.Dataset:
    """Maps [prompt, y, x] against the edges of all images."""
    maps = maps.transpose("prompt", ...)
    lines = edges(pictures, (maps.shape[1], maps.shape[2])).reshape(len(pictures), -1)
    table = pairs(maps.values.reshape(len(pictures), -1).astype(float), lines.astype(float))
    off_diagonal = np.where(np.eye(len(table), dtype=bool), 0, table).sum(1) / max(1, len(table) - 1)
    other = off_diagonal if len(table) > 1 else np.full(1, np.nan)
    coordinates = {"prompt": maps["prompt"].values}
    return xr.Dataset({"own": ("prompt", np.diag(table).copy()), "other": ("prompt", other)}, coordinates)


def correlations(maps: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Spearman correlation of every map with every image's edges; 0 where a map or an image is constant."""
    return _ranks(maps) @ _ranks(lines).T


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rows as average ranks, centred, of length 1: a product of two is their Spearman correlation."""
    from scipy.stats import rankdata

    centred = rankdata(values, axis=1, nan_policy="propagate")
    centred = centred - centred.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def quarter_shares(maps: np.ndarray, lines: np.ndarray, quarter: float = 0.25) -> np.ndarray:
    """Share of every map's energy on the quarter of the cells with an image's largest edges.

    As ``varlab.metrics.concentration``: cells tied at the cut share what is left of the quarter.
    """
    cells = lines.shape[1]
    cut = np.sort(lines, 1)[:, [cells - int(np.ceil(quarter * cells))]]
    above, tied = lines > cut, lines == cut
    weight = above + tied * (quarter * cells - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
    return maps / maps.sum(1, keepdims=True) @ weight.T

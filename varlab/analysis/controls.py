"""Edges of an image against edges of the other prompts' images: what of a correlation is place, not picture.

Objects lie near the middle, so a block (or a change) that favours the middle meets edges in any image. What is
found with an image's own edges counts only as far as it goes beyond that.

Every function returns ``own`` and ``other`` (mean over the other prompts, NaN for a single one), both from the
logged maps of at most 32 cells a side; the probes' own figures come from the whole maps.
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from varlab.analysis.logs import Images, Log, both_rows, dataset, edges, images_of, pick, stage_count
from varlab.measures.stored import concentrations, rank_correlations

Pairs = Callable[[np.ndarray, np.ndarray], np.ndarray]  # maps [n, cells], edges [n, cells] -> [n maps, n images]


def token_edges(log: Log, images: Images = None, sublayer: str = "block", guidance_row: str = "both") -> xr.Dataset:
    """Spearman correlation of a block's change of each token with edges: own and other [prompt, stage, block]."""
    pictures, stages = images_of(log, images), []
    for k in range(1, stage_count(log) + 1):
        maps = pick(dataset(log, f"token-mse/stage-{k:02d}")["mse"], sublayer=sublayer)
        maps = both_rows(maps, guidance_row).load()  # of a stage once, not for each block
        lines = _edges(maps, pictures)
        blocks = [_against(maps.isel(block=b), lines, rank_correlations) for b in range(maps.sizes["block"])]
        stages.append(xr.concat(blocks, maps["block"]).assign_coords(stage=k))
    return xr.concat(stages, "stage").transpose("prompt", "stage", "block")


def energy_edges(log: Log, images: Images = None, source: str = "preview change", shares: bool = True) -> xr.Dataset:
    """Of a source's energy, the share on the quarter of the cells with the largest edges: own, other [prompt, stage].

    ``shares=False`` gives the Spearman correlation instead.
    """
    pictures, name = images_of(log, images), "energy" if source == "contribution" else "energy_preview"
    pairs = concentrations if shares else rank_correlations
    stages = []
    for k in range(1, stage_count(log) + 1):
        maps = dataset(log, f"residual-spectrum/stage-{k:02d}")[name]
        stages.append(_against(maps, _edges(maps, pictures), pairs).assign_coords(stage=k))
    return xr.concat(stages, "stage").transpose("prompt", "stage")


def _edges(maps: xr.DataArray, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Edges of all images on the grid of the maps [n, cells]."""
    return edges(pictures, (maps.shape[-2], maps.shape[-1])).reshape(len(pictures), -1)


def _against(maps: xr.DataArray, lines: np.ndarray, pairs: Pairs) -> xr.Dataset:
    """Maps [prompt, y, x] against the edges of all images."""
    maps = maps.transpose("prompt", ...)
    table = pairs(maps.values.reshape(len(lines), -1).astype(float), lines.astype(float))
    others = np.isfinite(table) & ~np.eye(len(table), dtype=bool)  # a picture without edges ranks nothing
    count = others.sum(1)
    other = np.where(count > 0, np.where(others, table, 0).sum(1) / np.maximum(1, count), np.nan)
    coordinates = {"prompt": maps["prompt"].values}
    return xr.Dataset({"own": ("prompt", np.diag(table).copy()), "other": ("prompt", other)}, coordinates)

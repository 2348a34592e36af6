"""Edges of an image against edges of the other prompts' images: what of a correlation is place, not picture.

Objects lie near the middle, so a block (or a change) that favours the middle meets edges in any image. What is
found with an image's own edges counts only as far as it goes beyond that.

Every function returns ``own`` and ``other`` (mean over the other prompts, NaN for a single one), both from the
logged maps of at most 32 cells a side; the probes' own figures come from the whole maps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from varlab.analysis.logs import Images, Log, both_rows, dataset, edges, images_of, pick, stage_count

Pairs = Callable[[np.ndarray, np.ndarray], np.ndarray]  # maps [n, cells], edges [n, cells] -> [n maps, n images]
LARGEST = 2**24  # values of all pairs held at once


def token_edges(log: Log, images: Images = None, sublayer: str = "block", guidance_row: str = "both") -> xr.Dataset:
    """Spearman correlation of a block's change of each token with edges: own and other [prompt, stage, block]."""
    pictures, stages = images_of(log, images), []
    for k in range(1, stage_count(log) + 1):
        maps = pick(dataset(log, f"token-mse/stage-{k:02d}")["mse"], sublayer=sublayer)
        maps = both_rows(maps, guidance_row).load()  # of a stage once, not for each block
        lines = _edges(maps, pictures)
        blocks = [_against(maps.isel(block=b), lines, correlations) for b in range(maps.sizes["block"])]
        stages.append(xr.concat(blocks, maps["block"]).assign_coords(stage=k))
    return xr.concat(stages, "stage").transpose("prompt", "stage", "block")


def energy_edges(log: Log, images: Images = None, source: str = "preview change", shares: bool = True) -> xr.Dataset:
    """Of a source's energy, the share on the quarter of the cells with the largest edges: own, other [prompt, stage].

    ``shares=False`` gives the Spearman correlation instead.
    """
    pictures, name = images_of(log, images), "energy" if source == "contribution" else "energy_preview"
    pairs = quarter_shares if shares else correlations
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


def correlations(maps: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Spearman correlation of every map with every image's edges; NaN where a map or an image is constant."""
    from varlab.measures.metrics import spearman  # waits for torch, as all of this file

    return _every_pair(spearman, maps, lines)


def quarter_shares(maps: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Share of every map's energy on the quarter of the cells with an image's largest edges."""
    from varlab.measures.metrics import concentration

    return _every_pair(concentration, maps, lines)


def _every_pair(measure: Callable[..., Any], maps: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """The measure of every map [m, cells] with every line [n, cells]: [m, n], in parts of bounded memory."""
    import torch

    step = max(1, LARGEST // lines.size)
    edge_rows = torch.from_numpy(lines)[None]
    parts = [measure(part[:, None], edge_rows) for part in torch.from_numpy(maps).split(step)]
    return torch.cat(parts).double().numpy()

"""Measures of stored pictures and maps as numpy arrays, so that figures of a log are drawn without torch.

The definitions are those of ``metrics``, ``edges`` and ``spectra``; a test holds the two to each other.
"""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.floating]


def edge_energy(images: Array, grid: tuple[int, int]) -> Array:
    """Sobel magnitude of the luma of images [n, H, W, 3], resized by area to ``grid``: [n, h, w]."""
    padded = np.pad(images @ np.array([0.299, 0.587, 0.114], images.dtype), ((0, 0), (1, 1), (1, 1)), "edge")
    smooth_y = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smooth_x = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    magnitude = np.hypot(smooth_y[..., 2:] - smooth_y[..., :-2], smooth_x[:, 2:] - smooth_x[:, :-2])
    rows, columns = (_area(*sizes) for sizes in zip(magnitude.shape[1:], grid, strict=True))
    return rows @ magnitude @ columns.T


def _area(size: int, cells: int) -> Array:
    """[cells, size]: the mean over what a cell covers; cells share a border that neither divides."""
    first, end = np.arange(cells) * size // cells, -(-np.arange(1, cells + 1) * size // cells)
    places = np.arange(size)
    inside = (places >= first[:, None]) & (places < end[:, None])
    return inside / inside.sum(1, keepdims=True)


def rank_correlations(maps: Array, lines: Array) -> Array:
    """Spearman's correlation of every map [m, cells] with every line [n, cells]: [m, n]; NaN for a constant one."""
    with np.errstate(invalid="ignore"):
        one, other = _unit_ranks(maps), _unit_ranks(lines)
    return np.clip(one @ other.T, -1, 1)


def _unit_ranks(values: Array) -> Array:
    ranks = pd.DataFrame(values.T).rank().to_numpy().T  # ties at their average rank
    centred = ranks - ranks.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).sum(-1, keepdims=True))


def concentrations(energy: Array, edges: Array, quarter: float = 0.25) -> Array:
    """Share of the energy of every map [m, cells] on the ``quarter`` of the cells with most edges [n, cells]: [m, n].

    Equal edges at the cut share what is left.
    """
    cells = edges.shape[-1]
    cut = np.sort(edges, -1)[:, [cells - math.ceil(round(quarter * cells, 9))]]
    above, tied = edges > cut, edges == cut
    with np.errstate(invalid="ignore"):
        weight = above + tied * (quarter * cells - above.sum(-1, keepdims=True)) / tied.sum(-1, keepdims=True)
        weight[np.isnan(edges).any(-1)] = np.nan
        return energy @ weight.T / energy.sum(-1, keepdims=True)


def radial_power(maps: Array) -> tuple[Array, Array]:
    """Mean power [..., rings] of maps [..., H, W] by ring, and the rings' frequencies in cycles per sample."""
    height, width = maps.shape[-2:]
    side = max(height, width)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)).round(12)
    ring = np.floor(radius.ravel() * side + 0.5).astype(int)
    power = np.abs(np.fft.fft2(maps, norm="ortho")).reshape(-1, ring.size) ** 2
    bins = np.bincount(ring)
    means = np.stack([np.bincount(ring, each) for each in power]) / bins
    return means.reshape(*maps.shape[:-2], len(bins)), np.arange(len(bins)) / side

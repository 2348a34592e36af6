"""Measures of stored pictures without torch: the same values as those that the probes log."""

import numpy as np
import pytest
import torch

from varlab.measures import metrics, spectra, stored


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (3, 4)])
def test_edges_are_those_of_the_probes(grid: tuple[int, int]) -> None:
    images = np.random.default_rng(0).random((2, 16, 12, 3)).astype(np.float32)
    wanted = metrics.edge_energy(torch.from_numpy(images).movedim(-1, 1), grid)
    np.testing.assert_allclose(stored.edge_energy(images, grid), wanted, rtol=1e-5)


def test_spectra_are_those_of_the_probes() -> None:
    maps = np.random.default_rng(1).standard_normal((3, 10, 14)).astype(np.float32)
    for found, wanted in zip(stored.radial_power(maps), spectra.radial_power(torch.from_numpy(maps)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_an_empty_or_constant_map_has_neither_a_rank_nor_a_share() -> None:
    flat, lines = np.zeros((1, 6)), np.arange(12.0).reshape(2, 6)
    assert np.isnan(stored.rank_correlations(flat, lines)).all()
    assert np.isnan(stored.concentrations(flat, lines)).all()
    assert np.isnan(stored.concentrations(lines, np.full((1, 6), np.nan))).all()

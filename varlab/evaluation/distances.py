"""How far two sets of images lie apart in a feature space: Frechet distance, precision and recall, with intervals."""

from typing import NamedTuple

import numpy as np

from varlab.errors import VarlabError
from varlab.statistics import Interval, bootstrap_interval

NEIGHBOURS = 3


class Moments(NamedTuple):
    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Of features [n, d], n above d: fewer give a covariance without full rank and distances that n alone explains."""
    if features.ndim != 2 or len(features) <= features.shape[1]:
        raise VarlabError(
            f"A Frechet distance over {features.shape[-1]} features needs more images than that, not {len(features)}."
        )
    return Moments(features.mean(0), np.cov(features, rowvar=False))


def frechet(a: Moments, b: Moments) -> float:
    """|mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)), the squared Wasserstein distance of two Gaussians."""
    values, vectors = np.linalg.eigh(a.covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    between = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b.covariance @ root), 0, None)).sum()
    shift = float(((a.mean - b.mean) ** 2).sum())
    return shift + float(np.trace(a.covariance) + np.trace(b.covariance) - 2 * between)


def frechet_interval(
    features: np.ndarray, reference: np.ndarray, resamples: int = 200, seed: int = 0, level: float = 0.95
) -> Interval:
    """Distance of features [n, d] to those of real images, with a bootstrap interval over images of both sets.

    The interval is the basic one (twice the estimate minus the quantiles): a resampled set is poorer than the set, and
    its distance therefore too large. The distance itself is biased upwards at any n: compare equal n alone.
    """
    return frechet_difference(features, None, reference, resamples, seed, level)


def frechet_difference(
    a: np.ndarray,
    b: np.ndarray | None,
    reference: np.ndarray,
    resamples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Distance of a minus that of b, whose row i is the same class and seed; None stands for a distance of 0."""
    if b is not None and a.shape != b.shape:
        raise VarlabError(f"Pairs need equal shapes, not {a.shape} and {b.shape}.")

    def value(rows: np.ndarray, real: np.ndarray) -> float:
        against = moments(reference[real])
        found = frechet(moments(a[rows]), against)
        return found if b is None else found - frechet(moments(b[rows]), against)

    rng = np.random.default_rng(seed)
    estimate = value(np.arange(len(a)), np.arange(len(reference)))
    draws = [
        value(rng.integers(len(a), size=len(a)), rng.integers(len(reference), size=len(reference)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, 2 * estimate - high, 2 * estimate - low)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances [n, m]."""
    found = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.clip(found, 0, None))


def covered(points: np.ndarray, manifold: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Whether each point lies within the distance of some manifold point to its k-th neighbour [n], boolean."""
    radii = np.partition(_squared(manifold, manifold), neighbours, axis=1)[:, neighbours]
    return np.asarray((_squared(points, manifold) <= radii).any(1))


def precision_recall(features: np.ndarray, reference: np.ndarray, seed: int = 0) -> tuple[Interval, Interval]:
    """Share of the images among the real ones' neighbourhoods, and the reverse; intervals over images, the
    neighbourhoods as they are. Source: Kynkaanniemi et al. (arXiv 1904.06991), k = 3; equal n for comparisons."""
    precision = bootstrap_interval(covered(features, reference), np.mean, seed=seed)
    return precision, bootstrap_interval(covered(reference, features), np.mean, seed=seed)

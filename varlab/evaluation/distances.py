"""How far two sets of images lie apart in a feature space: Frechet distance, precision and recall, with intervals."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from varlab.errors import VarlabError
from varlab.evaluation.scattering import FEATURES
from varlab.measures.statistics import Interval, wilson_interval

NEIGHBOURS = 3


class Moments(NamedTuple):
    mean: Tensor
    covariance: Tensor


def check_enough(n: int, features: int = FEATURES) -> None:
    """Refuse so few images that their covariance lacks full rank, and that n alone explains their distances."""
    if n <= features:
        raise VarlabError(f"A Frechet distance over {features} features needs more images than that, not {n}.")


def moments(features: np.ndarray) -> Moments:
    """Of features [n, d], n above d."""
    check_enough(len(features), features.shape[1])
    rows = torch.from_numpy(features)
    return Moments(rows.mean(0), torch.cov(rows.T))


def root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def frechet(a: Moments, b: Moments, root_b: Tensor | None = None) -> float:
    """|mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)), the squared Wasserstein distance of two Gaussians."""
    half = root(b.covariance) if root_b is None else root_b
    between = torch.linalg.eigvalsh(half @ a.covariance @ half).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * between)


class FrechetSpace:
    """Distances to one set of real images, each with its bootstrap draws.

    Rows of both sets are drawn with replacement, the same for every set of images that is judged: those whose row i is
    the same class and seed are thus paired, and the draws of a difference are the differences of the draws.
    """

    def __init__(self, real: np.ndarray, resamples: int = 200, seed: int = 0) -> None:
        self.real, self.resamples, self.seed = real, resamples, seed
        whole = moments(real)
        self.known = [(whole, root(whole.covariance))]
        for i in range(resamples):
            drawn = moments(real[self._rows(i, 1, len(real))])
            self.known.append((drawn, root(drawn.covariance)))

    def _rows(self, draw: int, which: int, n: int) -> np.ndarray:
        return np.random.default_rng((self.seed, draw, which)).integers(n, size=n)

    def draws(self, features: np.ndarray) -> np.ndarray:
        """[1 + resamples]: the distance of features [n, d], then that of each draw."""
        found = [frechet(moments(features), *self.known[0])]
        for i, known in enumerate(self.known[1:]):
            found.append(frechet(moments(features[self._rows(i, 0, len(features))]), *known))
        return np.array(found)


def covered(points: np.ndarray, manifold: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Whether each point lies within the distance of some manifold point to its k-th neighbour [n], boolean."""
    own, real = torch.from_numpy(points), torch.from_numpy(manifold)
    radii = torch.cdist(real, real).kthvalue(neighbours + 1, dim=1).values  # the first neighbour is the point itself
    return (torch.cdist(own, real) <= radii).any(1).numpy()


def precision_recall(features: np.ndarray, reference: np.ndarray) -> tuple[Interval, Interval]:
    """Share of the images among the real ones' neighbourhoods, and the reverse; Wilson intervals over images, the
    neighbourhoods as they are. Source: Kynkaanniemi et al. (arXiv 1904.06991), k = 3; equal n for comparisons."""
    return wilson_interval(covered(features, reference)), wilson_interval(covered(reference, features))

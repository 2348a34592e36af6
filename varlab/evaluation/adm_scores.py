"""FID, IS, precision and recall of features, as OpenAI's ADM evaluator computes them, and in float64; and KID.

Features [n, d] are Inception's pooled ones, or for sFID its spatial ones; logits [n, classes] are those that its
softmax is taken of. The official code is github.com/openai/guided-diffusion, evaluations/evaluator.py.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from varlab.errors import VarlabError
from varlab.evaluation.distances import Moments, frechet, root
from varlab.measures.statistics import Interval, effects_interval

SPLIT = 5000  # images of a part of the inception score
NEIGHBOURS = 3  # of precision and recall
BLOCK = 10_000  # points whose distances are taken at a time
PACKET, LEAF = 8, 200  # of sums in half precision: numbers that are added at once, packets of a part
KID_MOST = 10_000  # images of each set that the kernel distance looks at: time grows with their square

Array = npt.NDArray[Any]


class Statistics(NamedTuple):
    """As the evaluator computes them: mu [d] in the features' own precision, sigma [d, d] in float64, over n - 1."""

    mu: Array
    sigma: Array


def statistics(features: Array) -> Statistics:
    """Mean and covariance of features [n, d]. Raises VarlabError for fewer than two rows, or one that is not finite."""
    if features.ndim != 2 or len(features) < 2:
        raise VarlabError(f"Statistics need features [n, d] of at least two images, not an array {features.shape}.")
    if not np.isfinite(features).all():
        raise VarlabError("The features hold NaN or infinities. Extract them again.")
    return Statistics(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def fid(a: Statistics, b: Statistics) -> float:
    """The Frechet distance; the means' distance is taken in their own precision, as officially.

    A covariance without full rank has a square root too, so none is shifted. Slightly negative for equal sets.
    """
    mu_a, mu_b = np.atleast_1d(a.mu), np.atleast_1d(b.mu)
    if mu_a.shape != mu_b.shape:
        raise VarlabError(f"The two sets have {mu_a.size} and {mu_b.size} features: give those of one network.")
    offset = mu_a - mu_b
    still = torch.zeros(mu_a.size, dtype=torch.float64)
    first, second = (Moments(still, torch.from_numpy(np.atleast_2d(s.sigma).astype(np.float64))) for s in (a, b))
    return float(offset.dot(offset)) + frechet(first, second)


def inception_score(logits: Array, split: int = SPLIT, corrected: bool = False) -> Interval:
    """Mean over parts of ``split`` images, the last one shorter, of exp(KL of class probabilities to their mean).

    Officially in float32, where a probability that underflows to 0 makes it NaN; corrected in float64 with 0 log 0 = 0.
    Interval by the first-order effect of each image on its part; for the score *at this n*, as that of FID.
    """
    probabilities = torch.softmax(torch.from_numpy(logits).to(torch.float64 if corrected else torch.float32), 1).numpy()
    scores, effects = [], []
    for first in range(0, len(probabilities), split):
        part = probabilities[first : first + split]
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = part * (np.log(part) - np.log(np.expand_dims(np.mean(part, 0), 0)))
        if corrected:
            terms = np.where(part == 0, 0.0, terms)
        gains = np.sum(terms, 1)  # of an image: the KL of its classes to the mean
        scores.append(np.exp(np.mean(gains)))
        effects.append(scores[-1] * (gains - np.mean(gains)) / len(part))
    moves = np.concatenate(effects) * len(probabilities) / len(scores)
    return effects_interval(float(np.mean(scores)), moves)


class Manifold:
    """A set's points with the squared distance of each to its k-th neighbour.

    Officially distances are in half precision, in blocks, each of them in float32 where half overflows; ``corrected``
    takes float64.
    """

    def __init__(
        self,
        features: Array,
        neighbours: int = NEIGHBOURS,
        corrected: bool = False,
        blocks: tuple[int, int] = (BLOCK, BLOCK),
    ) -> None:
        if len(features) <= neighbours:
            raise VarlabError(f"{neighbours} neighbours need more points than that, not {len(features)}.")
        self.features, self.corrected, self.blocks = features, corrected, blocks
        near = [np.partition(far, neighbours, axis=1)[:, neighbours] for far in self._distances(features)]
        self.radii = np.concatenate(near)  # [n]

    def _distances(self, points: Array) -> Iterator[Array]:
        """Squared distances [n, m] of blocks of points to all of the set."""
        rows, columns = ([x[i : i + size] for i in range(0, len(x), size)]
                         for x, size in zip((points, self.features), self.blocks, strict=True))  # fmt: skip
        for row in rows:
            yield np.concatenate([distances(row, column, self.corrected) for column in columns], axis=1)

    def holds(self, points: Array) -> Array:
        """Whether each of other points lies within the radius of some point here [n], boolean."""
        return np.concatenate([(far <= self.radii).any(1) for far in self._distances(points)])


def distances(a: Array, b: Array, corrected: bool = False) -> Array:
    """Squared distances [n, m]: in float64, or officially in half precision and, where that overflows, in float32."""
    if corrected:
        return np.asarray(torch.cdist(_as(a, torch.float64), _as(b, torch.float64)).square())
    half = _half_distances(_as(a, torch.float16), _as(b, torch.float16))
    if bool(half.isfinite().all()):
        return half.float().numpy()
    x, y = _as(a, torch.float32), _as(b, torch.float32)
    return (x.square().sum(1, keepdim=True) - 2 * (x @ y.T) + y.square().sum(1)).clamp(min=0).numpy()


def _as(values: Array, kind: torch.dtype) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(kind)


def _half_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a|^2 - 2 a b + |b|^2 in half precision as TensorFlow rounds it on a CPU: the product once, the rest stepwise."""
    product = (a.float() @ b.float().T).half()
    return (_half_sums(a.square())[:, None] - 2 * product + _half_sums(b.square())).clamp(min=0)


def _half_sums(values: Tensor) -> Tensor:
    """Sums of rows [n, d] in Eigen's order: packets of ``PACKET`` in two accumulators, the last one in float32.

    Rows of more than ``LEAF`` packets are cut in two at a packet's end, and what fills no packet is added one by one.
    """
    n, width = values.shape
    if width > PACKET * LEAF:
        cut = PACKET * -(-(width // 2 + width % 2) // PACKET)
        return _half_sums(values[:, :cut]) + _half_sums(values[:, cut:])
    paired, whole = width // (2 * PACKET) * 2 * PACKET, width // PACKET * PACKET
    first, second = torch.zeros(2, n, PACKET, dtype=torch.float16)
    for start in range(0, paired, 2 * PACKET):
        first = first + values[:, start : start + PACKET]
        second = second + values[:, start + PACKET : start + 2 * PACKET]
    first = first + second
    if whole > paired:
        first = first + values[:, paired:whole]
    rest = torch.zeros(n, dtype=torch.float16)
    for column in range(whole, width):
        rest = rest + values[:, column]
    return rest + first.float().sum(1).half()


def precision_recall(real: Manifold, drawn: Manifold) -> tuple[float, float]:
    """The share of drawn points within the real ones' balls, and the reverse."""
    return float(real.holds(drawn.features).mean()), float(drawn.holds(real.features).mean())


def kid(features: Array, real: Array, most: int = KID_MOST, seed: int = 0) -> Interval:
    """The kernel distance of Binkowski et al. (arXiv 1801.01401), unbiased, kernel (a b / d + 1)^3.

    Of all images, or of ``most`` of each set without replacement; the mean over random subsets, which others report,
    estimates the same. Interval by leaving out each drawn image (jackknife), the real ones as they are.
    """
    drawn = np.random.default_rng(seed)
    a, b = (_as(x if len(x) <= most else x[drawn.choice(len(x), most, replace=False)], torch.float64)
            for x in (features, real))  # fmt: skip
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise VarlabError("A kernel distance needs at least two images of each set.")
    own, across = _kernel_sums(a, a) - _kernel(a, a), _kernel_sums(a, b)
    other = float((_kernel_sums(b, b) - _kernel(b, b)).sum()) / (m * (m - 1))
    estimate = float(own.sum()) / (n * (n - 1)) + other - 2 * float(across.sum()) / (n * m)
    without = (own.sum() - 2 * own) / ((n - 1) * max(n - 2, 1)) + other - 2 * (across.sum() - across) / ((n - 1) * m)
    return effects_interval(estimate, ((n - 1) * (without.mean() - without)).numpy())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Of pairs of rows [n]."""
    return ((a * b).sum(1) / a.shape[1] + 1) ** 3


def _kernel_sums(a: Tensor, b: Tensor, block: int = 1000) -> Tensor:
    """Of each row of a [n, d] with all of b [m, d]: [n]."""
    return torch.cat([((part @ b.T / a.shape[1] + 1) ** 3).sum(1) for part in a.split(block)])


def fid_interval(features: Array, real: Statistics, level: float = 0.95) -> Interval:
    """(estimate, low, high) of FID over drawn images, the real ones as they are.

    By the first-order effect of each image on the distance (infinitesimal jackknife): what a bootstrap of images would
    spread, at the cost of one decomposition. For FID *at this n*, which lies above that of endless sets. With fewer
    images than features it is too wide rather than too narrow.
    """
    own = statistics(features)
    estimate = fid(own, real)
    half = root(torch.from_numpy(np.atleast_2d(real.sigma).astype(np.float64)))
    values, vectors = torch.linalg.eigh(half @ torch.from_numpy(own.sigma) @ half)
    inverse = torch.where(values > values[-1] * 1e-10, values.clamp(min=1e-300).rsqrt(), 0.0)
    slope = torch.eye(len(half), dtype=torch.float64) - half @ (vectors * inverse @ vectors.T) @ half
    centred = torch.from_numpy(features.astype(np.float64) - own.mu)
    mean = torch.from_numpy((own.mu - np.atleast_1d(real.mu)).astype(np.float64))
    effects = 2 * centred @ mean + (centred @ slope * centred).sum(1)
    return effects_interval(estimate, effects.numpy(), level)

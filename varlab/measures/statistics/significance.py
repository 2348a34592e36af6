"""Whether two sets of paired scores differ, or are equal within a margin."""

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are used

from varlab.errors import VarlabError

EXACT = 16  # contributions up to which all signs are tried
BLOCK = 2**22  # signs at a time: 32 MiB


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test (1947): are wrong-to-right and right-to-wrong flips equally likely?

    The pairs must be independent: one image a prompt. 1 where nothing flips.
    """
    flips = gained + lost
    return float(scipy.stats.binomtest(gained, flips).pvalue) if flips else 1.0


def sign_flip(contributions: npt.ArrayLike, n_resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of a permutation test of the sum of independent contributions [n], one a prompt.

    Without a difference the two sides of a prompt may be exchanged, which turns the sign of its contribution with all
    its images. All signs are tried up to ``EXACT`` contributions that are not 0, else ``n_resamples`` drawn ones with
    the given one among them (Phipson and Smyth 2010). With answers of one image a prompt it is McNemar's test.
    """
    parts = np.asarray(contributions, dtype=np.float64)
    if not np.isfinite(parts).all():
        raise VarlabError("A permutation test needs finite differences; some are NaN or infinite.")
    parts = parts[parts != 0]
    if not len(parts):
        return 1.0
    limit = abs(parts.sum()) - 1e-12 * np.abs(parts).sum()
    if len(parts) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(parts))[:, None] >> np.arange(len(parts))) & 1)
        return float((np.abs(signs @ parts) >= limit).mean())
    rng, hits, step = np.random.default_rng(seed), 1, max(1, BLOCK // len(parts))
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start), len(parts)
        sums = (1 - 2.0 * rng.integers(0, 2, size=size, dtype=np.int8)) @ parts
        hits += int((np.abs(sums) >= limit).sum())
    return hits / (n_resamples + 1)


def equivalence(difference: float, error: float, freedom: float, margin: float) -> float:
    """p of two one-sided t-tests (Schuirmann 1987): small where the difference lies within (-margin, margin).

    ``error`` is the standard error of the difference, ``freedom`` its degrees of freedom. The 90 % interval lies
    within the margin where p is below .05.
    """
    if not margin > 0:
        raise VarlabError(f"A margin of equivalence is positive, not {margin}.")
    if error == 0:
        return 0.0 if abs(difference) < margin else 1.0
    return float(scipy.stats.t.sf((margin - abs(difference)) / error, freedom))


def holm(p: npt.ArrayLike) -> np.ndarray:
    """p values [n] adjusted for their number (Holm 1979); NaN stay so and count for nothing."""
    given = np.asarray(p, dtype=np.float64)
    adjusted, order = given.copy(), np.argsort(given)[: int((~np.isnan(given)).sum())]
    scaled = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted

"""How sure a mean over prompts is: bootstrap intervals, of values and of paired differences."""

import warnings
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are used

from varlab.errors import VarlabError

FEWEST = 6
"""Least values of an interval: of 5, even the span from smallest to largest misses the median one time in 16."""
BLOCK = 2**22  # values resampled at a time: 32 MiB


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval: floats, or arrays of the values' shape [1:]."""

    estimate: Any
    low: Any
    high: Any


def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Callable[..., Any] = np.nanmean,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """(estimate, low, high) of a statistic of values [n, ...] over axis 0, in the values' own unit.

    Percentile bootstrap (Efron and Tibshirani 1993, chapter 13): whole rows are drawn with replacement, the
    same for all columns. `statistic(sample, axis)` must leave NaN out itself, as `np.nanmean` and
    `np.nanmedian` do. The bounds are NaN where fewer than two values are there; the estimate too where there
    is none. An infinite value (the PSNR of identical images) makes a mean infinite: take the median, whose upper
    bound may be infinite. Errors: no row, a level outside (0, 1).
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 0 or len(rows) == 0:
        raise VarlabError("An interval needs values [n, ...] with n of at least 1; there are none.")
    if not 0 < level < 1 or n_resamples < 1:
        raise VarlabError(f"level must be in (0, 1) and n_resamples positive, not {level} and {n_resamples}.")
    drawn = np.random.default_rng(seed).integers(len(rows), size=(n_resamples, len(rows)))
    per_block = max(1, BLOCK // max(1, rows.size))
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice": NaN is the answer
        estimate = np.asarray(statistic(rows, axis=0))
        starts = range(0, n_resamples, per_block)
        blocks = [statistic(rows[drawn[start : start + per_block]], axis=1) for start in starts]
        _, low, high = quantile_interval(estimate, np.concatenate(blocks), level)
    enough = (~np.isnan(rows)).sum(0) >= 2
    return Interval(estimate[()], np.where(enough, low, np.nan)[()], np.where(enough, high, np.nan)[()])


def quantile_interval(estimate: Any, draws: np.ndarray, level: float = 0.95) -> Interval:
    """The estimate with percentile bounds of bootstrap draws [n, ...]; NaN among these are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a column without a number: NaN is the answer
        ends = (1 - level) / 2, (1 + level) / 2
        low, high = np.nanquantile(draws, ends, axis=0)
        if np.isinf(draws).any():  # between two infinite draws, and beside one, numpy finds NaN: take the outer draw
            outer = (np.nanquantile(draws, ends[0], axis=0, method="lower"),
                     np.nanquantile(draws, ends[1], axis=0, method="higher"))  # fmt: skip
            low, high = (np.where(np.isnan(x), y, x)[()] for x, y in zip((low, high), outer, strict=True))
    return Interval(estimate, low, high)


def centred_interval(draws: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of a distance, or of a difference of two, from [estimate, draws...].

    Bias-corrected bootstrap: a resampled set holds doubles and lies further away than the set itself, by much where n
    is little above the number of features, so the draws are moved until their mean is the estimate, and only their
    spread counts. It is an interval for the distance *at this n*, which is itself above that of endless sets: compare
    equal n alone.
    """
    low, high = np.quantile(draws[1:] - draws[1:].mean(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(draws[0]), float(draws[0] + low), float(draws[0] + high))


def effects_interval(estimate: float, effects: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Interval of a statistic that is no mean, from how far each of its n images moves it [n].

    The effects are first derivatives (infinitesimal jackknife), or n - 1 times what leaving an image out changes
    (jackknife); their standard deviation over sqrt(n) is the standard error. Bounds are NaN below three images.
    """
    values = np.asarray(effects, dtype=np.float64)
    if len(values) < 3:
        return Interval(estimate, np.nan, np.nan)
    width = NormalDist().inv_cdf((1 + level) / 2) * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(estimate, estimate - width, estimate + width)


def student_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """(estimate, low, high) of the mean of values [n], by Student's t: for the few trainings of a recipe.

    It takes the values for normal, and in return holds with two or three of them, which a bootstrap does not. Bounds
    are NaN for one value. Raises VarlabError without a value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not numbers.size:
        raise VarlabError("A mean needs at least one value; there are none.")
    mean = float(numbers.mean())
    if numbers.size < 2:
        return Interval(mean, np.nan, np.nan)
    width = float(scipy.stats.t.ppf((1 + level) / 2, numbers.size - 1) * numbers.std(ddof=1)) / numbers.size**0.5
    return Interval(mean, mean - width, mean + width)


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    statistic: Callable[..., Any] = np.nanmean,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`bootstrap_interval` of a - b, where row i of both [n, ...] has the same prompt and seed.

    Bounds on one side of 0 speak for a real difference. A pair with a NaN is left out, and so is one of two
    equal infinities. Errors: shapes that differ, and those of `bootstrap_interval`.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise VarlabError(f"Pairs need equal shapes, not {first.shape} and {second.shape}.")
    with np.errstate(invalid="ignore"):
        difference = first - second
    return bootstrap_interval(difference, statistic, level, n_resamples, seed)


def wilson_interval(hits: npt.ArrayLike, level: float = 0.95) -> Interval:
    """(estimate, low, high) of the share of true values in hits [n].

    Wilson's score interval (1927): unlike a bootstrap it keeps its width where all or none are true. Raises
    VarlabError without a value.
    """
    flags = np.asarray(hits, dtype=bool).ravel()
    if not flags.size:
        raise VarlabError("A share needs at least one value; there are none.")
    n, share, z = flags.size, float(flags.mean()), NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def independent_difference(a: Interval, b: Interval) -> Interval:
    """(estimate, low, high) of a - b from the intervals of two independent estimates.

    Square-and-add (MOVER: Newcombe 1998, Zou and Donner 2008); where the two share prompts or seeds it is too wide.
    """
    difference = float(a.estimate - b.estimate)
    below = np.hypot(a.estimate - a.low, b.high - b.estimate)
    above = np.hypot(a.high - a.estimate, b.estimate - b.low)
    return Interval(difference, float(difference - below), float(difference + above))


def independent_ratio(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95, seed: int = 0) -> Interval:
    """(estimate, low, high) of the median of a [n] over that of b [m], which are not paired: 2,000 bootstrap draws.

    The bounds are NaN where one of them holds fewer than two values.
    """
    rng, parts = np.random.default_rng(seed), [np.asarray(values, dtype=float) for values in (a, b)]
    draws = [np.median(values[rng.integers(len(values), size=(2000, len(values)))], axis=1) for values in parts]
    estimate = float(np.median(parts[0]) / np.median(parts[1]))
    if min(map(len, parts)) < 2:
        return Interval(estimate, np.nan, np.nan)
    found = quantile_interval(estimate, draws[0] / draws[1], level)
    return Interval(estimate, float(found.low), float(found.high))


def paired_shares(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """(estimate, low, high) of the share of true values in a [n] less that in b [n], pair by pair.

    Adjusted Wald interval of Bonett and Price (2012): one is added to each count of discordant pairs, so that it keeps
    its width where no pair differs. Raises VarlabError for shapes that differ and without a value.
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if first.shape != second.shape or not first.size:
        raise VarlabError(f"Pairs need equal shapes and at least one value, not {first.shape} and {second.shape}.")
    n, up, down = first.size, int((first & ~second).sum()), int((second & ~first).sum())
    p, q = (up + 1) / (n + 2), (down + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Interval((up - down) / n, float(max(-1.0, p - q - half)), float(min(1.0, p - q + half)))

"""Images that share prompts and seeds, in categories of which the overall score is the plain mean.

A prompt's images resemble each other, so that prompts are what is drawn again, within each category and with all
their images (a cluster bootstrap). Where every prompt was drawn with the *same* noise for the same seed, seeds are a
second factor that crosses the prompts, and errors are clustered by both (Cameron, Gelbach and Miller 2011).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # its parts load when they are used

from varlab.errors import VarlabError
from varlab.measures.statistics.intervals import Interval, quantile_interval

OVERALL = "overall"
Labels = Sequence[Any] | np.ndarray


class Grid(NamedTuple):
    """A category: sums and counts of values, both [prompts, seeds]; one column where seeds do not cross prompts."""

    sums: np.ndarray
    counts: np.ndarray

    @property
    def residuals(self) -> np.ndarray:
        """What each cell [prompts, seeds] adds to the mean beyond its part."""
        total = self.counts.sum()
        return (self.sums - self.counts * (self.sums.sum() / total)) / total


class Design:
    """Which prompt, category and seed the images [n] belong to.

    Parameters
    ----------
    prompt: what is drawn again, [n]: any labels. The same label in two categories is two prompts.
    category: labels [n], in their order of appearance; None for one nameless category.
    seed: labels [n] of noise that all prompts share. None where each image has noise of its own, which is the rule
        here (image i depends on the seed and i) and then needs no factor.
    """

    def __init__(self, prompt: Labels, category: Labels | None = None, seed: Labels | None = None):
        self.n = len(prompt)
        if not self.n:
            raise VarlabError("There is nothing to compare: no image is there.")
        codes, names = pd.factorize(np.asarray([OVERALL] * self.n if category is None else category, dtype=object))
        self.names: list[str] = [] if category is None else [str(name) for name in names]
        seeds, distinct = pd.factorize(np.asarray([0] * self.n if seed is None else seed, dtype=object))
        self.crossed, self._seeds, self._width = seed is not None, seeds, len(distinct)
        labels = np.asarray(prompt, dtype=object)
        self._members = [np.flatnonzero(codes == code) for code in range(len(names))]
        self._prompts = [pd.factorize(labels[members])[0] for members in self._members]

    @property
    def labels(self) -> list[str]:
        """The rows of a table: the categories, then overall."""
        return [*self.names, OVERALL]

    def prompts(self) -> np.ndarray:
        """How many prompts each row has, [categories + 1]."""
        return self._with_total([int(codes.max()) + 1 for codes in self._prompts])

    def enough(self) -> np.ndarray:
        """Whether the prompts of each row tell an interval, [categories + 1]: one alone does not, nor does overall
        beside a category of one."""
        counts = self.prompts()[: len(self.names) or 1]
        return self.by_row((counts > 1).astype(float).tolist()) == 1

    def images(self) -> np.ndarray:
        """How many images each row has, [categories + 1]."""
        return self._with_total([len(members) for members in self._members])

    def members(self) -> list[np.ndarray]:
        """Positions of the images of each row."""
        parts = self._members if self.names else []
        return [*parts, np.arange(self.n)]

    def prompt_of(self, members: np.ndarray) -> np.ndarray:
        """Numbers of the prompts of these images; those of two categories differ."""
        codes, before = np.zeros(self.n, dtype=int), 0
        for own, prompts in zip(self._members, self._prompts, strict=True):
            codes[own] = prompts + before
            before += int(prompts.max()) + 1
        return codes[members]

    def sums_by_prompt(self, values: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Sum over the images of each prompt among these; NaN are left out."""
        return np.bincount(pd.factorize(self.prompt_of(members))[0], np.nan_to_num(values[members]))

    def _with_total(self, counts: list[int]) -> np.ndarray:
        return np.array([*counts, sum(counts)] if self.names else counts)

    def grids(self, values: npt.ArrayLike) -> list[Grid]:
        """The values [n] category by category. NaN are left out."""
        given = np.asarray(values, dtype=np.float64)
        if given.shape != (self.n,):
            raise VarlabError(f"{self.n} images need as many values, not those of shape {given.shape}.")
        there, found = ~np.isnan(given), []
        for members, prompts in zip(self._members, self._prompts, strict=True):
            grid = Grid(*np.zeros((2, int(prompts.max()) + 1, self._width)))
            place = prompts, self._seeds[members]
            np.add.at(grid.sums, place, np.where(there[members], given[members], 0))
            np.add.at(grid.counts, place, there[members])
            found.append(grid)
        return found

    def by_row(self, per_category: Sequence[float]) -> np.ndarray:
        """Means of categories with overall, their plain mean, after them."""
        return np.array([*(per_category if self.names else ()), np.mean(per_category)])


def means(values: npt.ArrayLike, design: Design) -> np.ndarray:
    """Mean over the images of each category, then the plain mean of these: [categories + 1]."""
    with np.errstate(invalid="ignore"):
        return design.by_row([grid.sums.sum() / grid.counts.sum() for grid in design.grids(values)])


def clustered_draws(values: npt.ArrayLike, design: Design, n_resamples: int, seed: int = 0) -> np.ndarray:
    """Bootstrap draws [resamples, categories + 1] of what ``means`` gives: prompts are drawn within each category."""
    rng, draws = np.random.default_rng(seed), []
    for grid in design.grids(values):
        n = len(grid.sums)
        drawn = rng.integers(n, size=(n_resamples, n)) + np.arange(n_resamples)[:, None] * n
        often = np.bincount(drawn.ravel(), minlength=n_resamples * n).reshape(n_resamples, n).astype(float)
        with np.errstate(invalid="ignore"):
            draws.append((often @ grid.sums.sum(1)) / (often @ grid.counts.sum(1)))
    overall = np.mean(draws, axis=0)
    return np.stack([*(draws if design.names else ()), overall], axis=1)


def clustered_interval(
    values: npt.ArrayLike,
    design: Design,
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
    flips: bool = False,
) -> Interval:
    """(estimate, low, high), arrays [categories + 1]: means of categories and overall, the plain mean of these.

    Parameters
    ----------
    values: [n], one an image; true and false count as 1 and 0, NaN are left out.
    n_resamples: draws of whole prompts within each category.
    flips: the values are differences of right and wrong answers. Where none differs a bootstrap has no width and would
        be sure of what it has not seen; the category then gets the width of ``standard_error``.

    Returns
    -------
    Percentile bounds, NaN under two prompts, for overall under two in a category.
    Where seeds cross the prompts: those of ``standard_error``.
    """
    estimate, enough = means(values, design), design.enough()
    if design.crossed:
        error, freedom = standard_error(values, design, flips)
        low = high = scipy.stats.t.ppf((1 + level) / 2, freedom) * error
    else:
        extra = scipy.stats.norm.ppf((1 + level) / 2) * _combined(_unseen(values, design, flips), design)
        found = quantile_interval(estimate, clustered_draws(values, design, n_resamples, seed), level)
        low, high = (np.hypot(estimate - bound, extra) for bound in found[1:])
    return Interval(estimate, np.where(enough, estimate - low, np.nan), np.where(enough, estimate + high, np.nan))


def _unseen(values: npt.ArrayLike, design: Design, flips: bool) -> np.ndarray:
    """Variance [categories] where no answer flipped, as if one had each way (Bonett and Price 2012); else 0."""
    grids = design.grids(values)
    flat = [flips and bool(np.allclose(grid.residuals.sum(1), 0, atol=1e-15)) for grid in grids]
    return np.array([2 / (len(grid.sums) + 2) ** 2 * none for grid, none in zip(grids, flat, strict=True)])


def _combined(variances: npt.ArrayLike, design: Design) -> np.ndarray:
    parts = np.asarray(variances, dtype=float)
    return np.sqrt(np.array([*(parts if design.names else ()), parts.sum() / len(parts) ** 2]))


def standard_error(values: npt.ArrayLike, design: Design, flips: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(standard errors, degrees of freedom) [categories + 1] of ``means``.

    Over prompts; of one category with one image a prompt this is s / sqrt(n) with n - 1, and overall has
    Satterthwaite's degrees of freedom. Where seeds cross the prompts it is clustered by both, no smaller than by
    prompts alone, with the smaller of their numbers less one. flips: as in ``clustered_interval``.
    """
    grids, counts = design.grids(values), design.prompts()[: len(design.names) or 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [np.square(grid.residuals.sum(1)).sum() for grid in grids] * counts / (counts - 1)
        parts = parts + _unseen(values, design, flips)
        freedom = parts.sum() ** 2 / (np.square(parts) / (counts - 1)).sum()
    errors, free = _combined(parts, design), np.array([*((counts - 1.0) if design.names else ()), freedom])
    if not design.crossed:
        return errors, free
    cells = [grid.residuals for grid in grids]
    rows = [*(cells if design.names else ()), np.concatenate(cells) / len(cells)]
    seeds = rows[0].shape[1]
    for i, row in enumerate(rows):
        both = np.square(row.sum(0)).sum() * seeds / max(1, seeds - 1) - np.square(row).sum()
        errors[i] = np.sqrt(errors[i] ** 2 + max(0.0, both))
    return errors, np.minimum(free, seeds - 1.0)


def variance_shares(values: npt.ArrayLike, prompt: Labels, seed: Labels) -> dict[str, float]:
    """What share of the variance of images lies between prompts, between seeds, and in the rest.

    Two-way random effects by the method of moments, negative parts as 0; NaN without variance.

    Raises
    ------
    VarlabError
        Not every prompt has every seed exactly once, or there are fewer than two of either.
    """
    grid = Design(prompt, seed=seed).grids(values)[0]
    rows, columns = grid.sums.shape
    if min(rows, columns) < 2 or not (grid.counts == 1).all():
        raise VarlabError("Shares of prompts and seeds need two of each, and every prompt with every seed once.")
    x = grid.sums
    rest = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    noise = np.square(rest).sum() / ((rows - 1) * (columns - 1))
    between = max(0.0, x.mean(1).var(ddof=1) - noise / columns), max(0.0, x.mean(0).var(ddof=1) - noise / rows)
    parts = dict(zip(("prompt", "seed", "rest"), (*between, noise), strict=True))
    total = sum(parts.values())
    return {name: float(part / total) if total else float("nan") for name, part in parts.items()}

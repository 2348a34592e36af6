"""The table of two sets of scores of the same prompts and seeds: difference, flips, test, equivalence, power."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # its parts load when they are used

from varlab.errors import VarlabError
from varlab.measures.statistics.clustered import OVERALL, Design, clustered_interval, means, standard_error
from varlab.measures.statistics.intervals import bootstrap_interval
from varlab.measures.statistics.power import detectable, prompts_needed
from varlab.measures.statistics.significance import equivalence, holm, mcnemar, sign_flip


def paired_rows(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    design: Design,
    *,
    median: bool = False,
    margin: float | None = None,
    wanted: float | None = None,
    level: float = 0.95,
    power: float = 0.8,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a category of the design, then "overall", the plain mean of the categories.

    Parameters
    ----------
    a, b: scores [n] of the same images in the same order; true and false count as 1 and 0. A pair with a NaN is left
        out of both, and so is one of two equal infinities.
    median: compare medians over prompts, for measures that are infinite where images are equal (PSNR).
    margin: differences within it count as none; adds a test of that.
    wanted: the difference that ``prompts_needed`` is asked for; the margin by default.

    Returns
    -------
    Columns ``category``, ``n`` (images), ``prompts``, ``a``, ``b``, ``difference`` (a - b) with ``low`` and ``high``,
    ``higher`` and ``lower`` (images on which a is the higher or the lower: the flips, of right and wrong answers),
    ``test`` and ``p``, ``margin`` and ``p_equivalent``, ``detectable`` (the smallest true difference that this many
    prompts show with the given power) and ``prompts_needed``, NaN where seeds cross the prompts and more
    prompts alone may not do. The last two are unadjusted for the number of tests.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape or first.shape != (design.n,):
        raise VarlabError(f"{design.n} pairs are described, but scores are of {first.shape} and {second.shape}.")
    with np.errstate(invalid="ignore"):
        difference = first - second
    gone = np.isnan(difference)
    first, second = np.where(gone, np.nan, first), np.where(gone, np.nan, second)
    if not median and not np.isfinite(difference[~gone]).all():
        raise VarlabError("Infinite scores have no mean: compare medians.")
    table = pd.DataFrame({"category": design.labels, "n": [int((~gone)[rows].sum()) for rows in design.members()]})
    table["prompts"] = design.prompts()
    answers = all(np.isin(values, (0, 1, np.nan)).all() for values in (first, second))
    if median:
        table = table.join(_medians(first, second, difference, design, level, seed))
    else:
        found = clustered_interval(difference, design, level, n_resamples, seed, answers)
        table = table.assign(a=means(first, design), b=means(second, design), **_columns(found))
    for name, sign in (("higher", 1), ("lower", -1)):
        table[name] = [int((np.sign(difference[rows]) == sign).sum()) for rows in design.members()]
    table["test"], table["p"] = zip(*_tests(difference, design, answers, median, n_resamples), strict=True)
    table["margin"] = np.nan if margin is None else margin
    nothing = np.full(len(table), np.nan)
    errors, freedom = (nothing, nothing) if median else standard_error(difference, design, answers)
    measured = list(zip(table.difference, errors, freedom, table.prompts, strict=True))
    table["p_equivalent"] = nothing if margin is None or median else [equivalence(*row[:3], margin) for row in measured]
    table["detectable"] = [detectable(error, free, power, level) for _, error, free, _ in measured]
    aim = margin if wanted is None else wanted
    needed = (
        nothing if aim is None or design.crossed else [prompts_needed(aim, *row[1:], power, level) for row in measured]
    )
    table["prompts_needed"] = needed
    return table


def _medians(
    a: np.ndarray, b: np.ndarray, difference: np.ndarray, design: Design, level: float, seed: int
) -> pd.DataFrame:
    """Of prompts, each with the median of its images; overall is over all prompts."""
    rows: list[dict[str, Any]] = []
    for members in design.members():
        prompts = design.prompt_of(members)
        parts = (pd.Series(values[members]).groupby(prompts).median() for values in (a, b, difference))
        one, two, between = (part.to_numpy() for part in parts)
        found = bootstrap_interval(between, np.nanmedian, level, seed=seed)
        rows.append({"a": np.nanmedian(one), "b": np.nanmedian(two), **_columns(found)})
    return pd.DataFrame(rows)


def _columns(found: Any) -> dict[str, Any]:
    return {"difference": found.estimate, "low": found.low, "high": found.high}


def _tests(
    difference: np.ndarray, design: Design, answers: bool, median: bool, resamples: int
) -> list[tuple[str, float]]:
    """Name and p of the test of each row: what its scores allow, the exact one where there is one."""
    if median:
        signs = [design.sums_by_prompt(np.sign(difference), rows) for rows in design.members()]
        return [("sign test", mcnemar(int((part > 0).sum()), int((part < 0).sum()))) for part in signs]
    if design.crossed:
        found = zip(means(difference, design), *standard_error(difference, design, answers), strict=True)
        return [
            ("t, prompts x seeds", float(2 * scipy.stats.t.sf(abs(d) / e, f)) if e > 0 else 1.0) for d, e, f in found
        ]
    parts = [grid.sums.sum(1) / max(1.0, grid.counts.sum()) for grid in design.grids(difference)]
    rows = [*(parts if design.names else ()), np.concatenate(parts) / len(parts)]
    single = answers and bool((design.images() == design.prompts()).all())
    tests = []
    for contributions, members in zip(rows, design.members(), strict=True):
        own = difference[members]
        if single and (not design.names or len(members) < design.n):
            tests.append(("McNemar", mcnemar(int((own > 0).sum()), int((own < 0).sum()))))
        else:
            tests.append(("sign flips of prompts", sign_flip(contributions, resamples)))
    return tests


def adjusted(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The rows of ``paired_rows``, of any number of comparisons and measures, with ``p_holm`` and an ``outcome``.

    Both tests are adjusted for their number by Holm's method, overall rows and those of categories as two families.
    ``outcome``: "a higher" or "a lower" where the difference is real, "no difference" where it lies within the margin,
    both where both hold, and else "cannot be told".
    """
    table, overall = table.copy(), table["category"] == OVERALL
    for source, name in (("p", "p_holm"), ("p_equivalent", "p_equivalent_holm")):
        table[name] = table[source].astype(float)
        for family in (overall, ~overall):
            table.loc[family, name] = holm(table.loc[family, source])
    real, equal = (table[name] < 1 - level for name in ("p_holm", "p_equivalent_holm"))
    side = np.where(table["difference"] > 0, "a higher", "a lower")
    table["outcome"] = np.select([real & equal, real, equal], [side + ", within the margin", side, "no difference"],
                                 "cannot be told")  # fmt: skip
    return table

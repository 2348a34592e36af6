"""How numbers become outcomes: one rule a question, the same for all claims.

An interval that holds nothing but differences up to the margin means *no difference*: both one-sided tests at 2.5 %
reject a larger one (TOST). One that reaches further, to both sides of 0, is *wide*. Fewer than ``FEWEST`` values are
*too few*, whatever a bootstrap of them says.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from varlab.claims.verdict import Number, Outcome
from varlab.measures.statistics import FEWEST, Interval, bootstrap_interval

HOLDS, PARTLY, FAILS = Outcome.HOLDS, Outcome.PARTLY, Outcome.FAILS
NO_DIFFERENCE, WIDE, TOO_FEW = Outcome.NO_DIFFERENCE, Outcome.WIDE, Outcome.TOO_FEW


def measured(name: str, values: npt.ArrayLike, margin: float = 0.0, reference: float = 0.0) -> Number:
    """The mean of values [n] with its bootstrap interval, NaN left out. ``reference``: what it is judged against."""
    rows = np.asarray(values, dtype=float)
    return number(name, bootstrap_interval(rows), int((~np.isnan(rows)).sum()), margin, reference)


def number(name: str, interval: Interval, n: int, margin: float = 0.0, reference: float = 0.0) -> Number:
    return Number(name, float(interval.estimate), float(interval.low), float(interval.high), n, margin, reference)


def enough(found: Number) -> bool:
    return found.n >= FEWEST and np.isfinite(found.low) and np.isfinite(found.high)


def positive(found: Number) -> Outcome:
    """Is it above 0? A value that may not even reach the margin from below does not count as above."""
    if not enough(found):
        return TOO_FEW
    if -found.margin <= found.low and found.high <= found.margin:
        return NO_DIFFERENCE
    if found.high <= 0 or found.high < found.margin:
        return FAILS
    return HOLDS if found.low > 0 else WIDE


def below(found: Number, bound: float) -> Outcome:
    """Is it below a bound?"""
    if not enough(found):
        return TOO_FEW
    return HOLDS if found.high < bound else FAILS if found.low > bound else WIDE


def above(found: Number, bound: float) -> Outcome:
    """Is it above a bound?"""
    if not enough(found):
        return TOO_FEW
    return HOLDS if found.low > bound else FAILS if found.high < bound else WIDE


def all_of(outcomes: Sequence[Outcome]) -> tuple[Outcome, str]:
    """The outcome of a claim with several parts, and the reason where these differ."""
    kinds = set(outcomes)
    if len(kinds) == 1:
        return outcomes[0], ""
    if HOLDS not in kinds and PARTLY not in kinds:
        if kinds <= {FAILS, NO_DIFFERENCE}:
            return FAILS, ""
        return WIDE, "No part holds; " + _listed(outcomes) + "."
    return PARTLY, "Of its parts: " + _listed(outcomes) + "."


def _listed(outcomes: Sequence[Outcome]) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth")
    return ", ".join(f"the {word} {_says(outcome)}" for word, outcome in zip(words, outcomes, strict=False))


def _says(outcome: Outcome) -> str:
    return {NO_DIFFERENCE: "shows no difference", TOO_FEW: "has too few values"}.get(outcome, str(outcome))

"""How numbers become outcomes: one rule, the same for all claims. A number knows which side of it supports its claim.

An interval that holds nothing but differences up to the margin means *no difference*: both one-sided tests at 2.5 %
reject a larger one (TOST). One that reaches further, to both sides, is *wide*. Fewer than ``FEWEST`` values are
*too few*, whatever a bootstrap of them says.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from varlab.claims.verdict import Number, Outcome, Side
from varlab.measures.statistics import FEWEST, Interval, bootstrap_interval

HOLDS, PARTLY, FAILS = Outcome.HOLDS, Outcome.PARTLY, Outcome.FAILS
NO_DIFFERENCE, WIDE, TOO_FEW = Outcome.NO_DIFFERENCE, Outcome.WIDE, Outcome.TOO_FEW


def measured(
    name: str, values: npt.ArrayLike, margin: float = 0.0, reference: float = 0.0, supports: Side = Side.ABOVE
) -> Number:
    """The mean of values [n] with its bootstrap interval, NaN left out; the rest as ``Number`` has it."""
    rows = np.asarray(values, dtype=float)
    return number(name, bootstrap_interval(rows), int((~np.isnan(rows)).sum()), margin, reference, supports)


def number(
    name: str, interval: Interval, n: int, margin: float = 0.0, reference: float = 0.0, supports: Side = Side.ABOVE
) -> Number:
    estimate, low, high = float(interval.estimate), float(interval.low), float(interval.high)
    return Number(name, estimate, low, high, n, margin, reference, supports)


def enough(found: Number) -> bool:
    return found.n >= FEWEST and np.isfinite(found.low) and np.isfinite(found.high)


def judged(found: Number) -> Outcome:
    """Does it lie where it supports the claim? A value that may not even reach the margin there does not."""
    if not enough(found):
        return TOO_FEW
    sign = -1 if found.supports == Side.BELOW else 1
    low, high = sorted(sign * (end - found.reference) for end in (found.low, found.high))
    near = -found.margin <= low and high <= found.margin
    if found.supports == Side.WITHIN:
        return HOLDS if near else FAILS if low > found.margin or high < -found.margin else WIDE
    if near:
        return NO_DIFFERENCE
    if high <= 0 or high < found.margin:
        return FAILS
    return HOLDS if low > 0 else WIDE


def all_of(parts: Mapping[str, Outcome]) -> tuple[Outcome, str]:
    """The outcome of a claim with several parts, by their names, and the reason where these differ."""
    kinds = set(parts.values())
    if len(kinds) == 1:
        return kinds.pop(), ""
    if HOLDS not in kinds and PARTLY not in kinds:
        if kinds <= {FAILS, NO_DIFFERENCE}:
            return FAILS, ""
        return WIDE, "No part holds: " + _listed(parts) + "."
    return PARTLY, "By its parts: " + _listed(parts) + "."


def _listed(parts: Mapping[str, Outcome]) -> str:
    return ", ".join(f"{name} {_says(outcome)}" for name, outcome in parts.items())


def _says(outcome: Outcome) -> str:
    return {NO_DIFFERENCE: "shows no difference", TOO_FEW: "has too few values"}.get(outcome, str(outcome))

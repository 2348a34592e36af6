"""What a paired comparison could have seen, and how many prompts a wanted difference needs."""

import math
from bisect import bisect_left

import numpy as np
import scipy  # its parts load when they are used

from varlab.errors import VarlabError

MOST = 2**29  # prompts, beyond which a number is of no use


def power_of(difference: float, error: float, freedom: float, level: float = 0.95) -> float:
    """Chance that a two-sided paired t-test sees a true difference, from its standard error and degrees of freedom."""
    bound, shift = scipy.stats.t.ppf((1 + level) / 2, freedom), abs(difference) / error
    if freedom > 1e5:  # where scipy's noncentral t runs slow, it is the normal distribution
        return float(scipy.stats.norm.sf(bound - shift) + scipy.stats.norm.cdf(-bound - shift))
    # scipy gives NaN for what is next to nothing
    wrong_side = np.nan_to_num(scipy.stats.nct.cdf(-bound, freedom, shift))
    return float(scipy.stats.nct.sf(bound, freedom, shift) + wrong_side)


def detectable(error: float, freedom: float, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest true difference that a paired test of this standard error sees with the given power.

    NaN without an error or without a degree of freedom.
    """
    _check(power, level)
    if not error > 0 or not freedom >= 1:
        return math.nan
    most = float(scipy.stats.t.ppf((1 + level) / 2, freedom))
    while power_of(most, 1, freedom, level) < power:
        most *= 1.5
    return float(error * scipy.optimize.brentq(lambda size: power_of(size, 1, freedom, level) - power, 0, most))


def prompts_needed(
    wanted: float, error: float, freedom: float, n: int, power: float = 0.8, level: float = 0.95
) -> float:
    """How many prompts, of as many images each as now, see a true difference ``wanted`` with the given power.

    The error of n prompts shrinks with the root of their number. NaN without an error, infinite beyond ``MOST``.
    """
    _check(power, level)
    if not wanted > 0:
        raise VarlabError(f"A wanted difference is positive, not {wanted}.")
    if not error > 0 or not freedom >= 1:
        return math.nan

    def enough(prompts: int) -> bool:
        free = (freedom + 1) * prompts / n - 1
        return free >= 1 and power_of(wanted, error * math.sqrt(n / prompts), free, level) >= power

    found = bisect_left(range(MOST + 1), True, lo=2, key=enough)
    return math.inf if found > MOST else float(found)


def _check(power: float, level: float) -> None:
    if not 0 < 1 - level < power < 1:
        raise VarlabError(f"level lies in (0, 1) and power in (1 - level, 1), not {level} and {power}.")

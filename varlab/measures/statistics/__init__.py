"""How sure a number is, and whether two differ: the one place for intervals, tests and plans of all tables.

``intervals``: bootstrap and closed-form intervals of means, shares and differences. ``clustered``: images that share
their prompts and seeds, and benchmarks whose overall is a mean of category means. ``significance``: McNemar, sign
flips, Holm, equivalence. ``power``: what a comparison could have seen, and how many prompts a wanted difference needs.
``paired``: all of it as the one table of two sets of scores.
"""

from varlab.measures.statistics.clustered import (
    OVERALL,
    Design,
    clustered_draws,
    clustered_interval,
    means,
    standard_error,
    variance_shares,
)
from varlab.measures.statistics.intervals import (
    FEWEST,
    Interval,
    bootstrap_interval,
    centred_interval,
    effects_interval,
    independent_difference,
    independent_ratio,
    paired_difference,
    paired_shares,
    quantile_interval,
    student_interval,
    wilson_interval,
)
from varlab.measures.statistics.paired import adjusted, paired_rows
from varlab.measures.statistics.power import detectable, prompts_needed
from varlab.measures.statistics.significance import equivalence, holm, mcnemar, sign_flip

__all__ = [
    "FEWEST", "OVERALL", "Design", "Interval", "adjusted", "bootstrap_interval", "centred_interval", "clustered_draws",
    "clustered_interval", "detectable", "effects_interval", "equivalence", "holm", "independent_difference",
    "independent_ratio", "mcnemar", "means", "paired_difference", "paired_rows", "paired_shares", "prompts_needed",
    "quantile_interval", "sign_flip", "standard_error", "student_interval", "variance_shares", "wilson_interval",
]  # fmt: skip

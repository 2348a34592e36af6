"""Claims of papers and methods, and what comes of checking them on our own numbers.

A check returns a ``Verdict``: ``claim``, ``outcome`` (a word of the enum ``Outcome``), ``finding`` (sentences with the
numbers), ``reason`` and ``numbers`` (estimate, low, high, n, margin). Nothing parses its text again: ask
``verdict.outcome is Outcome.HOLDS``, ``verdict.outcome.tone`` for a colour, ``verdict.record()`` for JSON.

To add a check: measure with ``rules.measured(name, values, margin)`` (or ``rules.number`` from an interval), decide
with ``rules.judged`` (by the number's own margin, reference and side) and ``all_of``, and return a ``Verdict``::

    gain = rules.measured("SSIM of the method less the baseline's", own - other, margin=0.005)
    return Verdict(claim, rules.judged(gain), f"{gain}, n = {gain.n}.", numbers=(gain,))

A report keeps them by ``varlab.reports.record(verdicts=[...])`` and shows them by ``account(log, verdicts)``. Rules of
``sparsevar``, ``skipvar`` and ``freqexit`` read tables of ``varlab.analysis``; ``methods`` judges a comparison;
``published`` holds the papers' figures. None of them draws, and none imports matplotlib.
"""

from varlab.claims.account import account, facts, limits
from varlab.claims.verdict import Number, Outcome, Side, Verdict

__all__ = ["Number", "Outcome", "Side", "Verdict", "account", "facts", "limits"]

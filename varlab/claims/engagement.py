"""Whether a setting left out enough to test anything, and which setting would have."""

import numpy as np

from varlab.analysis.comparisons import family
from varlab.analysis.decisions import kept_share_table, pruned_stages, pruning_method
from varlab.analysis.logs import Log, dataset
from varlab.comparison import Comparison
from varlab.errors import VarlabError

BARELY = 0.9  # share of the tokens of its pruned stages above which a method hardly engages
SAVED = 0.03  # of the dense work: what a method without tokens must save to count
PUBLISHED = 0.27  # share of the tokens that SparseVAR computes at its usual tau, by our inversion of its latencies


def not_engaged(compared: Comparison, spec: str) -> str:
    """Why a row tested nothing, with a setting that would; empty for one that engaged."""
    row = compared.table.loc[spec]
    if not row.engaged:
        return "It computed as much as the dense run." + _instead(compared.logs.get(spec), spec)
    share = _computed(compared.logs.get(spec))
    if share is not None and share >= BARELY:
        reason = f"It computed {100 * share:.0f} % of the tokens of the stages that it prunes."
        return reason + _instead(compared.logs.get(spec), spec)
    if row.work_ratio > 1 - SAVED and share is None:
        return f"It saved {100 * (1 - row.work_ratio):.1f} % of the dense run's work."
    return ""


def _computed(log: Log | None) -> float | None:
    """The mean share of tokens that a method computed at its pruned stages; None where it does not say."""
    if log is None:
        return None
    try:
        return float(kept_share_table(log)["all_blocks"].mean())
    except VarlabError:  # no method of tokens
        return None


def _instead(log: Log | None, spec: str) -> str:
    """The tau at which these very scores would leave out as many tokens as the paper's."""
    if log is None or "tau=" not in spec or "+" in spec:
        return ""
    maps = [dataset(log, f"{pruning_method(log)}/stage-{k:02d}").get("score") for k in pruned_stages(log)]
    scores = [values.values.ravel() for values in maps if values is not None]
    if not scores or np.isnan(np.concatenate(scores)).all():
        return ""
    tau = float(np.nanquantile(np.concatenate(scores), 1 - PUBLISHED))
    instead = f"{family(spec)}:tau={tau:.2g}"
    share = f"about {100 * PUBLISHED:.0f} % and the anchors, as keep={PUBLISHED:g} does"
    return f" By the scores of these images {instead} would compute {share}."

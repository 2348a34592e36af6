"""One row a method, from what the bench kept: times, work and fidelity with their intervals."""

from typing import Any

import numpy as np
import pandas as pd

from varlab.accelerators import DENSE
from varlab.comparison.bench import Bench
from varlab.comparison.turns import Made
from varlab.measures.statistics import FEWEST, Interval, bootstrap_interval, paired_shares
from varlab.runs.clock import paired_ratio


def method_row(name: str, bench: Bench, made: Made, rows: pd.DataFrame, timings: pd.DataFrame) -> dict[str, Any]:
    """All figures of one method, differences paired with the dense run's over batches or prompts."""
    own, dense = (timings[timings.method == which].sort_values("turn") for which in (name, DENSE))
    q25, median, q75 = own.seconds.quantile([0.25, 0.5, 0.75])
    if len(own) < 2:  # a batch alone has no spread
        q25 = q75 = np.nan
    speedup = _ratio(dense.seconds, own.seconds)
    transformer = _ratio(own.transformer_seconds, dense.transformer_seconds)
    ledger, reference = made.ledgers[name], made.ledgers[DENSE]
    work = ledger.transformer_flops / reference.transformer_flops
    row: dict[str, Any] = {
        "method": name,
        "n": len(bench.job.prompts),
        "seconds": median,
        "seconds_q25": q25,
        "seconds_q75": q75,
        "timings": len(own),
        "speedup": speedup.estimate,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
        "transformer_ratio": transformer.estimate,
        "transformer_ratio_low": transformer.low,
        "transformer_ratio_high": transformer.high,
        "work_ratio": work,
        "efficiency": (1 - transformer.estimate) / (1 - work) if work < 1 else np.nan,
        "engaged": ledger.engaged,
        "peak_mib": bench.turns.peaks[name],
    }
    part, plain = rows[rows.method == name], rows[rows.method == DENSE]
    for measure in bench.measures:
        statistic = np.nanmedian if measure == "psnr" else np.nanmean  # PSNR of equal images is infinite
        found = bootstrap_interval(part[measure], statistic)
        low, high = (found.estimate if np.isinf(found.estimate) else bound for bound in found[1:])
        row |= {measure: found.estimate, f"{measure}_low": low, f"{measure}_high": high}
    if part.correct.notna().all():
        delta = paired_shares(part.correct.astype(bool), plain.correct.astype(bool))
        row |= {"score": part.correct.astype(float).mean(), "score_delta": delta.estimate}
        row |= {"score_delta_low": delta.low, "score_delta_high": delta.high}
    return row


def _ratio(over: pd.Series, under: pd.Series) -> Interval:
    found = paired_ratio(over, under)
    return found if len(over) >= FEWEST else Interval(found.estimate, np.nan, np.nan)

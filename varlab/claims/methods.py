"""Verdicts on accelerators, composed from a comparison's own numbers: is the method's choice worth it?"""

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from varlab.accelerators import DENSE
from varlab.analysis.comparisons import CONTROLS, family
from varlab.analysis.decisions import accuracy_table, kept_share_table
from varlab.claims.engagement import not_engaged
from varlab.claims.rules import number, positive
from varlab.claims.verdict import Number, Outcome, Verdict
from varlab.comparison import Comparison
from varlab.measures.statistics import Interval, paired_difference

BLIND = ("random-tokens", "uniform-tokens", "oracle-tokens")
NEAR = 0.03  # of the dense work: what may lie between a method and a control that stand for the same work
LEAST = 0.01  # of the tokens of a stage: a control must keep one
Point = tuple[float, str, np.ndarray]  # work, spec, a figure of each prompt


def matched_controls(log: xr.DataTree) -> list[str]:
    """Specs of the token controls that compute, stage by stage, the mean share that the method of a log computed.

    The share is over all blocks, as the controls leave tokens out of every block. At least one token in a hundred.
    The oracle among them chooses by what the dense run will change, which no method knows.
    """
    table = kept_share_table(log)
    stages = len(log.attrs["schedule"])
    shares = dict(zip(table.stage, table["all_blocks"], strict=True))
    last = range(min(shares), stages + 1)
    keep = "/".join(f"{min(1.0, max(LEAST, shares.get(k, 1.0))):.2g}" for k in last)
    return [f"{name}:keep={keep},last={len(last)}" for name in BLIND]


def against_controls(compared: Comparison, measure: str = "ssim") -> pd.DataFrame:
    """Each method beside each kind of control at the method's own work: its fidelity less that of the control.

    Between two settings of a control, and between one and the dense run, stands their mixture: so many prompts by one
    and the rest by the other cost the work in between and lose the fidelity in between. One row a method and kind, with
    the 95 % interval over prompts and ``verdict``: beats, is beaten by, or cannot be told from. No row where every
    setting of the control computes more than the method.
    """
    columns = ["method", "verdict", "control", "work", "work_control", "difference", "low", "high"]
    rows = []
    for name, work in compared.table.work_ratio.items():
        if _blind(name):
            continue
        own = _values(compared, name, measure)
        for kind in CONTROLS:
            for control, level, values in _at_work(_line(compared, kind, measure), work):
                found = paired_difference(own, values)
                word = "beats" if found.low > 0 else "is beaten by" if found.high < 0 else "cannot be told from"
                rows.append([name, word, control, work, level, *found])
    return pd.DataFrame(rows, columns=columns)


def _blind(spec: object, *others: str) -> bool:
    """Whether all that a spec joins are controls (or the dense run, or ``others``)."""
    return all(family(part) in (DENSE, *CONTROLS, *others) for part in str(spec).split("+"))


def _values(compared: Comparison, spec: object, measure: str) -> np.ndarray:
    return compared.prompts.loc[compared.prompts.method == spec, measure].to_numpy()


def _line(compared: Comparison, kind: str, measure: str) -> list[Point]:
    """The settings of a control and the dense run, by work."""
    chosen = [spec for spec in compared.table.index if family(str(spec)) in (kind, DENSE)]
    works = compared.table.work_ratio
    return sorted((float(works[spec]), str(spec), _values(compared, spec, measure)) for spec in chosen)


def _at_work(line: list[Point], work: float) -> Iterator[tuple[str, float, np.ndarray]]:
    """The control at a method's work: the setting that lies near, else the mixture of the two around it."""
    below = [point for point in line if point[0] <= work + NEAR and point[1] != DENSE]
    if not below:
        return
    level, spec, values = below[-1]
    above = line[len(below)] if len(below) < len(line) else None
    if above is None or abs(level - work) <= NEAR or not np.isfinite(above[2]).all():
        yield spec, level, values
        return
    share = min(1.0, (work - level) / (above[0] - level))
    mixed = level + share * (above[0] - level)
    yield f"{1 - share:.0%} {spec}, {share:.0%} {above[1]}", mixed, (1 - share) * values + share * above[2]


def verdicts(compared: Comparison, measure: str = "ssim") -> list[Verdict]:
    """One verdict a method: does it keep more of the dense image than every kind of control at the same work?"""
    pairs, found = against_controls(compared, measure), []
    for name, row in compared.table.iterrows():
        if _blind(name, "oracle-tokens"):  # an oracle is for reference, no method
            continue
        own = pairs[pairs.method == name]
        parts = [
            f"Work {row.work_ratio:.2f} of dense, {row.speedup:.2f} ({row.speedup_low:.2f} to {row.speedup_high:.2f}) "
            f"times as fast over {row.timings:.0f} timed batches, "
            f"SSIM {row.ssim:.3f} ({row.ssim_low:.3f} to {row.ssim_high:.3f})"
        ]
        less = [
            f"less that of {pair.control} (work {pair.work_control:.2f}): "
            f"{pair.difference:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})"
            for pair in own.itertuples()
        ]
        parts += ["; ".join(less)] if less else []
        numbers = [Number(pair.control, pair.difference, pair.low, pair.high, int(row.n)) for pair in own.itertuples()]
        idle = not_engaged(compared, str(name))
        outcome, reason = (Outcome.NOT_ENGAGED, idle) if idle else _outcome(own)
        claim = f"{name} keeps more of the image than leaving out as much work blindly"
        found.append(Verdict(claim, outcome, ". ".join([*parts, f"n = {row.n:.0f}."]), reason, tuple(numbers)))
    return found


def decisions(compared: Comparison) -> list[Verdict]:
    """One verdict a decision model of SkipVAR: is it right more often than one fixed answer, on held-out prompts?"""
    return [
        _decision(f"{name}: the decision ({row['model']}) beats one fixed answer", row)
        for name, log in compared.logs.items()
        if "skipvar" in log
        for row in accuracy_table(log).to_dict("records")
    ]


def _decision(claim: str, row: dict[Hashable, Any]) -> Verdict:
    finding, n = f"Right on {row['accuracy']:.2f} of the held-out prompts", int(row["n_held_out"])
    if pd.isna(row.get("gain")):
        reason = "The decision model does not say what it gains over one fixed answer; fit it again."
        return Verdict(claim, Outcome.NOT_MEASURED, f"{finding}. n = {n}.", reason)
    gain = number("gain", Interval(row["gain"], row["gain low"], row["gain high"]), n)
    finding += f", less the best fixed answer {gain.estimate:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}). n = {n}."
    return Verdict(claim, positive(gain), finding, numbers=(gain,))


def _outcome(pairs: pd.DataFrame) -> tuple[Outcome, str]:
    if pairs.empty:
        return Outcome.NOT_COMPARABLE, "No control computes as little."
    beaten, beats = (pairs.verdict == "is beaten by").sum(), (pairs.verdict == "beats").sum()
    if beats == len(pairs):
        return Outcome.HOLDS, ""
    if beaten == len(pairs) or (beaten and not beats):
        return Outcome.FAILS, ""
    return (Outcome.PARTLY, "It does not beat every kind of control.") if beats else (Outcome.WIDE, "")

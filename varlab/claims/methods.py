"""Verdicts on accelerators, from a comparison's own numbers: is the choice of what to leave out worth it?

A method is held against the frontier of all baselines at its own work, not against those that someone listed.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from varlab.analysis.comparisons import is_baseline
from varlab.analysis.decisions import accuracy_table, kept_share_table
from varlab.analysis.frontier import BEST_MIX, rivals
from varlab.claims.engagement import not_engaged
from varlab.claims.rules import judged, measured, number
from varlab.claims.verdict import Number, Outcome, Verdict
from varlab.comparison import Comparison
from varlab.measures.statistics import Interval

TOKENS = ("random-tokens", "uniform-tokens", "oracle-tokens")
LEAST = 0.01  # of the tokens of a stage: a baseline must keep one
LEVEL = "level"  # of a distance that rounds to none
LABELS = {"ssim": "SSIM", "high_frequency_ssim": "SSIM of the detail", "lpips": "LPIPS"}
MARGIN = 0.002  # of SSIM or LPIPS: a smaller difference counts as none
MIXED = "It is not clearly behind any single baseline, but keeps no more than a mix of two at its work."
UNDRAWN = "It keeps more than the baselines listed here; the frontier of all others was not drawn."


def matched_baselines(log: xr.DataTree) -> list[str]:
    """Specs of the token baselines that compute, stage by stage, the mean share that the method of a log computed.

    The share is over all blocks, as the baselines leave tokens out of every block. At least one token in a hundred.
    The oracle among them chooses by what the dense run will change, which no method knows.
    """
    table = kept_share_table(log)
    stages = len(log.attrs["schedule"])
    shares = dict(zip(table.stage, table["all_blocks"], strict=True))
    last = range(min(shares), stages + 1)
    keep = "/".join(f"{min(1.0, max(LEAST, shares.get(k, 1.0))):.2g}" for k in last)
    return [f"{name}:keep={keep},last={len(last)}" for name in TOKENS]


def against_baselines(compared: Comparison, measure: str = "ssim") -> pd.DataFrame:
    """Each method beside the best of all baselines: its fidelity less theirs, paired by prompt.

    One row for the best single baseline at equal or less work, and one for the best mix at equal work where that is
    another: so many images by one baseline and the rest by a second, or by the dense run. Looked for among the
    frontier of the comparison and the baselines in its own table, on the other half of the prompts (``rivals``).
    ``difference`` is positive where the method is better, with the 95 % interval over prompts. A method that computes
    less than every baseline has no row.
    """
    columns = ["method", "verdict", "difference", "low", "high", "work", "work_baseline", "baseline", "rank"]
    values, works = _baselines(compared, measure)
    rows = []
    for name, work in compared.table.work_ratio.items():
        if is_baseline(str(name)):
            continue
        for rival in rivals(values, works, _values(compared, name, measure), float(work), measure):
            found = measured(rival.text, rival.differences, MARGIN)
            numbers = found.estimate, found.low, found.high, work, rival.work
            rows.append([name, judged(found), *numbers, rival.text, rival.rank])
    return pd.DataFrame(rows, columns=columns)


def _values(compared: Comparison, spec: object, measure: str) -> np.ndarray:
    return compared.prompts.loc[compared.prompts.method == spec, measure].to_numpy(float)


def _baselines(compared: Comparison, measure: str) -> tuple[pd.DataFrame, pd.Series]:
    """Fidelity by baseline (row) and prompt (column), and work by baseline: the frontier's and those of the table."""
    listed = [str(name) for name in compared.table.index if is_baseline(str(name))]
    values = pd.DataFrame({name: _values(compared, name, measure) for name in listed}).T
    works = compared.table.work_ratio[listed].astype(float)
    if compared.frontier is None:
        return values, works
    kept, kept_works = compared.frontier.values(measure), compared.frontier.works()
    others = [name for name in kept.index if name not in listed]
    return pd.concat([values, kept.loc[others]]), pd.concat([works, kept_works[others]])


def verdicts(compared: Comparison, measure: str = "ssim") -> list[Verdict]:
    """One verdict a method: does it keep more of the dense image than the best baselines at its work?"""
    pairs, found = against_baselines(compared, measure), []
    for name, row in compared.table.iterrows():
        if is_baseline(str(name), "oracle-tokens"):  # an oracle is for reference, no method
            continue
        own = pairs[pairs.method == name]
        kept = f"{LABELS[measure]} {row[measure]:.3f}"
        finding = ". ".join([", ".join([kept, *map(_against, list(own.itertuples())[:1])]), *_mixes(own), _cost(row)])
        said = "".join(f" {note[:1].upper()}{note[1:]}" for note in _notes_on(compared, str(name)))
        numbers = []
        for pair in own.itertuples():
            rival = BEST_MIX if pair.rank.startswith(BEST_MIX) else "the best baseline"
            label = f"{LABELS[measure]} minus that of {rival}"
            numbers.append(Number(label, pair.difference, pair.low, pair.high, int(row.n), MARGIN))
        idle = not_engaged(compared, str(name))
        outcome, reason = (Outcome.NOT_ENGAGED, idle) if idle else _outcome(own, compared.frontier is not None)
        claim = f"{name} keeps more of the image than any baseline at its work"
        found.append(Verdict(claim, outcome, f"{finding} n = {row.n:.0f}.{said}", reason, tuple(numbers)))
    return found


def other_notes(compared: Comparison) -> list[str]:
    """What a reader of a comparison must know and no finding of ``verdicts`` says."""
    said = {f"{name}: {note}" for name in compared.table.index for note in _notes_on(compared, str(name))}
    return [note for note in compared.facts.get("notes", ()) if note not in said]


def _notes_on(compared: Comparison, name: str) -> list[str]:
    """Of its notes those on one row: that the decision model of SkipVAR was fitted on prompts of this comparison."""
    row = f"{name}: "
    return [note.removeprefix(row) for note in compared.facts.get("notes", ()) if note.startswith(row)]


def _against(pair: Any) -> str:
    """``+0.04 [0.03, 0.05] above cfg-off:last=2, the best baseline at equal or less work (work 0.32 against 0.35)``."""
    far = _apart(pair)
    joined = f"{far} with" if far.startswith(LEVEL) else far
    return f"{joined} {pair.baseline}, {pair.rank} (work {pair.work_baseline:.2f} against {pair.work:.2f})"


def _mixes(pairs: pd.DataFrame) -> list[str]:
    """``Against the best mix at equal work, 0.009 [0.005, 0.011] below: truncate:last=2 on 73 % ...``."""
    return [f"Against {pair.rank}, {_apart(pair)}: {pair.baseline}" for pair in pairs.iloc[1:].itertuples()]


def _apart(pair: Any) -> str:
    """How far above or below, with the interval in that direction; ``level`` where three decimals show no distance."""
    level = round(abs(pair.difference), 3) == 0
    sign, word = (1, "above") if pair.difference >= 0 or level else (-1, "below")
    low, high = (round(end, 3) + 0.0 for end in sorted((sign * pair.low, sign * pair.high)))  # never -0.000
    interval = "" if np.isnan(pair.low) else f" [{low:.3f}, {high:.3f}]"
    if level:
        return f"{LEVEL} (0.000{interval})"
    return f"{'+' if sign > 0 else ''}{abs(pair.difference):.3f}{interval} {word}"


def _cost(row: pd.Series) -> str:
    """Work and measured speed; no interval where too few batches were timed for one."""
    ends = "" if np.isnan(row.speedup_low) else f" [{row.speedup_low:.2f}, {row.speedup_high:.2f}]"
    batches = f"{row.timings:.0f} timed batch{'es' if row.timings != 1 else ''}"
    return f"It does {row.work_ratio:.2f} of the dense work and is {row.speedup:.2f}{ends} times as fast ({batches})."


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
    gain = number("accuracy minus the best fixed answer's", Interval(row["gain"], row["gain low"], row["gain high"]), n)
    finding += f"; the difference to the best fixed answer is {gain}. n = {n}."
    return Verdict(claim, judged(gain), finding, numbers=(gain,))


def _outcome(pairs: pd.DataFrame, drawn: bool) -> tuple[Outcome, str]:
    """The worst that comes of a method's comparisons: it must beat the best baseline and the best mix."""
    if pairs.empty:
        return Outcome.NOT_COMPARABLE, "No baseline computes as little."
    order = (Outcome.TOO_FEW, Outcome.FAILS, Outcome.WIDE, Outcome.NO_DIFFERENCE, Outcome.HOLDS)
    worst = min(pairs.verdict, key=order.index)
    if worst is Outcome.HOLDS and not drawn:
        return Outcome.NOT_COMPARABLE, UNDRAWN
    single = pairs.verdict.iloc[0]
    return worst, MIXED if worst is Outcome.FAILS and single is not Outcome.FAILS else ""

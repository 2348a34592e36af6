"""Verdicts on accelerators, composed from a comparison's own numbers: is the method's choice worth it?"""

import pandas as pd
import xarray as xr

from varlab.comparison import Comparison, against_controls
from varlab.figures.decisions import kept_share_table
from varlab.figures.tradeoff import CONTROLS
from varlab.verdicts import HOLDS, NOT, PARTLY, UNCLEAR, Verdict

BLIND = ("random-tokens", "uniform-tokens", "oracle-tokens")
IDLE = "cannot be told (it did not engage)"
NO_CONTROL = "cannot be told (no control computes as little)"


def matched_controls(log: xr.DataTree, least: float = 0.01) -> list[str]:
    """Specs of the token controls that compute, stage by stage, the mean share that the method of a log computed.

    The oracle among them bounds what a better choice of tokens could reach.
    """
    table = kept_share_table(log)
    stages = len(log.attrs["schedule"])
    shares = dict(zip(table.stage, table["mean"], strict=True))
    last = range(min(shares), stages + 1)
    keep = "/".join(f"{min(1.0, max(least, shares.get(k, 1.0))):.2g}" for k in last)
    return [f"{name}:keep={keep},last={len(last)}" for name in BLIND]


def methods(compared: Comparison, measure: str = "ssim") -> list[Verdict]:
    """One verdict a method: does it keep more of the dense image than every control that computes no more?"""
    pairs, found = against_controls(compared, measure), []
    for name, row in compared.table.iterrows():
        if str(name).partition(":")[0] in ("none", "oracle-tokens", *CONTROLS):  # an oracle is a bound, no method
            continue
        own = pairs[pairs.method == name]
        parts = [
            f"Work {row.work_ratio:.2f} of dense, {row.speedup:.2f} ({row.speedup_low:.2f} to {row.speedup_high:.2f}) "
            f"times as fast, SSIM {row.ssim:.3f} ({row.ssim_low:.3f} to {row.ssim_high:.3f})"
        ]
        less = [
            f"less that of {pair.control} (work {pair.work_control:.2f}): "
            f"{pair.difference:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})"
            for pair in own.itertuples()
        ]
        parts += ["; ".join(less)] if less else []
        parts += [] if row.engaged else ["It did not engage: it computed as much as the dense run"]
        found.append(
            {
                "claim": f"{name} keeps more of the image than leaving out as much work blindly",
                "finding": ". ".join([*parts, f"n = {row.n:.0f}."]),
                "verdict": _word(own) if row.engaged else IDLE,
            }
        )
    return found


def _word(pairs: pd.DataFrame) -> str:
    if pairs.empty:
        return NO_CONTROL
    beaten, beats = (pairs.verdict == "is beaten by").sum(), (pairs.verdict == "beats").sum()
    if beats == len(pairs):
        return HOLDS
    if beaten == len(pairs) or (beaten and not beats):
        return NOT
    return PARTLY if beats else UNCLEAR

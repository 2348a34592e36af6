"""The claims that the papers' methods start from, those of reports 01 to 04, checked on logs and side by side."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from varlab.analysis.logs import Log, as_log
from varlab.analysis.measured import Measured
from varlab.claims import freqexit, skipvar, sparsevar
from varlab.claims.account import facts
from varlab.claims.verdict import Verdict

TABLE = "motivation"


def motivation(log: Log) -> list[Verdict]:
    """What residuals, blocks, guidance rows and late stages of one run say. The log holds all probes."""
    return [
        sparsevar.residuals_on_edges(log),
        sparsevar.changes_on_edges(log),
        freqexit.high_frequency_rises(log),
        sparsevar.blocks_differ(log),
        skipvar.gap_shrinks(log),
        skipvar.gap_minimal(log),
        skipvar.late_steps_redundant(log),
    ]


def side_by_side(logs: Sequence[Log]) -> Measured:
    """One row a log, claim and number that the verdict rests on, with its 95 % interval over ``values`` prompts."""
    rows = [row for log in logs for row in _rows(log)]
    names = ("prompt_set", "settings", "versions", "git", "date")
    runs = [facts(log) | {name: as_log(log).attrs.get(name) for name in names} for log in logs]
    return Measured(pd.DataFrame(rows), {"model": ", ".join(str(run["model"]) for run in runs), "runs": runs})


def _rows(log: Log) -> Iterator[dict[str, Any]]:
    known = facts(log)
    start = {name: known[name] for name in ("model", "weights", "n", "seed", "dtype")}
    start["scenes"] = as_log(log).attrs.get("scene_version")
    for verdict in motivation(log):
        about = {"claim": verdict.claim, "verdict": str(verdict.outcome)}
        for number in verdict.numbers:
            own = {"number": number.name, "estimate": number.estimate, "low": number.low, "high": number.high}
            yield start | about | own | {"values": number.n, "margin": number.margin, "reference": number.reference}
        if not verdict.numbers:
            yield start | about | {"number": "", "values": 0}

"""The ledger as tables: counts, findings, claims by model; the papers' tables with what was measured beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from varlab.analysis.settings_table import SettingsTable
from varlab.claims.arithmetic import Book
from varlab.claims.derive import stored
from varlab.claims.ledger import Claim, claims_folder, read_claims
from varlab.claims.questions import KEEPS, MINIS, matched
from varlab.claims.verdict import Outcome, Verdict
from varlab.errors import unknown

Verdicts = Sequence[Mapping[str, Any]]
POSTER = {  # the columns of its tables, as printed
    "geneval": ("two-obj", "position", "color-attri", "counting", "colors", "sin-obj", "overall", "latency"),
    "dpg": ("dpg-global", "dpg-relation", "dpg", "latency"),
    "preference": ("ir", "latency", "hps-anime", "hps-concept", "hps-paintings", "hps-photo", "hps", "latency-hps"),
    "ablation-alpha": ("overall", "latency"),
    "ablation-p": ("overall", "latency"),
}
KINDS = ("", "share", "ratio", "points", "number")  # of a number, which no one writes after it
MEASURED = ("setting here", "n", "work", "tokens", "SSIM to dense", "scene score", "score minus dense's",
            "blind at its work")  # fmt: skip


def counts(verdicts: Verdicts, claims: Sequence[Claim]) -> pd.DataFrame:
    """Verdicts by paper (row) and outcome (column)."""
    papers = {claim.id: f"{claim.method}, {claim.paper}" for claim in claims}
    frame = pd.DataFrame([{"paper": papers[row["claim"]], "outcome": row["verdict"]} for row in verdicts])
    table = pd.crosstab(frame.paper, frame.outcome)
    known = [str(outcome) for outcome in Outcome if str(outcome) in table]
    return table[known].assign(all=table.sum(axis=1)).sort_values("all", ascending=False)


def by_group(verdicts: Verdicts, claims: Sequence[Claim]) -> pd.DataFrame:
    """Tables and texts of the papers by model (row): how many of their numbers have which verdict (column).

    Those of ``told``: on stored runs, and what the papers' own numbers deny or prove.
    """
    known, rows = {claim.id: claim for claim in claims}, []
    for row in filter(_decided, verdicts):
        claim = known[row["claim"]]
        place = " ".join(claim.group.split(".")[1:]).replace("-", " ")
        on = row["model"] if row["run"] else "its own numbers"
        rows.append({"published": f"{claim.method}: {place}", "held against": on, "outcome": row["verdict"]})
    frame = pd.DataFrame(rows, columns=["published", "held against", "outcome"])
    table = pd.crosstab([frame.published, frame["held against"]], frame.outcome)
    return table[[str(outcome) for outcome in Outcome if str(outcome) in table]].rename_axis(columns=None)


def by_model(verdicts: Verdicts, claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims that stored runs were held against: one row a claim, the verdict on each model in a column."""
    tested = {row["claim"] for row in verdicts if row["run"]}
    known = {claim.id: claim for claim in claims}
    rows: dict[str, dict[str, Any]] = {}
    for row in verdicts:
        if row["claim"] in tested:
            claim = known[row["claim"]]
            about = {"published": f"{_quoted(claim)}, {claim.model}", "by its own paper": ""}
            cells = rows.setdefault(row["claim"], about)
            cells[row["model"] if row["run"] else "by its own paper"] = row["verdict"]
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("claim")


def _quoted(claim: Claim) -> str:
    """As printed, with the unit that a reader needs: ``1.28 times``, but ``up to 2x``, ``~50%`` and ``.51``."""
    told = claim.unit in KINDS or claim.quote.endswith(("x", "%"))
    return claim.quote if told else f"{claim.quote} {claim.unit}"


def measured(verdicts: Verdicts) -> pd.DataFrame:
    """Verdicts on stored runs with their numbers."""
    rows = [
        {"claim": row["claim"], "model": row["model"], "verdict": row["verdict"], "finding": row["finding"],
         "n": row["n"], "n needed": row["n_needed"] or "", "reason": row["reason"]}
        for row in verdicts
        if row["run"]
    ]  # fmt: skip
    columns = ["claim", "model", "verdict", "finding", "n", "n needed", "reason"]
    return pd.DataFrame(rows, columns=columns)


def told(verdicts: Verdicts, claims: Sequence[Claim]) -> list[Verdict]:
    """For a report: verdicts on stored runs, those on statements in prose, and every number that its table denies."""
    known = {claim.id: claim for claim in claims}
    found = []
    for row in verdicts:
        if _decided(row):
            claim = known[row["claim"]]
            where = f"on {row['model']}" if row["run"] else "by the paper's own numbers"
            name = f"{claim.method}, {claim.document}: {claim.locator}: {claim.quote} ({where})"
            found.append(Verdict(name, Outcome(row["verdict"]), row["finding"] or "Nothing was run.", row["reason"]))
    return found


def _decided(row: Mapping[str, Any]) -> bool:
    """Whether something was measured or recomputed, and not just found to agree with the numbers beside it."""
    by_tables = row["rule"] in ("by-its-tables", "arithmetic") and row["verdict"] != Outcome.ARITHMETIC
    return bool(row["run"]) or by_tables


def arithmetic_findings(verdicts: Verdicts) -> pd.DataFrame:
    """What does not agree with the numbers beside it, and what statements in prose come to in their tables."""
    rows = [
        {"claim": row["claim"], "verdict": row["verdict"], "rule": check["rule"], "finding": check["text"]}
        for row in verdicts
        for check in row["arithmetic"]
        if check["agrees"] is False or (row["rule"] == "by-its-tables" and check["agrees"] is not None)
    ]
    return pd.DataFrame(rows, columns=["claim", "verdict", "rule", "finding"])


def checks_by_rule(verdicts: Verdicts) -> pd.DataFrame:
    """How often each arithmetic rule was asked, agreed, did not, or informs only."""
    rows = [{"rule": check["rule"], "agrees": check["agrees"]} for row in verdicts for check in row["arithmetic"]]
    frame = pd.DataFrame(rows)
    words = frame.agrees.map({True: "agrees", False: "does not agree"}).fillna("for information")
    return pd.crosstab(frame.rule, words)


def poster_table(name: str, folder: Path | None = None) -> pd.DataFrame:
    """A table of SparseVAR's poster row for row as printed, with what stored runs of the minis measured beside it.

    A row at a tau stands beside this model's row at the share of tokens that its latency implies, for tau is on a scale
    that the sources do not give. Empty cells: no such run is stored.

    Raises
    ------
    VarlabError: the poster has no such table.
    """
    if name not in POSTER:
        raise unknown("table of the poster", name, POSTER)
    place = folder or claims_folder()
    book = Book(read_claims(place))
    rows = []
    for (group, row), cells in book.rows.items():
        if group == f"sparsevar.poster.{name}":
            any_cell = next(iter(cells.values()))
            printed = {column: cells[column].quote for column in POSTER[name]}
            order = (any_cell.model != "infinity-2b", _place(row))
            rows.append((order, {"row": row} | printed | _beside(any_cell, name, place)))
    return pd.DataFrame([cells for _, cells in sorted(rows, key=lambda pair: pair[0])]).fillna("").set_index("row")


def _place(row: str) -> float:
    last = row.split()[-1]
    return float(last) if last.replace(".", "").isdigit() else 99.0 if last == "none" else 0.0


def _beside(claim: Claim, name: str, place: Path) -> dict[str, Any]:
    mini = MINIS[claim.model]
    study = "sparsevar" if name.startswith("ablation") else "methods"
    table = stored(place, mini, study)
    spec = None if table is None else _spec_of(claim, name, table)
    if table is None or spec is None or spec not in table.works.index:
        return dict.fromkeys(MEASURED, "")
    row = table.table(spec).iloc[0]
    values: list[Any] = [spec, int(row.n), f"{row.work:.3f}"]
    values += ["" if np.isnan(row.computed) else f"{row.computed:.2f}", _ends(row, "ssim", "{:.3f}")]
    values += [_ends(row, "score", "{:.2f}"), _ends(row, "score_change", "{:+.2f}")] if "score" in row else ["", ""]
    return dict(zip(MEASURED, [*values, _blind(table, spec)], strict=True))


def _spec_of(claim: Claim, name: str, table: SettingsTable) -> str | None:
    """The setting of a mini that stands beside a row."""
    if not claim.spec:
        return "none"
    last = claim.row.split()[-1]
    if name == "ablation-alpha":
        return matched(table, alpha=last)
    if name == "ablation-p":
        return matched(table, last=claim.spec.rpartition("last=")[2])
    return f"sparsevar:keep={KEEPS[last]:g},last=3"


def _blind(table: SettingsTable, spec: str) -> str:
    """The best blind baseline at no more work: its spec and mean SSIM."""
    cheap = [name for name in table.baselines().index if name != "none" and table.works[name] <= table.works[spec]]
    if spec == "none" or not cheap:
        return ""
    means = table.values("ssim", *cheap).mean(axis=1)
    return f"{means.idxmax()}: {means.max():.3f}"


def _ends(row: pd.Series, name: str, form: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = form.format(row[name])
    return text if np.isnan(low) or low == high else f"{text} [{form.format(low)}, {form.format(high)}]"

"""What ``varlab claims`` does: list, explain, derive and check."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.claims.derive import check_verdicts, read_verdicts
from varlab.claims.documents import coverage, kept_coverage
from varlab.claims.ledger import find_claim, read_claims, select
from varlab.claims.verdict import Outcome
from varlab.errors import VarlabError, unknown

Verdicts = Sequence[dict[str, Any]]


def listed(
    folder: Path | None, outcome: str | None = None, model: str | None = None, **wanted: str | None
) -> pd.DataFrame:
    """Claims with their verdicts, one row a verdict: id, quoted figure, model of the verdict, verdict.

    ``model`` is that of the claim or of the verdict. Raises VarlabError for a filter that nothing has.
    """
    claims, verdicts = read_claims(folder), read_verdicts(folder)
    if outcome is not None and outcome not in set(Outcome):
        raise unknown("outcome", outcome, list(Outcome))
    chosen = {claim.id: claim for claim in select(claims, **wanted)}
    known = {claim.model for claim in claims} | {row["model"] for row in verdicts}
    if model is not None and model not in known:
        raise unknown("model", model, sorted(known))
    rows = [
        {"claim": row["claim"], "quoted": chosen[row["claim"]].quote, "unit": chosen[row["claim"]].unit,
         "model": row["model"], "verdict": row["verdict"]}
        for row in verdicts
        if row["claim"] in chosen
        and outcome in (None, row["verdict"])
        and model in (None, row["model"], chosen[row["claim"]].model)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "quoted", "unit", "model", "verdict"])


def explained(folder: Path | None, name: str) -> Iterator[str]:
    """One claim in lines: where it stands, then each verdict with what it rests on.

    Raises
    ------
    VarlabError: no claim, or several, have this id or part of one.
    """
    claim = find_claim(read_claims(folder), name)
    better = {True: "lower is better", False: "higher is better", None: "neither is better"}[claim.lower_is_better]
    yield claim.id
    yield f"  {claim.evaluation_name}: {claim.quote} ({claim.value:g} {claim.unit}; {better})"
    yield f"  {claim.paper}, {claim.document} [{claim.source_kind}]: {claim.locator}"
    yield f"  model {claim.model}, method {claim.spec or 'none here'}, n {claim.n}"
    yield f"  hardware {claim.hardware}, timer {claim.timer}"
    if claim.baseline:
        yield f"  beside {claim.baseline}"
    for row in read_verdicts(folder):
        if row["claim"] == claim.id:
            yield from _verdict_lines(row)


def _verdict_lines(row: dict[str, Any]) -> Iterator[str]:
    yield f"{row['model']}: {row['verdict']} (rule {row['rule']})"
    for text in (row["finding"], row["reason"]):
        if text:
            yield f"  {text}"
    for baseline in row["baselines"]:
        yield (
            f"  baseline {baseline['spec']}: work {baseline['work']}, SSIM of the method less its own "
            f"{baseline['ssim_difference']} ({baseline['low']} to {baseline['high']})"
        )
    if row["n_needed"]:
        yield f"  it would need n = {row['n_needed']}; there were {row['n']}"
    if row["run"]:
        yield f"  run {row['run']} {row['run_digest']}, {row['weights']}, commit {row['commit']}: {row['command']}"
    for check in row["arithmetic"]:
        word = {True: "agrees", False: "does not agree", None: "for information"}[check["agrees"]]
        yield f"  {check['rule']}: {word}. {check['text']}"


def checked(folder: Path | None, documents: Path | None) -> Iterator[str]:
    """Every verdict derived again and, where the documents are given, every number of them looked for; the counts.

    Raises
    ------
    VarlabError: a verdict that differs, or a number without a row.
    """
    claims = read_claims(folder)
    verdicts = check_verdicts(folder)
    yield f"{len(claims)} claims, {len(verdicts)} verdicts derived again from the stored runs: equal byte for byte"
    for outcome, n in Counter(row["verdict"] for row in verdicts).most_common():
        yield f"  {outcome}: {n}"
    yield from stale(verdicts)
    found = kept_coverage(claims, folder)
    found += [] if documents is None else coverage(claims, documents, folder)
    yield from (one.line() for one in found)
    if incomplete := [one.line() for one in found if not one.complete]:
        raise VarlabError(f"Numbers of the documents and rows of the ledger differ: {'; '.join(incomplete)}")


def stale(verdicts: Verdicts) -> Iterator[str]:
    """A line on each model whose shipped weights are no longer those that its runs were drawn with."""
    from varlab.weights.registry import MODELS
    from varlab.weights.zoo import shipped_weights

    runs = {row["run"].partition("/")[0]: row["weights"] for row in verdicts if row["run"] and row["command"]}
    for model, weights in runs.items():
        entry = MODELS.get(model)
        now = None if entry is None else str(shipped_weights(entry))
        if now is not None and weights.startswith("trained") and now != weights and "recipes" not in weights:
            yield (
                f"  {model} ships {now}, its runs were drawn with {weights}: "
                f"varlab evidence {model} --overwrite, then varlab claims --derive"
            )

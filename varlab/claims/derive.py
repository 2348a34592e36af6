"""Every verdict of the ledger, derived by rule from the claims, the papers' own tables and the stored runs.

A claim has one verdict for the model it is about and one for each mini whose stored runs can be held against it. None
is typed: ``verdicts`` gives the same rows from the same files, byte for byte.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from varlab.analysis.settings_table import SettingsTable, read_settings_table
from varlab.claims.arithmetic import Book, Check, checks
from varlab.claims.evidence import Finding
from varlab.claims.ledger import CLAIMS, NOT_STATED, VERDICTS, Claim, claims_folder, read_claims
from varlab.claims.prose import prose
from varlab.claims.questions import MINIS, questions, recipe_verdict
from varlab.claims.verdict import Number, Outcome, six_digits
from varlab.errors import VarlabError
from varlab.json_files import as_lines, read_lines
from varlab.writing import write_text

RUNS = "runs"
RECIPES = "mini-var-freqexit"  # beside whose weights the ablation of recipes lies
REASONS = {
    Outcome.NEEDS_WEIGHTS: "Only the model that it is about can tell.",
    Outcome.NEEDS_GPU: "A time or a size of memory on a GPU.",
}


@dataclass(frozen=True)
class Row:
    """A verdict as the ledger keeps it."""

    claim: str
    model: str
    outcome: Outcome
    rule: str
    finding: Finding
    facts: Mapping[str, Any]
    arithmetic: Sequence[Check] = ()

    def record(self) -> dict[str, Any]:
        found, first = self.finding, next(iter(self.finding.numbers), None)
        return {
            "claim": self.claim,
            "model": self.model,
            "verdict": str(self.outcome),
            "rule": self.rule,
            "parameters": found.parameters,
            "finding": found.text,
            "reason": found.reason,
            "measured": None if first is None else six_digits(first.estimate),
            "low": None if first is None else six_digits(first.low),
            "high": None if first is None else six_digits(first.high),
            "n": self.facts.get("n") if first is None else first.n,
            "n_needed": found.needed,
            "numbers": [_number(number) for number in found.numbers],
            "baselines": list(found.baselines),
            **{name: self.facts.get(name) for name in ("weights", "run", "run_digest", "command", "commit")},
            "source_type": "evaluation_run" if self.facts else "documentation",
            "arithmetic": [check.record() for check in self.arithmetic],
        }


def _number(number: Number) -> dict[str, Any]:
    ends = {name: six_digits(getattr(number, name)) for name in ("estimate", "low", "high")}
    return {"name": number.name, **ends, "n": number.n, "margin": number.margin}


def verdicts(folder: Path | None = None) -> list[dict[str, Any]]:
    """One record a claim and model, sorted.

    Raises
    ------
    VarlabError: claims or stored runs that are damaged.
    """
    place = folder or claims_folder()
    book = Book(read_claims(place))
    rows = [row for claim in book.claims for row in _of_claim(book, claim, place)]
    return [row.record() for row in sorted(rows, key=lambda row: (row.claim, row.model))]


def _of_claim(book: Book, claim: Claim, place: Path) -> Iterator[Row]:
    said = checks(book, claim)
    yield _own(book, claim, said)
    for question in questions(book, claim):
        if (table := stored(place, question.model, question.study)) is not None:
            found = question.ask(table)
            yield Row(claim.id, question.model, found.outcome, question.rule, found, _facts(table, question.study))
    recipes = claims_folder().parent / RECIPES
    if (recipes / "ablation.csv").is_file() and (judged := recipe_verdict(claim, recipes)) is not None:
        rule, verdict = judged
        found = Finding(verdict.outcome, verdict.finding, verdict.numbers, reason=verdict.reason)
        yield Row(claim.id, "mini-var", verdict.outcome, rule, found, _recipe_facts(recipes))


def stored(place: Path, model: str, study: str) -> SettingsTable | None:
    """A study of a model, None where it was not drawn."""
    folder = place / RUNS / model
    if not (table := folder / f"{study}.csv").is_file():
        return None
    return _read(folder, study, (table.stat().st_mtime_ns, table.stat().st_size))


@cache
def _read(folder: Path, study: str, _changed: tuple[int, int]) -> SettingsTable:
    return read_settings_table(folder, study)


def _facts(table: SettingsTable, study: str) -> dict[str, Any]:
    known = table.facts
    return {"n": table.n, "weights": known["weights"], "run": f"{known['model']}/{study}", "run_digest": table.digest,
            "command": known["command"], "commit": known["git"]}  # fmt: skip


def _recipe_facts(folder: Path) -> dict[str, Any]:
    files = (folder / "ablation.csv").read_bytes() + (folder / "ablation.json").read_bytes()
    digest = hashlib.sha256(files).hexdigest()[:16]
    about = f"trained (varlab {RECIPES}) and the recipes of its table"
    return {"weights": about, "run": f"{RECIPES}/ablation", "run_digest": digest, "command": "varlab ablate"}


# The model that a claim is about


def _own(book: Book, claim: Claim, said: list[Check]) -> Row:
    """By arithmetic where it is enough, else what the claim needs."""
    if (told := prose(book, claim)) is not None:
        return _row(claim, told[0], "by-its-tables", [*told[1], *said])
    return _row(claim, *_outcome(claim, said), said)


def _outcome(claim: Claim, said: Sequence[Check]) -> tuple[Outcome, str]:
    told = [check for check in said if check.agrees is not None]
    if any(not check.agrees for check in told):
        return Outcome.FAILS, "arithmetic"
    if told and (claim.source_kind == "inferred" or claim.quantity in ("work", "setting")):
        return Outcome.ARITHMETIC, "arithmetic"
    if claim.source_kind == "inferred" or claim.quantity in ("setting", "fit"):
        return Outcome.NOT_COMPARABLE, "setting-or-inference"
    if claim.quantity in ("latency", "memory"):
        stated = claim.hardware != NOT_STATED
        return (Outcome.NEEDS_GPU if stated else Outcome.NOT_COMPARABLE), "hardware-stated"
    if claim.quantity == "speed-up":
        return Outcome.NEEDS_GPU, "kind-of-number"
    return Outcome.NEEDS_WEIGHTS, "kind-of-number"


def _row(claim: Claim, outcome: Outcome, rule: str, said: Sequence[Check]) -> Row:
    text = " ".join(check.text for check in said)
    return Row(claim.id, claim.model, outcome, rule, Finding(outcome, text, reason=_reason(claim, outcome)), {}, said)


def _reason(claim: Claim, outcome: Outcome) -> str:
    if outcome is Outcome.NOT_COMPARABLE and claim.quantity in ("latency", "memory"):
        return "Hardware and timer are not stated, so no time of ours may stand beside it."
    if outcome is Outcome.NOT_COMPARABLE:
        return "A setting, a coefficient or an inference that no rule recomputes: there is nothing to measure."
    if outcome is Outcome.NEEDS_WEIGHTS and claim.model in MINIS and claim.spec:
        return f"{REASONS[outcome]} With its files: varlab evidence {claim.model} --out FOLDER."
    return REASONS.get(outcome, "")


# The file


def write_verdicts(folder: Path | None = None) -> Path:
    """Derive all verdicts and write ``verdicts.jsonl``."""
    place = folder or claims_folder()
    text = as_lines(verdicts(place))
    write_text(place / VERDICTS, text)
    return place / VERDICTS


def check_verdicts(folder: Path | None = None) -> list[dict[str, Any]]:
    """Derive every verdict again and hold the result against the stored file, byte for byte; returns them.

    Raises
    ------
    VarlabError: names the first line that differs.
    """
    place = folder or claims_folder()
    derived = verdicts(place)
    path, text = place / VERDICTS, as_lines(derived)
    held = path.read_text("utf-8") if path.is_file() else ""
    if held != text:
        lines = zip([*text.splitlines(), ""], [*held.splitlines(), ""], strict=False)
        number = next((i for i, (own, other) in enumerate(lines, 1) if own != other), 0)
        raise VarlabError(
            f"{path}, line {number}, is not what the rules derive from {CLAIMS} and the stored runs. "
            "varlab claims --derive writes it anew."
        )
    return derived


def read_verdicts(folder: Path | None = None) -> list[dict[str, Any]]:
    """The stored verdicts. Raises VarlabError for a line that cannot be read."""
    return [record for _, record in read_lines((folder or claims_folder()) / VERDICTS)]

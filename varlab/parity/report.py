"""What parity found: one line an array, the bits, the near ties, and whether it passed."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NEAR_TIES_ALLOWED = 5  # a file; more of them is no accident


@dataclass(frozen=True)
class ArrayCheck:
    """One array against the golden.

    ``max_error`` is the largest absolute difference, ``relative_error`` the same over the golden's
    largest magnitude, ``allowed`` the largest ``max_error`` that passes (0: equal). For bits and other
    labels ``relative_error`` is the share that differs. ``remark`` says what the numbers cannot.
    """

    name: str
    shape: tuple[int, ...]
    max_error: float
    relative_error: float
    allowed: float
    ok: bool
    remark: str = ""

    @property
    def family(self) -> str:
        """The name with stages, layers, templates and cases left open: logits_3 -> logits_*, mean [a] -> mean [*]."""
        return re.sub(r"_(s|l|d|step|pmax)?\d[\d.]*(?=_|$)", r"_\1*", re.sub(r" \[.*\]$", " [*]", self.name))

    @property
    def strain(self) -> float:
        """The part of the allowance that is used; infinite for a failure."""
        if not self.ok:
            return float("inf")
        return self.max_error / self.allowed if self.allowed else 0.0


@dataclass
class Report:
    """Parity of one golden file; ``forced_near_ties`` are labels taken from it where its own margin is noise."""

    path: Path
    kind: str
    rows: list[ArrayCheck] = field(default_factory=list)
    bits_compared: int = 0
    bit_mismatches: int = 0
    forced_near_ties: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[ArrayCheck]:
        return [row for row in self.rows if not row.ok]

    @property
    def passed(self) -> bool:
        """Something was compared, all of it within its allowance, with few enough near ties."""
        return bool(self.rows) and not self.failures and self.forced_near_ties <= NEAR_TIES_ALLOWED

    def render(self, every: bool = False) -> str:
        """Text for the terminal: failures and the most strained array of each family; ``every`` lists all arrays."""
        shown = [(row.name, row) for row in self.rows] if every else list(_condensed(self.rows))
        table = _aligned([_HEADER, *(_cells(name, row) for name, row in shown)]) if shown else []
        return "\n".join([f"{self.path.name} ({self.kind})", *table, *self._summary()])

    def _summary(self) -> Iterator[str]:
        if self.bits_compared:
            yield (
                f"bits: {self.bit_mismatches} of {self.bits_compared} differ; "
                f"forced near ties: {self.forced_near_ties} (at most {NEAR_TIES_ALLOWED})"
            )
        yield from (f"note: {note}" for note in self.notes)
        if self.passed:
            yield f"PASS: {len(self.rows)} arrays within tolerance"
        elif self.failures:
            yield f"FAIL: {len(self.failures)} of {len(self.rows)} arrays out of tolerance"
        else:
            yield "FAIL: too many near ties" if self.rows else "FAIL: nothing was compared"


_HEADER = ("array", "shape", "max error", "relative", "allowed", "")


def _condensed(rows: Sequence[ArrayCheck]) -> Iterator[tuple[str, ArrayCheck]]:
    """(label, row): every failure, and of each family without one the row that uses most of its allowance."""
    families: dict[str, list[ArrayCheck]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    for family, members in families.items():
        failed = [row for row in members if not row.ok]
        if failed:
            yield from ((row.name, row) for row in failed)
        elif len(members) == 1:
            yield members[0].name, members[0]
        else:
            yield f"{family} ({len(members)})", max(members, key=lambda row: row.strain)


def _cells(label: str, row: ArrayCheck) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape)) or "scalar"
    allowed = f"{row.allowed:.1e}" if row.allowed else "equal"
    verdict = " ".join(filter(None, ("ok" if row.ok else "FAIL", row.remark)))
    return label, shape, f"{row.max_error:.1e}", f"{row.relative_error:.1e}", allowed, verdict


def _aligned(table: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(table)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

"""A verdict: what came of checking a claim, why, and the numbers that it rests on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from varlab.markup import table_html


class Outcome(StrEnum):
    """What may come of checking a claim. The value is the word that people read."""

    HOLDS = "holds"
    PARTLY = "partly"
    FAILS = "does not hold"
    NO_DIFFERENCE = "no difference"
    """The whole interval lies within the stated margin: what there may be is too small to matter."""
    WIDE = "cannot be told"
    """Enough was measured, but the interval reaches to both sides."""
    TOO_FEW = "too few"
    """Fewer values than an interval needs, or none."""
    NOT_MEASURED = "not measured"
    """What would have to be measured is not there (no guidance, no such run)."""
    NOT_ENGAGED = "not engaged"
    """The setting left out so little that it tested nothing."""
    NOT_COMPARABLE = "not comparable"
    """Nothing at hand may stand beside it."""
    NEEDS_WEIGHTS = "needs official weights"
    """Only the model that the claim is about can tell."""
    NEEDS_GPU = "needs a GPU"
    """A time or a size of memory on such a device."""
    ARITHMETIC = "arithmetic only"
    """The numbers beside it, or shapes alone, give it again; nothing was measured."""

    @property
    def tone(self) -> str:
        """The colour of a report: good, part, bad, or none."""
        tones = {Outcome.HOLDS: "good", Outcome.PARTLY: "part", Outcome.FAILS: "bad"}
        return tones.get(self, "")


class Side(StrEnum):
    """Where a number that supports its claim lies."""

    ABOVE = "above"
    """Above its reference."""
    BELOW = "below"
    WITHIN = "within"
    """No further than its margin from its reference."""
    NEITHER = "neither"
    """It informs, and no rule judges it."""


def six_digits(value: float) -> float | None:
    """As files keep it: more digits would differ between processors. None for what is not finite."""
    return float(f"{value:.6g}") if abs(value) < float("inf") else None


@dataclass(frozen=True)
class Number:
    """An estimate with its 95 % interval.

    ``n`` is how many values it rests on; differences of up to ``margin`` count as none. ``reference``: what it is
    judged against, 0 for a difference. ``supports``: the side of it that supports the claim.
    """

    name: str
    estimate: float
    low: float
    high: float
    n: int
    margin: float = 0.0
    reference: float = 0.0
    supports: Side = Side.ABOVE

    def __str__(self) -> str:
        """``0.41 (0.39 to 0.43)``: two decimals, more where all three are small; no bounds where there are none."""
        if np.isnan(self.estimate):
            return "not measured"
        values = [self.estimate] if np.isnan(self.low) else [self.estimate, self.low, self.high]
        largest = max(abs(value) for value in values)
        digits = 2 if largest == 0 or largest >= 0.095 else int(np.ceil(-np.log10(largest))) + 1
        texts = [f"{round(float(value), digits) + 0.0:.{digits}f}" for value in values]
        return f"{texts[0]} (no interval)" if len(texts) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"

    @property
    def percent(self) -> str:
        """A share as ``8.3 % (7.1 to 9.6 %)``."""
        if np.isnan(self.estimate):
            return "not measured"
        value = f"{100 * self.estimate:.1f} %"
        return value if np.isnan(self.low) else f"{value} ({100 * self.low:.1f} to {100 * self.high:.1f} %)"


@dataclass(frozen=True)
class Verdict:
    """``finding``: what was measured, in sentences. ``reason``: why the outcome is not a plain yes or no.

    ``of``: model, weights, device, n ... of its numbers, where these were measured apart from the report's others.
    """

    claim: str
    outcome: Outcome
    finding: str
    reason: str = ""
    numbers: tuple[Number, ...] = ()
    of: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The finding with the reason after it, as a table shows them."""
        return f"{self.finding} {self.reason}".strip()

    def _repr_html_(self) -> str:
        numbers = {number.name: f"{number}, n = {number.n}" for number in self.numbers}
        rows = {"verdict": self.outcome, "finding": self.text, **numbers}
        return table_html(self.claim, {name: str(value) for name, value in rows.items()})

    def record(self) -> dict[str, Any]:
        """JSON: the parts, and ``verdict``, the word of the outcome. A bound that is not there is null."""
        numbers = [{name: _plain(value) for name, value in asdict(number).items()} for number in self.numbers]
        return {
            "claim": self.claim,
            "finding": self.finding,
            "reason": self.reason,
            "verdict": str(self.outcome),
            "numbers": numbers,
            **({"of": dict(self.of)} if self.of else {}),
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Verdict":
        """What ``record`` wrote, of an earlier version too, which did not say what supports a claim.

        Raises ValueError for a word that is no outcome, KeyError for a missing part.
        """
        numbers: list[dict[str, Any]] = [
            {name: np.nan if value is None else value for name, value in number.items()}
            | {"supports": Side(number.get("supports", Side.NEITHER))}
            for number in record.get("numbers", ())
        ]
        return cls(
            str(record["claim"]),
            Outcome(record["verdict"]),
            str(record["finding"]),
            str(record.get("reason", "")),
            tuple(Number(**number) for number in numbers),
            record.get("of", {}),
        )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    plain = value.item() if hasattr(value, "item") else value
    return plain if np.isfinite(plain) else None

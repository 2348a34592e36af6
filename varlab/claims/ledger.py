"""The ledger: every published number of the papers at hand, one row each, as facts with their source.

``data/claims/claims.jsonl`` is sorted by ``id``, one JSON object a line. Field names follow every-eval-ever where it
has one (``source_type``, ``evaluator_relationship``, ``evaluation_name``, ``lower_is_better``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from varlab.errors import VarlabError, quoted, unknown
from varlab.json_files import read_lines
from varlab.markup import table_html
from varlab.resources import shipped

CLAIMS, VERDICTS, DOCUMENTS = "claims.jsonl", "verdicts.jsonl", "documents.json"
KINDS = ("paper", "poster", "code", "third party", "inferred")
QUANTITIES = ("quality", "fidelity", "latency", "speed-up", "memory", "work", "mechanism", "setting", "fit")
NOT_STATED = "not stated"


def claims_folder() -> Path:
    """Where the shipped ledger lies."""
    return shipped("data") / "claims"


@dataclass(frozen=True)
class Claim:
    """A published number.

    ``quote``: the figure as printed; ``value`` the same as a number, in ``unit``. ``group``, ``row`` and ``column``:
    the table it stands in, for arithmetic. ``spec``: the method as varlab writes it, empty for the dense model and for
    methods that varlab does not have. ``baseline``: the id of the dense number beside it, where there is one.
    ``lower_is_better`` is None where neither is. ``n``, ``hardware`` and ``timer`` are "not stated" where the source
    is silent.
    """

    id: str
    paper: str
    method: str
    document: str
    source_kind: str
    source_type: str
    evaluator_relationship: str
    locator: str
    quote: str
    value: float
    unit: str
    quantity: str
    evaluation_name: str
    lower_is_better: bool | None
    group: str
    row: str
    column: str
    spec: str
    model: str
    n: int | str
    hardware: str
    timer: str
    baseline: str

    def _repr_html_(self) -> str:
        title = f"{self.quote} ({self.evaluation_name}), {self.method} on {self.model}"
        shown = ("id", "paper", "document", "source_kind", "locator", "quantity", "spec", "n", "hardware", "timer")
        return table_html(
            title, {name.replace("_", " "): str(value) for name in shown if (value := getattr(self, name))}
        )

    def __post_init__(self) -> None:
        """Raises ValueError for a kind or quantity that is none, and for a value that is no number."""
        if self.source_kind not in KINDS:
            raise ValueError(f"source_kind {quoted(self.source_kind)} is none of {', '.join(KINDS)}")
        if self.quantity not in QUANTITIES:
            raise ValueError(f"quantity {quoted(self.quantity)} is none of {', '.join(QUANTITIES)}")
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or self.value != self.value:
            raise ValueError(f"value {quoted(self.value)} is no number")


def read_claims(folder: Path | None = None) -> list[Claim]:
    """All claims of the ledger, sorted by id.

    Raises
    ------
    VarlabError: names file and line of what cannot be read, stands twice, or stands out of order.
    """
    path = (folder or claims_folder()) / CLAIMS
    names = {field.name for field in fields(Claim)}
    found: list[Claim] = []
    for place, record in read_lines(path):
        if record.keys() != names:
            differing = ", ".join(sorted(record.keys() ^ names))
            raise VarlabError(f"{place}: missing or unknown fields: {differing}.")
        try:
            claim = Claim(**record)
        except ValueError as error:
            raise VarlabError(f"{place}: {error}.") from error
        if found and claim.id <= found[-1].id:
            raise VarlabError(f"{place}: {claim.id} stands twice or out of order; keep the file sorted.")
        found.append(claim)
    known = {claim.id for claim in found}
    for claim in found:
        if claim.baseline and claim.baseline not in known:
            raise VarlabError(f"{path}: the baseline of {claim.id}, {claim.baseline}, is no claim of the ledger.")
    return found


def select(claims: Sequence[Claim], **wanted: str | None) -> list[Claim]:
    """The claims whose fields are those given; None asks nothing. ``paper`` matches a part of the paper or the method.

    Raises
    ------
    VarlabError: a value that no claim has, with near ones.
    """
    found = list(claims)
    for name, value in wanted.items():
        if value is None:
            continue
        part = [claim for claim in found if _is(claim, name, value)]
        if not any(_is(claim, name, value) for claim in claims):
            known = sorted({str(getattr(claim, name)) for claim in claims} - {""})
            raise unknown(name.replace("source_kind", "kind"), value, known)
        found = part
    return found


def _is(claim: Claim, name: str, value: str) -> bool:
    if name == "paper":
        return value.lower() in claim.paper.lower() or value.lower() == claim.method
    if name == "method":
        return value == claim.method or value == claim.spec.partition(":")[0]
    return str(getattr(claim, name)) == value


def find_claim(claims: Sequence[Claim], name: str) -> Claim:
    """The claim of an id, or of a part that only one id has.

    Raises
    ------
    VarlabError: none or several have it.
    """
    exact = [claim for claim in claims if claim.id == name]
    near = exact or [claim for claim in claims if name in claim.id]
    if not near:
        raise unknown("claim", name, [claim.id for claim in claims])
    if len(near) > 1:
        shown = ", ".join(claim.id for claim in near[:5])
        raise VarlabError(f"{name} is a part of {len(near)} ids: {shown}{', ...' if len(near) > 5 else ''}.")
    return near[0]

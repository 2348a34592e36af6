"""What arithmetic says of a published number: whether the numbers beside it, or shapes alone, give it again."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from varlab.claims import accounts
from varlab.claims.ledger import Claim
from varlab.claims.verdict import six_digits

MEANS = {
    "overall": ("sin-obj", "two-obj", "counting", "colors", "position", "color-attri"),
    "hps": ("hps-anime", "hps-concept", "hps-paintings", "hps-photo"),
}
TASKS = dict(zip(MEANS["overall"], (80, 99, 80, 94, 100, 100), strict=True))
IMAGES = 4  # a prompt of GenEval
KEPT = 0.05  # of a share of tokens that was inferred from latencies: how sure it is
CLOSE = 0.01  # of a recomputed account: its rounding
SPREAD = 0.02  # of a throughput: two measurements of one thing
SAME = (  # two places of one paper that report the same setting
    ("sparsevar.poster.ablation-alpha.{}-alpha-4.{}", "sparsevar.poster.geneval.{}-tau-0.6.{}"),
    ("sparsevar.poster.ablation-p.{}-p-10.{}", "sparsevar.poster.geneval.{}-tau-0.6.{}"),
)
PAIRS = {
    **{one.format(model, column): other.format(model, column) for one, other in SAME
       for model in ("infinity-2b", "hart-0.7b") for column in ("overall", "latency")},
    "freqexit.table-3.hf-and-fgsr.exit-12-with.epoch-80": "freqexit.table-1.imagenet-256.freqexit-c.fid",
    "freqexit.table-3.hf-and-fgsr.exit-12-without.epoch-80": "freqexit.table-1.imagenet-256.layerskip-c.fid",
    "freqexit.table-2.exit-vectors.16x5-12x5.fid": "freqexit.table-1.imagenet-256.freqexit-b.fid",
    "freqexit.table-2.exit-vectors.16.fid": "freqexit.table-1.imagenet-256.freqexit-a.fid",
    "infinity.issue-42.hpsv2.1.2b.hps": "sparsevar.poster.preference.infinity-2b.hps",
    "infinity.issue-42.hpsv2.1.2b.ir": "sparsevar.poster.preference.infinity-2b.ir",
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """``claimed`` against ``found``. ``agrees`` None: nothing to agree with, the number is for information."""

    rule: str
    parameters: dict[str, Any]
    claimed: float
    found: float
    agrees: bool | None
    text: str

    def record(self) -> dict[str, Any]:
        numbers = {"claimed": six_digits(self.claimed), "found": six_digits(self.found)}
        return {"rule": self.rule, "parameters": self.parameters, **numbers, "agrees": self.agrees, "text": self.text}


@dataclass(frozen=True)
class Book:
    """Claims by id and by the row of the table they stand in."""

    claims: Sequence[Claim]

    @cached_property
    def ids(self) -> dict[str, Claim]:
        return {claim.id: claim for claim in self.claims}

    @cached_property
    def rows(self) -> Mapping[tuple[str, str], dict[str, Claim]]:
        found: dict[tuple[str, str], dict[str, Claim]] = defaultdict(dict)
        for claim in self.claims:
            found[claim.group, claim.row][claim.column] = claim
        return found

    def beside(self, claim: Claim, column: str) -> Claim | None:
        return self.rows[claim.group, claim.row].get(column)

    def base(self, claim: Claim) -> Claim | None:
        return self.ids.get(claim.baseline)


def half_unit(claim: Claim) -> float:
    """Half a unit of the last digit that was printed, in the claim's unit."""
    digits = re.search(r"\d*\.?\d+", claim.quote)
    decimals = len(digits[0].partition(".")[2]) if digits else 0
    return 0.5 * 10.0**-decimals


def checks(book: Book, claim: Claim) -> list[Check]:
    """All that arithmetic says of a claim."""
    return [check for rule in RULES for check in rule(book, claim)]


def row_mean(book: Book, claim: Claim) -> Iterator[Check]:
    """The overall of a row is the mean of its parts."""
    parts = [book.beside(claim, name) for name in MEANS.get(claim.column, ())]
    if not parts or None in parts:
        return
    known = [part for part in parts if part is not None]
    mean = float(np.mean([part.value for part in known]))
    slack = half_unit(claim) + float(np.mean([half_unit(part) for part in known]))
    agrees = abs(mean - claim.value) <= slack + 1e-9
    yield Check("row-mean", {"slack": six_digits(slack)}, claim.value, mean, agrees,
                f"The mean of its {len(known)} parts is {mean:.5g}; {claim.quote} is printed.")  # fmt: skip


def same_setting(book: Book, claim: Claim) -> Iterator[Check]:
    """The same setting, reported twice, has the same number."""
    other = book.ids.get(PAIRS.get(claim.id, ""))
    if other is not None:
        agrees = abs(other.value - claim.value) <= half_unit(claim) + half_unit(other)
        yield Check("same-setting", {"other": other.id}, claim.value, other.value, agrees,
                    f"{other.locator} reports {other.quote} for the same setting.")  # fmt: skip


LATENCIES = ("latency", "latency-ms")
ELSEWHERE = {  # where the latencies of a speed-up stand in another table
    "skipvar.project-site.drawbench.skipvar-0.88.speed-up": "skipvar.figure-3.run-time.skipvar-0.88.latency",
    "skipvar.project-site.drawbench.skipvar-0.86.speed-up": "skipvar.figure-3.run-time.skipvar-0.86.latency",
    "skipvar.project-site.drawbench.skipvar-0.84.speed-up": "skipvar.figure-3.run-time.skipvar-0.84.latency",
    "skipvar.project-site.drawbench.fastvar.speed-up": "skipvar.figure-3.run-time.fastvar.latency",
    "lazyvar.paper.landscape.over-flashattention.speed-up": "lazyvar.notes.infinity-2b.lazyvar.latency",
}


def speed_up(book: Book, claim: Claim) -> Iterator[Check]:
    """A speed-up is the dense latency over the method's, as far as rounding lets it be told."""
    if claim.quantity != "speed-up" or claim.unit != "times":
        return
    own = next((one for name in LATENCIES if (one := book.beside(claim, name))), None)
    own = own or book.ids.get(ELSEWHERE.get(claim.id, ""))
    base = own and book.base(own)
    if own is None or base is None:
        return
    ratio = base.value / own.value
    low = (base.value - half_unit(base)) / (own.value + half_unit(own))
    high = (base.value + half_unit(base)) / (own.value - half_unit(own))
    agrees = claim.value + half_unit(claim) >= low and claim.value - half_unit(claim) <= high
    yield Check("speed-up-from-latency", {"dense": base.id, "method": own.id}, claim.value, ratio, agrees,
                f"{base.quote} over {own.quote} {own.unit} is {ratio:.3g} ({low:.3g} to {high:.3g} by rounding); "
                f"{claim.quote} is printed.")  # fmt: skip


def throughput(book: Book, claim: Claim) -> Iterator[Check]:
    """Images a second of one image at a time are one over the latency."""
    own = book.beside(claim, "latency")
    if claim.column != "throughput" or own is None:
        return
    low, high = 1 / (own.value + half_unit(own)), 1 / (own.value - half_unit(own))
    agrees = claim.value * (1 + SPREAD) >= low and claim.value * (1 - SPREAD) <= high
    yield Check("throughput-from-latency", {"latency": own.id, "within": SPREAD}, claim.value, 1 / own.value, agrees,
                f"One over {own.quote} s is {1 / own.value:.3g} images a second ({low:.3g} to {high:.3g}); "
                f"{claim.quote} is printed.")  # fmt: skip


def operations_ceiling(book: Book, claim: Claim) -> Iterator[Check]:
    """For information: what the operations of the row allow, beside its speed-up."""
    own = book.beside(claim, "gflops")
    base = own and book.base(own)
    if claim.quantity != "speed-up" or own is None or base is None:
        return
    ceiling = base.value / own.value
    word = "beyond" if claim.value > ceiling else "within"
    yield Check("operations-ceiling", {"dense": base.id, "method": own.id}, claim.value, ceiling, None,
                f"The operations of the row allow {ceiling:.3g} times where computing is the bound: the printed "
                f"{claim.quote} is {word} that.")  # fmt: skip


def keep_from_latency(book: Book, claim: Claim) -> Iterator[Check]:
    """For information: the share of tokens that a latency of SparseVAR implies under either account."""
    base = book.base(claim)
    if claim.method != "sparsevar" or claim.quantity != "latency" or base is None or claim.document != "poster":
        return
    for account in ("flops", "profile"):
        keep = accounts.implied_keep(claim.model, base.value, claim.value, account)
        about = "operations" if account == "flops" else "published milliseconds a stage"
        yield Check("keep-from-latency", {"account": account, "dense": base.id}, claim.value, keep, None,
                    f"{base.quote} to {claim.quote} s implies that {keep:.2f} of the tokens of the pruned stages are "
                    f"computed, by {about}.")  # fmt: skip


DENSE_ROWS = ("dense", "Infinity-2B", "HART", "VAR-d20", "all stages", "flash attention", "authors", "user, steady")


def share_of_peak(book: Book, claim: Claim) -> Iterator[Check]:
    """A dense latency is no less than its operations take at the GPU's peak; for information, the share of it."""
    stage = re.fullmatch(r"stage (\d+)", claim.row)
    if claim.column not in LATENCIES or not (stage or claim.row in DENSE_ROWS):
        return
    least = accounts.least_seconds(claim.model, claim.hardware, int(stage[1]) if stage else None)
    if least is not None:
        least *= 1000 if claim.unit == "ms" else 1
        text = f"{least:.0f}" if least >= 100 else f"{least:.3g}"
        yield Check("share-of-peak", {"hardware": claim.hardware}, claim.value, least,
                    None if claim.value >= least else False,
                    f"At the GPU's published peak in half precision its operations take {text} {claim.unit}, "
                    f"{least / claim.value:.1%} of the time that is printed.")  # fmt: skip


SOURCES = {"keep-geneval": "geneval", "keep-dpg": "dpg", "keep-imagereward": "preference",
           "keep-hpsv2.1": "preference"}  # fmt: skip


def inferred_keep(book: Book, claim: Claim) -> Iterator[Check]:
    """The shares that were inferred from the poster's latencies, recomputed by the published stage times."""
    if claim.quantity != "work" or claim.group != "sparsevar.inversion.keep-by-tau" or claim.column == "below":
        return
    found = []
    for table in [SOURCES[claim.column]] if claim.column in SOURCES else ["geneval"] if claim.column == "keep" else []:
        column = "latency-hps" if claim.column == "keep-hpsv2.1" else "latency"
        seconds = book.rows[f"sparsevar.poster.{table}", claim.row].get(column)
        base = seconds and book.base(seconds)
        if seconds is not None and base is not None:
            found.append((accounts.implied_keep(claim.model, base.value, seconds.value, "profile"), base, seconds))
    for keep, base, seconds in found:
        yield Check("keep-by-profile", {"within": KEPT}, claim.value, keep, abs(keep - claim.value) <= KEPT,
                    f"{base.quote} to {seconds.quote} s gives {keep:.2f} by the published stage times.")  # fmt: skip


def noise(book: Book, claim: Claim) -> Iterator[Check]:
    """For information: a difference of GenEval against the standard error of the dense model's rates."""
    base = book.base(claim)
    rates = {} if base is None else {name: book.beside(base, name) for name in TASKS}
    if claim.column != "overall" or claim.evaluation_name != "GenEval" or base is None or None in rates.values():
        return
    one = standard_error({name: part.value for name, part in rates.items() if part is not None})
    change, bound = claim.value - base.value, 1.96 * float(np.sqrt(2)) * one
    runs = (bound / abs(change)) ** 2 if change else np.inf
    word = "within" if abs(change) < bound else "beyond"
    more = f" As many images as {runs:.0f} full runs would tell it unpaired." if 1 < runs < np.inf else ""
    yield Check("difference-in-noise", {"images": 4 * sum(TASKS.values()), "level": 0.95}, change, bound, None,
                f"{change:+.4f} to {base.quote} is {word} {bound:.4f}, the 95 % bound of two independent runs whose "
                f"images are independent.{more}")  # fmt: skip


def standard_error(rates: Mapping[str, float]) -> float:
    """Of the overall of one GenEval run, were its images independent."""
    return float(np.sqrt(sum(rate * (1 - rate) / (IMAGES * TASKS[name]) for name, rate in rates.items()))) / len(TASKS)


def account(book: Book, claim: Claim) -> Iterator[Check]:
    """Operations, tokens and shares recomputed from shapes."""
    found = recomputed(claim)
    if found is None:
        return
    slack = max(half_unit(claim), CLOSE * abs(claim.value))
    yield Check("account", {"slack": six_digits(slack)}, claim.value, found, abs(found - claim.value) <= slack + 1e-9,
                f"From shapes: {found:.5g} {claim.unit}; {claim.quote} stands there.")  # fmt: skip


def recomputed(claim: Claim) -> float | None:
    """The number that the shapes of a model give, None where no account gives it."""
    last = re.search(r"last (\d)$", claim.row)
    if claim.group == "varlab.account.geometry":
        counts = np.array(accounts.tokens(claim.model))
        counted = counts if claim.column == "share-tokens" else counts * counts.cumsum()
        return float(counted[-int(last[1]) :].sum() / counted.sum()) if last else float(counts.sum())
    stage = re.search(r"stage (\d+)$", claim.row)
    if claim.column in ("tflops", "flop-share") and claim.group.endswith(".account.cost-by-stage") and stage:
        flops = accounts.stage_flops(claim.model)
        one = flops[int(stage[1]) - 1]
        return one / 1e12 if claim.column == "tflops" else 100 * one / sum(flops)
    if claim.group == "freqexit.account.operations" or (claim.column, claim.document) == ("gflops", "table 1"):
        exits = {"a": (16,) * 10, "b": (16,) * 5 + (12,) * 5, "c": (12,) * 10, "d": (10,) * 10}
        row = exits.get(claim.row.rpartition(" ")[2]) if claim.spec.startswith("freqexit") else None
        return None if row is None else accounts.exit_gflops(row)
    return None


RULES: tuple[Callable[[Book, Claim], Iterator[Check]], ...] = (
    row_mean, same_setting, speed_up, throughput, operations_ceiling, keep_from_latency, share_of_peak, inferred_keep,
    noise, account,
)  # fmt: skip

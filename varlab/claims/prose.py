"""Statements in prose ("up to 2x with minimal loss") against the tables of the same paper."""

from collections.abc import Iterator

from varlab.claims.arithmetic import Book, Check
from varlab.claims.ledger import Claim
from varlab.claims.verdict import Outcome

LOSS = 0.01  # of the dense value: what "minimal" and "negligible" are taken to allow
ROUNDED = 2.5  # points of a percentage that is given as "about"
UP_TO = 0.025  # of a factor that is given as "up to": 1.98 is printed as 2
MEASURES = {"geneval": ("overall", "latency"), "dpg": ("dpg", "latency"), "preference": ("ir", "latency"),
            "preference ": ("hps", "latency-hps")}  # fmt: skip
KEPT = {  # statements that also say that quality is kept
    "sparsevar.poster.text.infinity-2b-up-to-2x.speed-up",
    "sparsevar.poster.text.hart-25-percent.reduction",
    "sparsevar.readme.text.up-to-2x-banner.speed-up",
    "sparsevar.readme.text.up-to-2x-abstract.speed-up",
}
FREQEXIT = {"up-to-2x": "d", "up-to-2x-caption": "d", "1.3x": "b"}  # the row of table 1 that is meant
SKIPVAR = "skipvar.project-site.drawbench."
HEADLINE = (0.88, 1.81)  # SSIM and speed-up that the abstract names together


def prose(book: Book, claim: Claim) -> tuple[Outcome, list[Check]] | None:
    """The outcome by the tables of the paper, with what it rests on; None for what no table can tell."""
    if not claim.group.endswith(".text") or claim.quantity not in ("speed-up", "fidelity"):
        return None
    if claim.method == "sparsevar":
        return _by_tables(book, claim)
    if claim.method == "skipvar":
        return _headline(book, claim)
    return _exits(book, claim) if claim.row in FREQEXIT else None


def _by_tables(book: Book, claim: Claim) -> tuple[Outcome, list[Check]]:
    """One part a table: is the factor reached at a tau whose quality stays within the loss allowed?"""
    kept = claim.id in KEPT
    found = [_table(book, claim, name, kept) for name in MEASURES]
    said = [check.agrees for check in found]
    if all(said):
        return Outcome.ARITHMETIC, found
    return (Outcome.PARTLY if any(said) else Outcome.FAILS), found


def _table(book: Book, claim: Claim, name: str, kept: bool) -> Check:
    quality, seconds = MEASURES[name]
    best, where = 0.0, "no tau"
    for row, saved, loss in _taus(book, claim.model, name.strip(), quality, seconds):
        if (not kept or loss <= LOSS) and saved > best:
            best, where = saved, row
    found = 100 * best if claim.unit == "%" else 1 / (1 - best)
    slack = ROUNDED if claim.unit == "%" else UP_TO * claim.value
    unit = " %" if claim.unit == "%" else " times"
    about = f" among those that lose at most {100 * LOSS:g} % of {quality}" if kept else ""
    parameters = {"loss": LOSS if kept else None, "slack": slack}
    return Check("faster-within-loss", parameters, claim.value, found, found >= claim.value - slack,
                 f"{name.strip()}: the fastest tau{about} is {where}, {found:.3g}{unit}.")  # fmt: skip


def _taus(book: Book, model: str, table: str, quality: str, seconds: str) -> Iterator[tuple[str, float, float]]:
    """(row, share of the latency saved, share of the quality lost) of each tau of a model."""
    for tau in ("0.4", "0.5", "0.6", "0.7"):
        row = book.rows[f"sparsevar.poster.{table}", f"{model} tau {tau}"]
        base = book.rows[f"sparsevar.poster.{table}", model]
        saved = 1 - row[seconds].value / base[seconds].value
        yield f"tau {tau}", saved, 1 - row[quality].value / base[quality].value


def _headline(book: Book, claim: Claim) -> tuple[Outcome, list[Check]]:
    """One row of the paper must have the SSIM and the speed-up that the abstract names in one sentence."""
    if claim.value == 2.62:
        fixed = book.ids[f"{SKIPVAR}hybrid.speed-up"]
        ssim = book.ids[f"{SKIPVAR}hybrid.ssim"]
        check = Check("same-row", {"row": fixed.row}, claim.value, fixed.value, fixed.value == claim.value,
                      f"It is the row {fixed.row}, a fixed schedule without a decision model, at SSIM {ssim.quote}, "
                      f"not above {HEADLINE[0]:g}.")  # fmt: skip
        return Outcome.PARTLY, [check]
    rows = ("skipvar-0.88", "skipvar-0.86", "skipvar-0.84")
    pairs = {name: (book.ids[f"{SKIPVAR}{name}.ssim"], book.ids[f"{SKIPVAR}{name}.speed-up"]) for name in rows}
    both = [name for name, (ssim, fast) in pairs.items() if ssim.value > HEADLINE[0] and fast.value >= HEADLINE[1]]
    said = "; ".join(f"{ssim.row}: SSIM {ssim.quote} at {fast.quote} times" for ssim, fast in pairs.values())
    text = f"{len(both)} of {len(rows)} rows have an SSIM above {HEADLINE[0]:g} at {HEADLINE[1]:g} times: {said}."
    parameters = {"ssim": HEADLINE[0], "speed-up": HEADLINE[1]}
    check = Check("same-row", parameters, claim.value, len(both), bool(both), text)
    single = any(claim.value <= (fast if claim.quantity == "speed-up" else ssim).value for ssim, fast in pairs.values())
    return (Outcome.ARITHMETIC if both else Outcome.PARTLY if single else Outcome.FAILS), [check]


def _exits(book: Book, claim: Claim) -> tuple[Outcome, list[Check]]:
    """The speed-up by the latencies of the row, and what its operations allow."""
    own = book.rows["freqexit.table-1.imagenet-256", f"FreqExit {FREQEXIT[claim.row]}"]
    dense = book.rows["freqexit.table-1.imagenet-256", "VAR-d20"]
    ratio, allowed = (dense[name].value / own[name].value for name in ("latency", "gflops"))
    slack = UP_TO * claim.value
    checks = [
        Check("speed-up-from-latency", {"row": own["latency"].row}, claim.value, ratio, ratio >= claim.value - slack,
              f"{dense['latency'].quote} over {own['latency'].quote} s is {ratio:.3g}; FID {dense['fid'].quote} "
              f"becomes {own['fid'].quote}."),
        Check("operations-ceiling", {"row": own["gflops"].row}, claim.value, allowed, None,
              f"The operations of that row allow {allowed:.3g} times where computing is the bound."),
    ]  # fmt: skip
    return (Outcome.ARITHMETIC if checks[0].agrees else Outcome.FAILS), checks

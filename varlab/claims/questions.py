"""Which published numbers can be held against which stored runs, and by which rule."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from varlab.analysis.measured import read_measured
from varlab.analysis.settings_table import SettingsTable
from varlab.claims import evidence, prose, recipes
from varlab.claims.arithmetic import Book
from varlab.claims.evidence import Finding
from varlab.claims.ledger import Claim
from varlab.claims.rules import judged, measured
from varlab.claims.verdict import Side, Verdict

MINIS = {"infinity-2b": "mini-infinity", "hart-0.7b": "mini-hart", "var-d20": "mini-var-freqexit"}
"""The small model of the same family that stands for a published one; never a verdict on the latter."""
KEEPS = {"0.4": 0.87, "0.5": 0.49, "0.6": 0.27, "0.7": 0.21}  # shares of tokens at the poster's tau, by inversion
CENTRE = 2  # of the matched tau: that of .27
SHARE = 0.05  # of tokens: how sure an inferred share is
PRUNED = {"infinity-2b": 13, "hart-0.7b": 14}  # stages of the published schedules
ABLATION = "ablation"  # FreqExit's recipes, of varlab ablate
Ask = Callable[[SettingsTable], Finding]


@dataclass(frozen=True)
class Question:
    """``study`` of ``model`` holds what ``ask`` needs; ``rule`` names it."""

    model: str
    study: str
    rule: str
    ask: Ask


def questions(book: Book, claim: Claim) -> Iterator[Question]:
    """All that stored runs of minis can say on a claim."""
    mini = MINIS.get(claim.model)
    if mini is None or claim.source_kind in ("code", "third party"):
        return
    for rule, study, ask in _asked(book, claim):
        yield Question(mini, study, rule, ask)


def _asked(book: Book, claim: Claim) -> Iterator[tuple[str, str, Ask]]:
    if claim.method == "sparsevar":
        yield from _sparsevar(book, claim)
    elif claim.method == "skipvar":
        for rule, study, ask in _skipvar(book, claim):
            yield rule, study, partial(evidence.decided, ask=ask)
    elif claim.method == "fastvar" and claim.group == "fastvar.figure-results.geneval" and claim.column == "overall":
        speed = book.beside(claim, "speed-up")
        if claim.spec and speed is not None:
            ask = partial(evidence.faster_and_kept, specs=[claim.spec], speed=speed.value)
            yield "faster-and-kept", "methods", ask
    elif claim.method == "freqexit":
        yield from _freqexit(claim)


def _sparsevar(book: Book, claim: Claim) -> Iterator[tuple[str, str, Ask]]:
    tau, base = claim.row.rpartition("tau ")[2], book.base(claim)
    if claim.group == "sparsevar.poster.text" or claim.group == "sparsevar.readme.text":
        if claim.quantity == "speed-up":
            specs = [f"sparsevar:keep={keep:g},last=3" for keep in KEEPS.values()]
            ask = partial(evidence.faster_and_kept, specs=specs, speed=_speed(claim), kept=claim.id in prose.KEPT)
            yield "faster-and-kept", "methods", ask
        elif claim.row == "block-16-best":
            yield "best-block", "sparsevar", _middle_block
    elif claim.id.startswith("sparsevar.poster.geneval.") and claim.column == "overall" and base is not None:
        spec, change = f"sparsevar:keep={KEEPS[tau]:g},last=3", claim.value - base.value
        yield "difference-agrees", "methods", partial(evidence.difference_agrees, spec=spec, claimed=change)
    elif claim.group == "sparsevar.inversion.keep-by-tau" and claim.column in ("keep", "keep-consensus"):
        yield "share-agrees", "methods", partial(_share, tau=tau, claimed=claim.value)
    elif claim.group == "sparsevar.poster.ablation-alpha" and claim.column == "overall" and claim.row.endswith("none"):
        yield "anchors-keep-more", "sparsevar", _anchors
    elif claim.group == "sparsevar.poster.ablation-p" and claim.column == "overall":
        start = int(claim.row.rpartition("P ")[2])
        if start != 10:
            yield "later-start-keeps-more", "sparsevar", partial(_start, stages=PRUNED[claim.model], start=start)


def _speed(claim: Claim) -> float:
    """The least factor that still counts as the one in prose, as its own tables are held to it: "up to 2x", "~25 %"."""
    if claim.unit == "%":
        return round(1 / (1 - (claim.value - prose.ROUNDED) / 100), 4)
    return round(claim.value * (1 - prose.UP_TO), 4)


def _skipvar(book: Book, claim: Claim) -> Iterator[tuple[str, str, Ask]]:
    if claim.group == "skipvar.summary.text" and claim.value in prose.HEADLINE:
        ssim, speed = prose.HEADLINE
        yield "ssim-at-speed", "methods", partial(evidence.ssim_at, spec="skipvar:target=0.88", ssim=ssim, speed=speed)
    elif claim.group == prose.SKIPVAR.rstrip(".") and claim.column == "ssim" and claim.row in TARGETS:
        speed_up = book.beside(claim, "speed-up")
        assert speed_up is not None
        ask = partial(evidence.ssim_at, spec=claim.spec, ssim=claim.value, speed=speed_up.value)
        yield "ssim-at-speed", "methods", ask
    elif claim.group == "skipvar.reviews.table-2b":
        ask = partial(evidence.halves_differ, spec="skipvar:target=0.86", claimed=claim.value)
        yield "halves-differ", "methods", ask


TARGETS = ("SkipVAR@0.88", "SkipVAR@0.86", "SkipVAR@0.84")


def _freqexit(claim: Claim) -> Iterator[tuple[str, str, Ask]]:
    if claim.group == "freqexit.readme.text":
        specs = ["freqexit:row=b"] if claim.row == "1.3x" else ["freqexit:exits=6"]  # half of 12 blocks
        yield "faster-and-kept", "exits", partial(evidence.faster_and_kept, specs=specs, speed=_speed(claim))


def recipe_verdict(claim: Claim, folder: Path) -> tuple[str, Verdict] | None:
    """(rule, verdict) by the shipped ablation of FreqExit's recipes on mini-var, for the two rows it can be held to."""
    rows = {
        "freqexit.table-1.imagenet-256.freqexit-c.fid": ("recipe-beats-layerskip", recipes.beats, ("layerskip", "6")),
        "freqexit.table-2.exit-vectors.20.fid": ("full-depth-kept", recipes.full_depth_kept, ("12",)),
    }
    if claim.id not in rows:
        return None
    rule, judge, arguments = rows[claim.id]
    judged: Any = judge
    return rule, judged(read_measured(folder, ABLATION), *arguments)


def matched(table: SettingsTable, alpha: str = "4", last: int | str = 3) -> str:
    """SparseVAR at the tau of this model at which it computes the share of the poster's usual one."""
    return f"sparsevar:tau={float(table.facts['axes']['matched tau'][CENTRE]):g},alpha={alpha},last={last}"


def _middle_block(table: SettingsTable) -> Finding:
    blocks = table.facts["axes"]["block"]
    specs = [f"sparsevar:keep=0.27,last=3,block={block}" for block in blocks]
    return evidence.best_block(table, specs, len(blocks) // 2 - 1)


def _anchors(table: SettingsTable) -> Finding:
    return evidence.keeps_more(table, matched(table), matched(table, "none"), "With anchors (alpha 4) and without")


def _start(table: SettingsTable, stages: int, start: int) -> Finding:
    usual, other = matched(table, last=stages - 10), matched(table, last=stages - start)
    later, sooner = (usual, other) if start < 10 else (other, usual)
    return evidence.keeps_more(table, later, sooner, f"P {max(start, 10)} against P {min(start, 10)}")


def _share(table: SettingsTable, tau: str, claimed: float) -> Finding:
    """At the poster's tau: does this model compute the share of tokens that the latencies imply?"""
    spec = f"sparsevar:tau={tau},alpha=4,last=3"
    if spec not in table.works.index:
        return evidence.not_run(table, [spec])
    share = measured("share computed", table.values("computed", spec).to_numpy()[0], SHARE, claimed, Side.WITHIN)
    text = f"{spec} computes {share} of the tokens of its pruned stages; {claimed:g} is inferred."
    baselines = evidence.baselines_of(table, spec)
    return Finding(judged(share), text, (share,), baselines, {"claimed": claimed, "within": SHARE})

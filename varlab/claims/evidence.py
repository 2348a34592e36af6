"""Rules that hold a published number against stored runs of a model: one function a question.

Each takes the table of a study and returns a ``Finding``, which names the baselines that a method was held against:
without them no verdict on a method is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from varlab.analysis.frontier import rivals
from varlab.analysis.settings_table import DENSE, SettingsTable
from varlab.claims.rules import FAILS, HOLDS, WIDE, all_of, enough, judged, measured, number
from varlab.claims.verdict import Number, Outcome, Side, six_digits
from varlab.measures.statistics import paired_shares

MARGIN = 0.002  # of SSIM: a smaller difference counts as none
SCORE = 0.02  # of the scene score: what "minimal" is taken to allow
IDLE = 0.97  # of the dense work: a setting that saves less tested nothing
HALF = 2  # parts of a prompt set


@dataclass(frozen=True)
class Finding:
    """``numbers``: the first is what the claim is about. ``needed``: the n at which it could be told."""

    outcome: Outcome
    text: str
    numbers: tuple[Number, ...] = ()
    baselines: tuple[dict[str, Any], ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    needed: int | None = None


def faster_and_kept(table: SettingsTable, specs: Sequence[str], speed: float, kept: bool = True) -> Finding:
    """Does a setting whose work allows ``speed`` keep the scene score, and more than blind baselines at its work?

    Of the settings that are fast enough the one with the best fidelity is judged. A ratio of operations is the most
    that can be gained where computing is the bound, on any machine.
    """
    parameters = {"speed": speed, "score_margin": SCORE if kept else None, "ssim_margin": MARGIN}
    works = table.works
    known = [spec for spec in specs if spec in works.index]
    if not known:
        return not_run(table, specs)
    fast = [spec for spec in known if 1 / works[spec] >= speed]
    if not fast:
        most = min(known, key=lambda spec: works[spec])
        text = f"{most} has the least work, {works[most]:.2f} of dense: {1 / works[most]:.2f} times at most."
        return Finding(FAILS, text, baselines=baselines_of(table, most), parameters=parameters)
    spec = max(fast, key=lambda name: table.values("ssim", name).to_numpy().mean())
    text = f"{spec} has {works[spec]:.2f} of the dense work, which allows {1 / works[spec]:.2f} times."
    beaten, outcomes, said, listed = _against(table, spec)
    if not kept:
        outcome, reason = all_of({"speed": HOLDS, **outcomes})
        return Finding(outcome, f"{text} {said}", beaten, listed, parameters, reason)
    change = score_change(table, spec)
    outcome, reason = all_of({"speed": HOLDS, "scene score": not_below(change, SCORE), **outcomes})
    text += f" Scene score minus the dense run's: {change}. {said}"
    return Finding(outcome, text, (change, *beaten), listed, parameters, reason, needed(change, SCORE))


def ssim_at(table: SettingsTable, spec: str, ssim: float, speed: float) -> Finding:
    """Does a method reach an SSIM to the dense image at a speed-up that its work allows, ahead of blind baselines?"""
    if spec not in table.works.index:
        return not_run(table, [spec])
    work, own = float(table.works[spec]), measured("SSIM", table.values("ssim", spec).to_numpy()[0], reference=ssim)
    beaten, outcomes, said, listed = _against(table, spec)
    fast = HOLDS if 1 / work >= speed else FAILS
    outcome, reason = all_of({"SSIM": judged(own), "speed": fast, **outcomes})
    text = (
        f"SSIM {own} against {ssim:g}; work {work:.2f} of dense, which allows {1 / work:.2f} times against {speed:g}."
    )
    return Finding(outcome, f"{text} {said}", (own, *beaten), listed, {"ssim": ssim, "speed": speed}, reason)


def decided(table: SettingsTable, ask: Callable[[SettingsTable], Finding]) -> Finding:
    """A finding on a method that decides by a fitted model, which says whether it was fitted on these prompts."""
    found = ask(table)
    return replace(found, text=f"{found.text} {table.fitted}")


def difference_agrees(table: SettingsTable, spec: str, claimed: float) -> Finding:
    """Is the change of the scene score that of the paper's score, within ``SCORE``?"""
    if spec not in table.works.index:
        return not_run(table, [spec])
    listed, parameters = baselines_of(table, spec), {"claimed": round(claimed, 6), "within": SCORE}
    work = float(table.works[spec])
    if work > IDLE:
        text = f"{spec} has {work:.2f} of the dense work."
        return Finding(Outcome.NOT_COMPARABLE, text, (), listed, parameters, "It left out too little to test anything.")
    change = replace(score_change(table, spec), reference=claimed, supports=Side.WITHIN)
    text = f"{spec}: scene score minus the dense run's: {change}; the paper's score changes by {claimed:+.4f}."
    outcome = judged(change)
    more = _more(change, SCORE - abs(change.estimate - claimed)) if outcome is WIDE else None
    return Finding(outcome, text, (change,), listed, parameters, "", more)


def halves_differ(table: SettingsTable, spec: str, claimed: float) -> Finding:
    """Do prompts with little late detail gain more than the others, by as much as the paper says?

    Halves by the method's own HF_Diff. The work of an image is that of the fixed strategy that was decided for it.
    """
    if spec not in table.works.index or table.values("drop", spec).isna().any(axis=None):
        return not_run(table, [spec])
    diff = table.values("hf_diff", spec).to_numpy()[0]
    order, work = np.argsort(-diff, kind="stable"), decided_works(table, spec)
    cut = len(order) // HALF
    sensitive, robust = work[order[:cut]], work[order[cut:]]
    gap = float(sensitive.mean() - robust.mean())
    rng = np.random.default_rng(0)
    drawn = [rng.choice(sensitive, len(sensitive)).mean() - rng.choice(robust, len(robust)).mean() for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    more = Number("work of the sensitive half minus the robust half's", gap, float(low), float(high), len(work))
    text = (
        f"Work {sensitive.mean():.2f} of dense on the half with most late detail, {robust.mean():.2f} on the other: "
        f"{1 / sensitive.mean():.2f} and {1 / robust.mean():.2f} times at most. Difference {more}."
    )
    reached = 1 / (sensitive if claimed < 1.6 else robust).mean() >= claimed
    outcome, reason = all_of({"difference": judged(more), "speed": HOLDS if reached else FAILS})
    return Finding(outcome, text, (more,), baselines_of(table, spec), {"speed": claimed, "halves": "hf_diff"}, reason)


def decided_works(table: SettingsTable, spec: str) -> np.ndarray:
    """Work over dense of each prompt's decision, from the same strategy as a fixed setting."""
    drop, replace = (table.values(name, spec).to_numpy()[0].astype(int) for name in ("drop", "replace"))
    return np.array([table.works[strategy(int(d), int(r))] for d, r in zip(drop, replace, strict=True)])


def strategy(drop: int, replace: int) -> str:
    """The baseline that drops and replaces as many final stages."""
    parts = [f"truncate:last={drop}"] * (drop > 0) + [f"cfg-off:last={drop + replace}"] * (replace > 0)
    return "+".join(parts) or DENSE


def keeps_more(table: SettingsTable, spec: str, other: str, about: str) -> Finding:
    """Has one setting a higher SSIM to the dense image than another, prompt by prompt?"""
    if not {spec, other} <= set(table.works.index):
        return not_run(table, [spec, other])
    gap = measured(f"SSIM of {spec} minus that of {other}", _gap(table, spec, other), MARGIN)
    works = ", ".join(f"{table.works[name]:.2f}" for name in (spec, other))
    text = f"{about}: SSIM {gap} more; work {works} of dense."
    listed, parameters = baselines_of(table, spec), {"ssim_margin": MARGIN}
    return Finding(judged(gap), text, (gap,), listed, parameters, needed=needed(gap, 0))


def best_block(table: SettingsTable, specs: Sequence[str], middle: int) -> Finding:
    """Is the middle block the best scorer? Against the best of the others, chosen on the other half of the prompts."""
    if not set(specs) <= set(table.works.index):
        return not_run(table, specs)
    values = table.values("ssim", *specs).to_numpy()
    order = np.random.default_rng(0).permutation(values.shape[1])
    halves = order[: (len(order) + 1) // HALF], order[(len(order) + 1) // HALF :]
    others, gap, chosen = [i for i in range(len(specs)) if i != middle], np.empty(len(order)), []
    for own, choosing in (halves, halves[::-1]):
        best = max(others, key=lambda i: values[i, choosing].mean())
        gap[own] = values[middle, own] - values[best, own]
        chosen.append(specs[best])
    less = measured("SSIM of the middle block minus the best other's", gap, MARGIN)
    means = values.mean(1)
    text = (
        f"At equal work the middle block ranks {1 + int((means > means[middle]).sum())} of {len(specs)}; its SSIM "
        f"minus that of {' or '.join(dict.fromkeys(chosen))}, the best of the other half of the prompts: {less}."
    )
    baseline = baselines_of(table, specs[middle])
    return Finding(judged(less), text, (less,), baseline, {"ssim_margin": MARGIN}, needed=needed(less, 0))


def not_run(table: SettingsTable, specs: Sequence[str]) -> Finding:
    """What is said where the study of this model does not hold a setting, with the reason that its record keeps."""
    reasons = [table.facts["left_out"][spec] for spec in specs if spec in table.facts.get("left_out", {})]
    reason = reasons[0] if reasons else "The stored study holds no such setting."
    return Finding(Outcome.NOT_MEASURED, f"{', '.join(specs[:3])} was not run.", reason=reason)


def score_change(table: SettingsTable, spec: str) -> Number:
    """Share of scenes drawn right, less the dense run's, pair by pair."""
    own, dense = table.values("correct", spec, DENSE).to_numpy() > 0
    return number("scene score minus the dense run's", paired_shares(own, dense), len(own), SCORE)


def not_below(change: Number, margin: float) -> Outcome:
    """Is a loss surely smaller than the margin? (One-sided, at 2.5 %.)"""
    return judged(replace(change, reference=-margin, margin=0.0))


def needed(found: Number, margin: float) -> int | None:
    """How many values would tell it: the interval narrows with the root of n. None where it is told, or never is."""
    if not enough(found) or not found.low <= -margin <= found.high:
        return None
    return _more(found, abs(found.estimate + margin))


def _more(found: Number, distance: float) -> int | None:
    """The n at which the wider half of the interval is as long as the distance to the bound; more than there is."""
    half = max(found.high - found.estimate, found.estimate - found.low)
    if abs(distance) < 1e-9:
        return None
    return max(found.n + 1, int(np.ceil(found.n * (half / abs(distance)) ** 2)))


def _gap(table: SettingsTable, spec: str, other: str) -> np.ndarray:
    one, two = table.values("ssim", spec, other).to_numpy()
    return one - two


RIVALS = ("the best baseline", "the best mix")  # as ``rivals`` gives them, the mix where it is another


def _against(table: SettingsTable, spec: str) -> tuple[tuple[Number, ...], dict[str, Outcome], str, tuple[Any, ...]]:
    """The method against the best of the blind baselines at its work, and against the best mix."""
    found = rivals(table.baselines(), table.works, table.values("ssim", spec).to_numpy()[0], float(table.works[spec]))
    numbers = tuple(measured(rival.text, rival.differences, MARGIN) for rival in found)
    if not numbers:
        return (), {"baselines": Outcome.NOT_COMPARABLE}, "No baseline computes as little.", ()
    said = "; ".join(f"{one} against {one.name} ({rival.rank})" for one, rival in zip(numbers, found, strict=True))
    listed = tuple(
        {"spec": rival.text, "work": six_digits(rival.work), "ssim_difference": six_digits(one.estimate),
         "low": six_digits(one.low), "high": six_digits(one.high)}
        for one, rival in zip(numbers, found, strict=True)
    )  # fmt: skip
    outcomes = {f"SSIM against {name}": judged(one) for name, one in zip(RIVALS, numbers, strict=False)}
    return numbers, outcomes, f"SSIM {said}.", listed


def baselines_of(table: SettingsTable, spec: str) -> tuple[dict[str, Any], ...]:
    return _against(table, spec)[3]

"""SkipVAR's observations, checked on the log of a dense run."""

from dataclasses import replace

import numpy as np
import xarray as xr

from varlab.analysis.logs import Log, dataset, late_stages, predicted, provenance, stage_count, variable
from varlab.analysis.redundancy import ENOUGH, saturated, stage_cost_table
from varlab.claims.parts import early, early_name, late, late_name, of_log
from varlab.claims.rules import all_of, enough, judged, measured, number
from varlab.claims.verdict import Number, Outcome, Side, Verdict
from varlab.measures.statistics import wilson_interval

FEW = 0.05  # "minimal": guidance changes fewer than one bit in twenty
MOST = 0.5  # "most of the cost": more than half
ONE_ROW = "Without guidance only the conditional branch ran in late stages, so there is no gap to measure."


def gap_shrinks(log: Log) -> Verdict:
    """Are the two branches closer in late stages than in early ones, in hidden states and predictions?"""
    claim = "The gap between the conditional and the unconditional branch shrinks in late stages (SkipVAR)"
    if _unguided(log):
        return of_log(log, claim, Outcome.NOT_MEASURED, ONE_ROW)
    hidden = variable(log, "branch-divergence", "relative_mse").isel(block=-1)
    parts, numbers = [], []
    for name, values in (("distance", hidden), ("KL", variable(log, "branch-divergence", "kl"))):
        before, after = early(log, values), late(log, values)
        ends = measured(name, before), measured(name, after)
        parts.append(f"{ends[0]} in {early_name(log)}, {ends[1]} in {late_name(log)}")
        numbers.append(measured(f"{name}: early minus late", before - after))
    finding = f"Squared distance after the last block over |c|²: {parts[0]}. "
    finding += f"KL in nats per {predicted(log)}: {parts[1]}."
    outcome, reason = all_of({found.name.partition(":")[0]: judged(found) for found in numbers})
    return of_log(log, claim, outcome, finding, reason, numbers)


def gap_minimal(log: Log) -> Verdict:
    """Does guidance change few predictions in late stages? Fewer than one bit in twenty, or as many labels."""
    claim = "In late stages the gap between the branches is minimal, so that one may be replaced (SkipVAR)"
    if _unguided(log):
        return of_log(log, claim, Outcome.NOT_MEASURED, ONE_ROW)
    shares = {
        name: measured(name, late(log, variable(log, "branch-divergence", name)))
        for name in ("guidance_changes", "flip_share", "drawn_differs")
    }
    changed = shares["guidance_changes"]
    if np.isnan(changed.estimate):
        finding = "Guidance acts within the network: there are no two sets of logits to compare."
        return of_log(log, claim, Outcome.NOT_MEASURED, finding)
    unit, bound = predicted(log), few(log)
    changed = replace(changed, name=f"{unit}s that guidance flips", reference=bound, supports=Side.BELOW)
    finding = (
        f"In {late_name(log)} guidance (cfg {provenance(log)['cfg']}) flips {changed.percent} of the {unit}s (minimal: "
        f"below {100 * bound:.2g} %{_because(unit)}); the conditional and the unconditional branch disagree on "
        f"{shares['flip_share'].percent}, and random sampling alone flips {shares['drawn_differs'].percent}."
    )
    return of_log(log, claim, judged(changed), finding, numbers=[changed])


def few(log: Log) -> float:
    """The share below which changes are minimal: of labels, that at which one bit in twenty of their number changes."""
    values = int(dataset(log, "branch-divergence").attrs.get("values", 2))  # an older log does not say
    return float(1 - (1 - FEW) ** np.log2(values))


def _because(unit: str) -> str:
    return "" if unit == "bit" else f", at which one in {1 / FEW:.0f} of the bits of a label's number would change"


def _unguided(log: Log) -> bool:
    """Whether no late stage ran the unconditional row."""
    return bool(np.isnan(late(log, variable(log, "branch-divergence", "relative_mse"))).all())


def late_steps_redundant(log: Log) -> Verdict:
    """Is the preview as good as final before the late stages, while these take most of the cost?"""
    claim = "The picture saturates before the last stages, which take most of the cost (SkipVAR)"
    last = late_stages(stage_count(log))
    before = last[0] - 1
    similar, detail = (_before(log, name, before) for name in ("ssim", "high_frequency_ssim"))
    cost = stage_cost_table(log)
    shares = cost[cost["stage"].isin(last)].groupby("cost", sort=False)["mean"].sum()
    done = _share_done(saturated(log), before)
    finding = (
        f"Before {late_name(log)} the preview has SSIM {similar} to the final one (detail {detail}); "
        f"the share of pictures that stay at {ENOUGH:g} or above is {done}. Cost of {late_name(log)}: "
        + ", ".join(f"{100 * share:.0f} % of {name}" for name, share in shares.items())
        + "."
    )
    outcome, reason = _redundant(similar, bool((shares > MOST).all()))
    return of_log(log, claim, outcome, finding, reason, (similar, done))


def _before(log: Log, name: str, stage: int) -> Number:
    return measured(name.upper(), variable(log, "step-redundancy", name).sel(stage=stage).values, reference=ENOUGH)


def _share_done(first: xr.DataArray, stage: int) -> Number:
    """A proportion: near 0 and 1 a bootstrap would give no width."""
    done = (first <= stage).values
    return number("share of pictures done", wilson_interval(done), len(done), supports=Side.NEITHER)


def _redundant(similar: Number, costly: bool) -> tuple[Outcome, str]:
    if not enough(similar):
        return Outcome.TOO_FEW, ""
    saturates = judged(similar)
    if saturates is Outcome.WIDE:
        return Outcome.WIDE, f"The interval of the SSIM includes {ENOUGH:g}."
    if saturates is Outcome.HOLDS:
        return (Outcome.HOLDS, "") if costly else (Outcome.PARTLY, "Saturated, but not most of the cost.")
    return (Outcome.PARTLY, "Costly, but not saturated.") if costly else (Outcome.FAILS, "")

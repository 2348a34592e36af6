"""Verdicts on what the papers say, composed from a log's own numbers: {"claim", "finding", "verdict"}.

A verdict is "holds", "partly", "does not hold" or "cannot be told", with the reason where it needs one. It rests on
95 % bootstrap intervals over prompts; what counts as much or little is a constant below and stands in the finding.
Early stages are the first half, late stages the last quarter (5 and 6 of 6, 11 to 13 of 13).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from varlab.figures.controls import energy_edges, token_edges
from varlab.figures.logs import (
    Images,
    Log,
    as_log,
    early_stages,
    grids,
    has_images,
    late_stages,
    pick,
    prompt_count,
    provenance,
    stage_count,
    variable,
)
from varlab.figures.redundancy import ENOUGH, saturated, stage_cost_table
from varlab.figures.spectra import band_labels
from varlab.figures.tokens import edge_correlations, stage_range
from varlab.statistics import Interval, bootstrap_interval

Verdict = dict[str, str]
EVEN = 0.25  # share of energy on a quarter of the cells when it does not care for edges
MOST = 0.5  # "concentrate", "most of the cost": more than half
DIFFERENT = 0.1  # smallest difference of two rank correlations worth naming
RISE = 0.02  # smallest rise of a high-frequency share worth naming
FEW = 0.05  # "minimal": guidance changes less than one bit in twenty

HOLDS, PARTLY, NOT = "holds", "partly", "does not hold"
TOO_FEW = "cannot be told (n too small)"
NO_GUIDANCE = "cannot be told (no guidance)"
NOT_ON_LOGITS = "cannot be told (no guidance on the logits)"
UNCLEAR = "cannot be told (wide interval)"
ONE_BRANCH = "Without guidance only the conditional branch ran in late stages, so there is no gap to measure."


# --- SparseVAR, observation 1 -------------------------------------------------------------------------------


def residuals_on_edges(log: Log, images: Images = None) -> Verdict:
    """Late changes of the preview: more than half on the quarter of the cells with the largest edges?

    "Holds" also needs more than with the edges of other prompts' images, where the images are found.
    """
    claim = "At high-resolution stages residuals concentrate on high-frequency regions (SparseVAR, observation 1)"
    shares = pick(variable(log, "residual-spectrum", "concentration"), spread="preview change")
    pairs = energy_edges(log, images) if has_images(log, images) else None
    if pairs is not None:
        shares = pairs["own"]  # on the same maps as the control
    late, early = _interval(_late(log, shares)), _interval(_early(log, shares))
    finding = (
        f"In {_late_name(log)} the quarter of the cells with the largest edges takes {_text(late)} of the energy of "
        f"the preview change (even spread {EVEN:g}); in {_early_name(log)} {_text(early)}."
    )
    beyond = None
    if pairs is not None:
        beyond = _interval(_late(log, pairs["own"]) - _late(log, pairs["other"]))
        finding += f" Beyond the edges of other prompts' images: {_text(beyond)}."
    return _verdict(log, claim, finding, _on_edges(late, beyond))


def _on_edges(late: Interval, beyond: Interval | None) -> str:
    if np.isnan(late.low):
        return TOO_FEW
    if late.high <= EVEN or (beyond is not None and beyond.high <= 0):
        return NOT
    if late.low <= EVEN:
        return UNCLEAR
    if beyond is not None and not beyond.low > 0:
        return PARTLY + " (place explains it as well as edges)"
    return HOLDS if late.low > MOST else PARTLY + " (more than even, not more than half)"


# --- FreqExit -----------------------------------------------------------------------------------------------


def high_frequency_rises(log: Log, control: Log | None = None) -> Verdict:
    """Is the preview change of late stages richer in high frequencies, and are high bands done later than low ones?

    ``control`` is a log on random weights, whose rise belongs to the schedule and the decoder.
    """
    claim = "High frequencies appear mainly in the later stages (FreqExit)"
    rise, early, late = _rise(log)
    done = variable(log, "residual-spectrum", "explained_share").sel(stage=late_stages(stage_count(log))[0] - 1)
    low, high, bands = done.isel(frequency_band=0), done.isel(frequency_band=-2), band_labels(log)
    gap = _interval(low.values - high.values)
    finding = (
        f"High-frequency share of the preview change: {_text(early)} in {_early_name(log)}, {_text(late)} in "
        f"{_late_name(log)}, a rise of {_text(rise)}. Before {_late_name(log)} the preview explains "
        f"{_text(_interval(low.values))} of the final one at {bands[0]} cycles per image and "
        f"{_text(_interval(high.values))} at {bands[-2]} (difference {_text(gap)})."
    )
    if control is not None:
        weights = provenance(control)["weights"]
        finding += (
            f" With weights {weights} and {prompt_count(control)} prompts the share rises by "
            f"{_text(_rise(control)[0])}."
        )
    return _verdict(log, claim, finding, _both(_sign(rise, RISE), _sign(gap, RISE)))


def _rise(log: Log) -> tuple[Interval, Interval, Interval]:
    """(late less early, early, late) high-frequency share of the preview change."""
    shares = pick(variable(log, "residual-spectrum", "high_frequency_share"), source="preview change")
    early, late = _early(log, shares), _late(log, shares)
    return _interval(late - early), _interval(early), _interval(late)


# --- SparseVAR, observation 2 -------------------------------------------------------------------------------


def blocks_differ(log: Log, images: Images = None, branch: str = "both") -> Verdict:
    """Does one block change tokens on edges and another those of the background, at the late stages?

    The two blocks are chosen on a random half of the prompts and measured on the others, so that the choice does
    not flatter them. "Holds" also needs both to go beyond the edges of other prompts' images, where these are found.
    """
    claim = "Blocks focus on different regions: one on edges, another on the background (SparseVAR, observation 2)"
    values = edge_correlations(log, branch=branch)
    table = _late(log, values)  # [n, block]
    if len(table) < 4 or np.isnan(table).all():
        return _verdict(log, claim, "Blocks are chosen on half of the prompts: at least 4 are needed.", TOO_FEW)
    choosing, measuring = _halves(len(table))
    means = np.nanmean(table[choosing], 0)
    edge, ground = int(np.nanargmax(means)), int(np.nanargmin(means))
    measured = table[measuring]
    on_edges, off_edges = _interval(measured[:, edge]), _interval(measured[:, ground])
    gap = _interval(measured[:, edge] - measured[:, ground])
    number = values["block"].values
    finding = (
        f"Correlation with edges in {_late_name(log)}: block {number[edge]} {_text(on_edges)}, block "
        f"{number[ground]} {_text(off_edges)}, difference {_text(gap)}; chosen on {len(choosing)} prompts, measured "
        f"on {len(measured)}."
    )
    signs = [on_edges.low > 0, off_edges.high < 0]
    if has_images(log, images):
        pairs = token_edges(log, images, branch=branch)
        beyond = (_late(log, pairs["own"]) - _late(log, pairs["other"]))[measuring]
        first, second = _interval(beyond[:, edge]), _interval(beyond[:, ground])
        finding += f" Beyond the edges of other prompts' images: {_text(first)} and {_text(second)}."
        signs += [first.low > 0, second.high < 0]
    return _verdict(log, claim, finding, _opposed(gap, signs))


def _halves(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two random halves, the same at each call. Not every second prompt: those would differ in category."""
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[: (n + 1) // 2]), np.sort(order[(n + 1) // 2 :])


def _opposed(gap: Interval, signs: Sequence[bool]) -> str:
    if np.isnan(gap.low):
        return TOO_FEW
    if gap.high < DIFFERENT:
        return NOT
    if not gap.low > 0:
        return UNCLEAR
    return HOLDS if all(signs) else PARTLY + " (they differ, but not edges against background)"


# --- SkipVAR ------------------------------------------------------------------------------------------------


def gap_shrinks(log: Log) -> Verdict:
    """Are conditional and unconditional row closer in late stages than in early ones, hidden and predicted?"""
    claim = "The gap between the conditional and the unconditional branch shrinks in late stages (SkipVAR)"
    if _unguided(log):
        return _verdict(log, claim, ONE_BRANCH, NO_GUIDANCE)
    hidden = variable(log, "branch-divergence", "relative_mse").isel(block=-1)
    parts, signs = [], []
    for values in (hidden, variable(log, "branch-divergence", "kl")):
        early, late = _early(log, values), _late(log, values)
        parts.append(f"{_text(_interval(early))} in {_early_name(log)}, {_text(_interval(late))} in {_late_name(log)}")
        signs.append(_sign(_interval(early - late)))
    finding = f"Squared distance after the last block over |c|²: {parts[0]}. KL in nats per bit: {parts[1]}."
    return _verdict(log, claim, finding, _both(*signs))


def gap_minimal(log: Log) -> Verdict:
    """Does guidance change less than one bit in twenty in late stages?"""
    claim = "In late stages the gap between the branches is minimal, so that one may be replaced (SkipVAR)"
    if _unguided(log):
        return _verdict(log, claim, ONE_BRANCH, NO_GUIDANCE)
    changed = _interval(_late(log, variable(log, "branch-divergence", "guidance_changes")))
    flips = _interval(_late(log, variable(log, "branch-divergence", "flip_share")))
    drawn = _interval(_late(log, variable(log, "branch-divergence", "drawn_differs")))
    finding = (
        f"In {_late_name(log)} guidance (cfg {provenance(log)['cfg']}) changes {_text(changed)} of the bits (minimal: "
        f"below {FEW:g}); the branches disagree on {_text(flips)}, drawing changes {_text(drawn)}."
    )
    if np.isnan(changed.low):
        word = TOO_FEW if np.isfinite(changed.estimate) else NOT_ON_LOGITS
    else:
        word = HOLDS if changed.high < FEW else NOT if changed.low > FEW else UNCLEAR
    return _verdict(log, claim, finding, word)


def _unguided(log: Log) -> bool:
    """Whether no late stage ran the unconditional branch."""
    return bool(np.isnan(_late(log, variable(log, "branch-divergence", "relative_mse"))).all())


def late_steps_redundant(log: Log) -> Verdict:
    """Is the preview as good as final before the late stages, while these take most of the cost?"""
    claim = "The picture saturates before the last stages, which take most of the cost (SkipVAR)"
    late = late_stages(stage_count(log))
    before = late[0] - 1
    similar = _interval(variable(log, "step-redundancy", "ssim").sel(stage=before).values)
    detail = _interval(variable(log, "step-redundancy", "high_frequency_ssim").sel(stage=before).values)
    cost = stage_cost_table(log)
    shares = cost[cost["stage"].isin(late)].groupby("cost", sort=False)["mean"].sum()
    done = _interval((saturated(log) <= before).astype(float))
    finding = (
        f"Before {_late_name(log)} the preview has SSIM {_text(similar)} to the final one (detail {_text(detail)}); "
        f"the share of pictures that stay at {ENOUGH:g} or above is {_text(done)}. Cost of {_late_name(log)}: "
        + ", ".join(f"{_percent(share)} of {name}" for name, share in shares.items())
        + "."
    )
    return _verdict(log, claim, finding, _redundant(similar, bool((shares > MOST).all())))


def _redundant(similar: Interval, costly: bool) -> str:
    if np.isnan(similar.low):
        return TOO_FEW
    if similar.low < ENOUGH <= similar.high:
        return UNCLEAR
    saturates = similar.low >= ENOUGH
    if saturates and costly:
        return HOLDS
    if saturates or costly:
        return PARTLY + (" (costly, but not saturated)" if costly else " (saturated, but not most of the cost)")
    return NOT


# --- words --------------------------------------------------------------------------------------------------


def account(log: Log, verdicts: Sequence[Verdict]) -> str:
    """Markdown: what is seen, on which weights and prompts, with the verdicts and the limits."""
    known = provenance(log)
    head = (
        f"**What is seen here.** {known['model']}, weights: **{known['weights']}**; n = {known['n']} prompts of "
        f"*{known['prompt_set']}*, seed {known['seed']}, cfg {known['cfg']}, {known['precision']} on "
        f"{known['device']}. Numbers are means over prompts with 95 % bootstrap intervals (low to high)."
    )
    rows = [" | ".join(_cell(v[key]) for key in ("claim", "finding", "verdict")) for v in verdicts]
    table = ["| claim | finding | verdict |", "|---|---|---|", *(f"| {row} |" for row in rows)]
    points = [f"* {limit}" for limit in limits(log)]
    return "\n".join([head, "", *table, "", "**Limits.**", "", *points])


def facts(log: Log) -> dict[str, object]:
    """Of the log, for ``varlab.reports.record``: model, weights, n, seed, device, dtype."""
    known = provenance(log)
    names = {name: known[name] for name in ("model", "weights", "device")}
    return {**names, "n": prompt_count(log), "seed": as_log(log).attrs.get("seed"), "dtype": known["precision"]}


def limits(log: Log) -> list[str]:
    """What these numbers cannot say."""
    known, sides = provenance(log), grids(log)
    weights = known["weights"].lower()
    found = []
    if weights.startswith("random"):
        found.append(
            "The weights are random: what is seen is what schedule, tokenizer and sampler do by themselves; nothing "
            "of it was learnt."
        )
    elif "random" in weights:
        found.append(f"A part of the model is random ({known['weights']}): its pictures do not follow the prompts.")
    if not weights.startswith("official"):
        found.append("These are not the official checkpoints, and no claim about those is made.")
    size = f"{sides[-1][0]} x {sides[-1][1]} latents in {len(sides)} stages" if sides else "a schedule not recorded"
    found.append(f"One resolution, {size}; SparseVAR and SkipVAR look at 64 x 64. Previews are {known['preview']}.")
    if sides and max(sides[-1]) <= 16:
        found.append("A token covers so much of the picture that edges and small objects can hardly be told apart.")
    if known["model"].startswith("nano"):
        found.append(
            "The small tokenizer keeps shapes and colours and loses texture: the high frequencies of these pictures "
            "are outlines."
        )
    if int(known["n"]) < 8:
        found.append(f"With n = {known['n']} the intervals are rough or missing.")
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _verdict(log: Log, claim: str, finding: str, word: str) -> Verdict:
    """The reason of a "partly" goes into the finding, so that the verdict stays a word."""
    if word.startswith(PARTLY) and "(" in word:
        word, reason = word.removesuffix(")").split(" (")
        finding += f" {reason.capitalize()}."
    return {"claim": claim, "finding": f"{finding} n = {prompt_count(log)}.", "verdict": word}


def _text(interval: Interval) -> str:
    """``0.41 (0.39 to 0.43)``: two decimals, more where all three are small; no bounds where there are none."""
    if np.isnan(interval.estimate):
        return "not measured"
    largest = np.nanmax(np.abs(np.array(interval, dtype=float)))
    digits = 2 if largest == 0 or largest >= 0.095 else int(np.ceil(-np.log10(largest))) + 1
    estimate, low, high = (f"{round(float(value), digits) + 0.0:.{digits}f}" for value in interval)
    return f"{estimate} (no interval)" if np.isnan(interval.low) else f"{estimate} ({low} to {high})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _late_name(log: Log) -> str:
    return stage_range(log)


def _early_name(log: Log) -> str:
    return stage_range(log, early_stages(stage_count(log)))


# --- numbers ------------------------------------------------------------------------------------------------


def _late(log: Log, values: xr.DataArray) -> npt.NDArray[np.float64]:
    """Mean over the late stages, prompt first; NaN where none of them has a value."""
    return _mean(values, late_stages(stage_count(log)))


def _early(log: Log, values: xr.DataArray) -> npt.NDArray[np.float64]:
    return _mean(values, early_stages(stage_count(log)))


def _mean(values: xr.DataArray, stages: Sequence[int]) -> npt.NDArray[np.float64]:
    chosen = values.sel(stage=list(stages)).mean("stage", skipna=True)
    return chosen.transpose("prompt", ...).values.astype(float)


def _interval(values: npt.ArrayLike) -> Interval:
    return bootstrap_interval(np.asarray(values, dtype=float))


def _sign(interval: Interval, least: float = 0.0) -> bool | None:
    """Whether it is surely positive; None where that cannot be told. Surely below ``least`` counts as no."""
    if np.isnan(interval.low):
        return None
    if interval.high <= 0 or interval.high < least:
        return False
    return True if interval.low > 0 else None


def _both(first: bool | None, second: bool | None) -> str:
    """The verdict of a claim with two signs, each yes, no or unknown."""
    if first is None and second is None:
        return "cannot be told (n too small or interval spans 0)"
    if first is None or second is None:
        known = first if second is None else second
        return (
            PARTLY + " (one half holds, the other cannot be told)"
            if known
            else "cannot be told (one half does not hold)"
        )
    return HOLDS if first and second else PARTLY if first or second else NOT

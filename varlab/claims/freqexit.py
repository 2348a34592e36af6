"""FreqExit's claims: when high frequencies enter, what exits cost, and what training for them changes."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from varlab.analysis.logs import Log, late_stages, prompt_count, provenance, stage_count, variable
from varlab.analysis.logs import pick as pick_axis
from varlab.analysis.measured import Measured
from varlab.analysis.spectra import band_labels
from varlab.claims.parts import column, column_rise, early, early_name, late, late_name, of_log, source_of
from varlab.claims.rules import all_of, judged, measured
from varlab.claims.verdict import Number, Outcome, Side, Verdict
from varlab.markup import count
from varlab.measures.statistics import FEWEST

RISE = 0.02  # smallest rise of a high-frequency share worth naming
ALLOWED = 0.60  # transformer time at half the depth, as a multiple of full depth's, on a CPU at batch 8
NEEDS_ROUNDS = f"A verdict on a time needs {FEWEST} rounds."


def high_frequency_rises(log: Log, control: Log | None = None) -> Verdict:
    """Is the preview change of late stages richer in high frequencies, and are high bands done later than low ones?

    ``control`` is a log on random weights, whose rise belongs to the schedule and the decoder.
    """
    claim = "High frequencies appear mainly in the later stages (FreqExit)"
    before, after, rise = _rise(log)
    done = variable(log, "residual-spectrum", "explained_share").sel(stage=late_stages(stage_count(log))[0] - 1)
    low, high, bands = done.isel(frequency_band=0), done.isel(frequency_band=-2), band_labels(log)
    gap = measured("explained share: low band minus high", low.values - high.values, RISE)
    finding = (
        f"High-frequency share of the preview change: {before} in {early_name(log)}, {after} in {late_name(log)}, a "
        f"rise of {rise}. Before {late_name(log)} the preview explains {measured('low', low.values)} of the final one "
        f"at {bands[0]} cycles per image and {measured('high', high.values)} at {bands[-2]} (difference {gap})."
    )
    if control is not None:
        weights = provenance(control)["weights"]
        finding += (
            f" With weights {weights} and {count(prompt_count(control), 'prompt')} the share rises by "
            f"{_rise(control)[2]}."
        )
    outcome, reason = all_of({"high-frequency share": judged(rise), "explained share": judged(gap)})
    return of_log(log, claim, outcome, finding, reason, (rise, gap))


def _rise(log: Log) -> tuple[Number, Number, Number]:
    """High-frequency share of the preview change: early, late, late less early."""
    shares = pick_axis(variable(log, "residual-spectrum", "high_frequency_share"), source="preview change")
    before, after = early(log, shares), late(log, shares)
    return (
        measured("early", before),
        measured("late", after),
        measured("high-frequency share: late minus early", after - before, RISE),
    )


def detail_rises(shares: Measured) -> Verdict:
    """The last four of ten stages hold more detail than the earlier ones (stages of one token aside)."""
    table = shares.table[shares.table.source == "codes of the stage"].dropna()
    border = round(0.6 * len(shares.facts["schedule"]))
    flags = table.stage > border, table.stage <= border
    after, before = (table[flag].groupby("prompt")["share"].mean() for flag in flags)
    more = measured("share of detail: late minus early", after.to_numpy() - before.loc[after.index].to_numpy(), RISE)
    finding = (
        f"Haar details hold {after.mean():.2f} of the energy of a stage's codes after stage {border}, "
        f"{before.mean():.2f} up to it: a difference of {more}; n = {more.n}."
    )
    return Verdict("High frequencies enter in the last stages (FreqExit)", judged(more), finding, numbers=(more,))


def detail_matters(removed: Measured, name: str) -> Verdict:
    """Without their details these stages give worse images, by the distance to held-out scenes."""
    table = removed.table.set_index("removed")
    whole, without = table.loc["nothing"], table.loc[name]
    more = column_rise("Fréchet distance: without minus with", without, whole, "scattering_frechet")
    finding = (
        f"Fréchet distance (scattering features) {column(whole, 'scattering_frechet')} with all details, "
        f"{column(without, 'scattering_frechet')} without those of {name}, a difference of {more} (taken as "
        f"independent); class accuracy {column(whole, 'class_accuracy')} and {column(without, 'class_accuracy')}; "
        f"n = {more.n}."
    )
    claim = "Images suffer when fine stages lose their details (FreqExit)"
    return Verdict(claim, judged(more), finding, numbers=(more,), of=source_of(removed.facts))


def layers_differ(lens: Measured) -> Verdict:
    """The paper: cosines of 0.2 to 0.6 between neighbouring layers, even the last two."""
    last = lens.table[lens.table.layer == lens.table.layer.max()].groupby("prompt")["similarity"].mean()
    cosine = measured("cosine", last, reference=0.6, supports=Side.BELOW)
    finding = f"Cosine of the most likely codes of the last two blocks: {cosine}; n = {cosine.n}."
    outcome, reason = judged(cosine), ""
    if outcome is not Outcome.TOO_FEW and outcome is not Outcome.HOLDS and cosine.high < 0.9:
        outcome, reason = Outcome.PARTLY, "That is below .9, but not below .6."
    claim = "Without training even the last two blocks read out differently (FreqExit: cosine .2 to .6)"
    return Verdict(claim, outcome, finding, reason, (cosine,))


def untrained_exits_fail(lens: Measured) -> Verdict:
    """At half the depth the most likely code is another in most tokens."""
    half = int(lens.table.layer.max()) // 2
    part = lens.table[lens.table.layer == half].groupby("prompt")["agreement"].mean()
    agreement = measured("agreement", part, reference=0.5, supports=Side.BELOW)
    finding = (
        f"The most likely code after block {half} is the last block's in {agreement} of the tokens; n = {agreement.n}."
    )
    claim = "A block in the middle, read by the shared head, mostly names another code (FreqExit)"
    return Verdict(claim, judged(agreement), finding, numbers=(agreement,))


def half_is_faster(speed: Measured, exits: str) -> Verdict:
    """Half the blocks in at most ``ALLOWED`` of the time of all."""
    row = speed.table.set_index("exits").loc[exits]
    ends = float(row.transformer_ratio), float(row.low), float(row.high)
    ratio = Number("time ratio", *ends, int(row.rounds), reference=ALLOWED, supports=Side.BELOW)
    finding = (
        f"{ratio} of the time at full depth, batch {row.batch:.0f}, {count(int(speed.facts['threads']), 'thread')}, "
        f"{row.rounds:.0f} interleaved rounds; operations {row.gflops / speed.table.gflops.iloc[0]:.2f}."
    )
    outcome = judged(ratio)
    reason = NEEDS_ROUNDS if outcome is Outcome.TOO_FEW else ""
    claim = f"Half the blocks take at most {ALLOWED:.2f} of the transformer's time"
    return Verdict(claim, outcome, finding, reason, (ratio,), source_of(speed.facts))


def time_follows_calls(alone: Measured, many: Measured) -> Verdict:
    """At batch 1 time is nearer to the share of block calls than to that of operations, in a batch the reverse.

    By exit vector: how much further off its time is from one share than from the other; intervals are over the vectors.
    """
    parts, numbers = [], []
    for found, side in ((alone, Side.BELOW), (many, Side.ABOVE)):
        by_calls, by_operations = _misses(found.table, "block_calls"), _misses(found.table, "gflops")
        batch = f"batch {int(found.table.batch.iloc[0])}"
        more = measured(f"{batch}: off by calls minus off by operations", by_calls - by_operations, supports=side)
        numbers.append(more)
        parts.append(
            f"at {batch} times lie {by_calls.mean():.3f} from the share of block calls and {by_operations.mean():.3f} "
            f"from that of operations (difference {more})"
        )
    finding = f"On average of {numbers[0].n} exit vectors " + "; ".join(parts) + "."
    outcome, reason = all_of({number.name.partition(":")[0]: judged(number) for number in numbers})
    if min(found.table.rounds.min() for found in (alone, many)) < FEWEST:
        outcome, reason = Outcome.TOO_FEW, NEEDS_ROUNDS
    claim = "At batch 1 latency follows block calls, in batches operations"
    return Verdict(claim, outcome, finding, reason, tuple(numbers), source_of(many.facts))


def _misses(table: pd.DataFrame, cost: str) -> npt.NDArray[np.float64]:
    """How far the time of each exit vector lies from its share of a cost; full depth, the measure of both, left out."""
    return (table.transformer_ratio - table[cost] / table[cost].iloc[0]).abs().to_numpy(float)[1:]

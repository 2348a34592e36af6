"""Verdicts on FreqExit's claims, composed from the tables at hand."""

import numpy as np
import pandas as pd

from varlab.exits.speed import ALLOWED
from varlab.figures.measured import Measured
from varlab.statistics import bootstrap_interval, paired_difference
from varlab.verdicts import HOLDS, NOT, PARTLY, UNCLEAR, Verdict


def _sign(low: float, high: float) -> str:
    """Whether a difference that should be positive is."""
    return HOLDS if low > 0 else NOT if high < 0 else UNCLEAR


def detail_rises(shares: Measured) -> Verdict:
    """The last four of ten stages hold more detail than the earlier ones (stages of one token aside)."""
    table = shares.table[shares.table.source == "codes of the stage"].dropna()
    border = round(0.6 * len(shares.facts["schedule"]))
    late, early = (
        table[flag].groupby("prompt")["share"].mean() for flag in (table.stage > border, table.stage <= border)
    )
    more = paired_difference(late.to_numpy(), early.loc[late.index].to_numpy())
    finding = (
        f"Haar details hold {late.mean():.2f} of the energy of a stage's codes after stage {border}, "
        f"{early.mean():.2f} up to it: {more.estimate:+.2f} ({more.low:+.2f} to {more.high:+.2f}); n = {len(late)}."
    )
    return _verdict("High frequencies enter in the last stages", finding, _sign(more.low, more.high))


def detail_matters(removed: Measured, name: str) -> Verdict:
    """Without their details these stages give worse images; by intervals that do not overlap."""
    table = removed.table.set_index("removed")
    whole, without = table.loc["nothing"], table.loc[name]
    finding = (
        f"Frechet distance (scattering) {whole.scattering_frechet:.2f} ({whole.scattering_frechet_low:.2f} to "
        f"{whole.scattering_frechet_high:.2f}) with all details, {without.scattering_frechet:.2f} "
        f"({without.scattering_frechet_low:.2f} to {without.scattering_frechet_high:.2f}) without those of {name}; "
        f"class accuracy {whole.class_accuracy:.2f} and {without.class_accuracy:.2f}; n = {int(whole.n)}."
    )
    worse = without.scattering_frechet_low - whole.scattering_frechet_high
    better = without.scattering_frechet_high - whole.scattering_frechet_low
    return _verdict("Images suffer when fine stages lose their details", finding, _sign(worse, better))


def layers_differ(lens: Measured) -> Verdict:
    """The paper: cosines of 0.2 to 0.6 between neighbouring layers, even the last two."""
    last = lens.table[lens.table.layer == lens.table.layer.max()].groupby("prompt")["similarity"].mean()
    mean, low, high = bootstrap_interval(last)
    finding = (
        f"Cosine of the last two layers' most likely codes: {mean:.2f} ({low:.2f} to {high:.2f}); n = {len(last)}."
    )
    word = HOLDS if high < 0.6 else PARTLY if high < 0.9 else NOT
    return _verdict("Without training even the last two layers read out differently (cosine .2 to .6)", finding, word)


def untrained_exits_fail(lens: Measured) -> Verdict:
    """At half the depth the most likely code is another in most tokens."""
    half = int(lens.table.layer.max()) // 2
    part = lens.table[lens.table.layer == half].groupby("prompt")["agreement"].mean()
    mean, low, high = bootstrap_interval(part)
    finding = f"Top-1 agreement of layer {half} with the last: {mean:.2f} ({low:.2f} to {high:.2f}); n = {len(part)}."
    word = HOLDS if high < 0.5 else NOT if low > 0.5 else UNCLEAR
    return _verdict("A block in the middle, read by the shared head, mostly names another code", finding, word)


def half_is_faster(speed: Measured, exits: str) -> Verdict:
    row = speed.table.set_index("exits").loc[exits]
    finding = (
        f"{row.transformer_ratio:.2f} ({row.low:.2f} to {row.high:.2f}) of the time at full depth, "
        f"batch {row.batch:.0f}, {speed.facts['threads']} threads, {row.rounds:.0f} interleaved rounds; operations "
        f"{row.gflops / speed.table.gflops.iloc[0]:.2f}."
    )
    word = HOLDS if row.high <= ALLOWED else NOT if row.low > ALLOWED else UNCLEAR
    return _verdict(f"Half the blocks take at most {ALLOWED:.2f} of the transformer's time", finding, word)


def time_follows_calls(alone: Measured, many: Measured) -> Verdict:
    """At batch 1 time is nearer to the share of block calls than to that of operations, in a batch the reverse."""
    misses = {}
    for name, found in (("alone", alone), ("many", many)):
        table = found.table
        for column in ("block_calls", "gflops"):
            share = table[column] / table[column].iloc[0]
            misses[name, column] = float(np.sqrt(((table.transformer_ratio - share)[1:] ** 2).mean()))
    first = misses["alone", "block_calls"] < misses["alone", "gflops"]
    second = misses["many", "gflops"] < misses["many", "block_calls"]
    finding = "; ".join(
        f"batch {int(found.table.batch.iloc[0])}: off by {misses[name, 'block_calls']:.3f} from the share of block "
        f"calls, by {misses[name, 'gflops']:.3f} from that of operations"
        for name, found in (("alone", alone), ("many", many))
    )
    word = HOLDS if first and second else PARTLY if first or second else NOT
    claim = "At batch 1 latency follows block calls, in batches operations (root mean square over exit vectors)"
    return _verdict(claim, finding + ".", word)


def beats(ablation: Measured, rival: str, exits: str) -> Verdict:
    """``corrected`` against another recipe at an exit: the Frechet distance less the rival's, by training seed."""
    table = ablation.table[(ablation.table.exits == exits) & (ablation.table.recipe == "corrected")]
    column, claim = f"less_{rival}", f"Trained by the corrected recipe, exit {exits} beats {_NAMES[rival]}"
    if column not in table or table[column].dropna().empty:
        return _verdict(claim, "The ablation holds no such pair.", UNCLEAR)
    rows = table.dropna(subset=[column])
    parts = [
        f"seed {row.train_seed}: {row[column]:+.3f} ({row[f'{column}_low']:+.3f} to {row[f'{column}_high']:+.3f})"
        for _, row in rows.iterrows()
    ]
    finding = f"Frechet distance (scattering) less its own, n = {int(rows.n.iloc[0])}: {'; '.join(parts)}."
    words = {_sign(-high, -low) for low, high in zip(rows[f"{column}_low"], rows[f"{column}_high"], strict=True)}
    return _verdict(claim, finding, words.pop() if len(words) == 1 else PARTLY)


_NAMES = {"untrained": "the untrained exit", "layerskip": "the LayerSkip-like baseline"}


def _verdict(claim: str, finding: str, word: str) -> Verdict:
    return {"claim": claim, "finding": finding, "verdict": word}


def published() -> pd.DataFrame:
    """FreqExit's table 1: VAR-d20, ImageNet at 256 pixels, an RTX 4090, 50 000 images. Other model, data, measures."""
    columns = ("method", "exits", "speed-up", "GFLOPs", "FID", "IS", "precision", "recall")
    rows = (
        ("VAR-d20", "20", 1.00, 1879, 2.78, 252, 0.84, 0.55),
        ("LayerSkip a", "16", 1.27, 1664, 3.25, 253, 0.80, 0.58),
        ("LayerSkip b", "16x5/12x5", 1.30, 1466, 3.99, 251, 0.78, 0.57),
        ("LayerSkip c", "12", 1.63, 1448, 4.78, 250, 0.76, 0.60),
        ("FreqExit a", "16", 1.27, 1664, 2.72, 252, 0.81, 0.55),
        ("FreqExit b", "16x5/12x5", 1.30, 1466, 2.90, 250, 0.78, 0.57),
        ("FreqExit c", "12", 1.63, 1448, 3.16, 251, 0.71, 0.57),
        ("FreqExit d", "10", 2.00, 1341, 3.58, 251, 0.73, 0.56),
    )
    return pd.DataFrame(rows, columns=list(columns))

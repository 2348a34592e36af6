"""What training for exits changes: FreqExit's recipe against others, from the table of an ablation."""

import pandas as pd

from varlab.analysis.measured import Measured
from varlab.claims.parts import column, column_rise, source_of
from varlab.claims.rules import FAILS, HOLDS, WIDE, all_of, judged
from varlab.claims.verdict import Number, Outcome, Side, Verdict

LOSS = 0.02  # class accuracy: what is lost up to it counts as nothing
_NAMES = {"untrained": "the untrained exit", "layerskip": "the LayerSkip-like baseline"}


def beats(ablation: Measured, rival: str, exits: str) -> Verdict:
    """``corrected`` against another recipe at an exit: the Frechet distance less the rival's, by training seed."""
    table = _recipe(ablation, "corrected", exits)
    less, claim = f"less_{rival}", f"Trained by the corrected recipe, exit {exits} beats {_NAMES[rival]}"
    if less not in table or table[less].dropna().empty:
        return Verdict(claim, Outcome.NOT_MEASURED, "The ablation holds no such pair.")
    gains = [
        Number(f"seed {row.train_seed}", -row[less], -row[f"{less}_high"], -row[f"{less}_low"], int(row.n))
        for _, row in table.dropna(subset=[less]).iterrows()
    ]
    by = ", ".join(f"{gain} with training {gain.name}" for gain in gains)
    finding = f"Its Fréchet distance (scattering features) is lower by {by}; n = {gains[0].n}. "
    finding += f"Its class accuracy: {', '.join(f'{share:.2f}' for share in table.class_accuracy)}."
    outcome, reason = all_of({gain.name: judged(gain) for gain in gains})
    return Verdict(claim, outcome, finding, reason, tuple(gains), source_of(ablation.facts))


def best_recipe(ablation: Measured, exits: str) -> Verdict:
    """Is ``corrected``, all terms together, at least as good as every other recipe at an exit, by both measures?

    Recipes are taken as independent and compared at the training seeds that both have.
    """
    claim = f"The corrected recipe, all terms together, is the best of the recipes at exit {exits}"
    own, rivals = _recipe(ablation, "corrected", exits).set_index("train_seed"), []
    for _, row in ablation.table[ablation.table.exits == exits].iterrows():
        if row.recipe not in ("corrected", "untrained") and row.train_seed in own.index:
            rivals.append((row, own.loc[row.train_seed]))
    if not rivals:
        return Verdict(claim, Outcome.NOT_MEASURED, "The ablation holds no other recipe of the same training seed.")
    ahead, beaten, numbers = [], [], []
    for row, mine in rivals:
        rival = f"{row.recipe}, seed {row.train_seed}"
        closer = column_rise(f"distance: corrected minus {rival}", mine, row, "scattering_frechet", 0.0, Side.BELOW)
        righter = column_rise(f"accuracy: {rival} minus corrected", row, mine, "class_accuracy", 0.0, Side.BELOW)
        numbers += [closer, righter]
        words = {judged(closer), judged(righter)}
        text = f"{row.recipe} (seed {row.train_seed}): Fréchet distance {closer} lower, class accuracy {righter} higher"
        if FAILS in words and HOLDS not in words:
            ahead.append(text)
        elif FAILS not in words and HOLDS in words:
            beaten.append(f"{row.recipe} (seed {row.train_seed})")
    about = f"n = {int(rivals[0][0].n)} images, one training run a row; intervals are over images, not over trainings."
    worse = f"It beats {', '.join(beaten) or 'none of them'}. "
    better = f"Better than it: {'; '.join(ahead)}. " if ahead else ""
    outcome = FAILS if ahead else HOLDS if len(beaten) == len(rivals) else WIDE
    return Verdict(claim, outcome, better + worse + about, "", tuple(numbers), source_of(ablation.facts))


def full_depth_kept(ablation: Measured, depth: str) -> Verdict:
    """Does a model trained for exits lose nothing where all blocks run?"""
    claim = f"Training for exits costs nothing at full depth ({depth} blocks)"
    plain, tuned = (_recipe(ablation, recipe, depth) for recipe in ("untrained", "corrected"))
    if plain.empty or tuned.empty:
        return Verdict(claim, Outcome.NOT_MEASURED, "The ablation holds no images at full depth.")
    before, parts, numbers = plain.iloc[0], list[str](), list[Number]()
    for _, after in tuned.iterrows():
        lost = column_rise(f"seed {after.train_seed}: accuracy lost", before, after, "class_accuracy", LOSS, Side.BELOW)
        parts.append(
            f"seed {after.train_seed}: class accuracy {column(before, 'class_accuracy')} before, "
            f"{column(after, 'class_accuracy')} after, a loss of {lost}; Fréchet distance "
            f"{before.scattering_frechet:.2f} and {after.scattering_frechet:.2f}"
        )
        numbers.append(lost)
    outcome, reason = all_of({number.name.partition(":")[0]: judged(number) for number in numbers})
    finding = f"{'; '.join(parts)} (margin {LOSS:g}; n = {numbers[0].n})."
    finding = finding[0].upper() + finding[1:]
    return Verdict(claim, outcome, finding, reason, tuple(numbers), source_of(ablation.facts))


def _recipe(ablation: Measured, recipe: str, exits: str) -> pd.DataFrame:
    return ablation.table[(ablation.table.exits == exits) & (ablation.table.recipe == recipe)]

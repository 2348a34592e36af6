"""What training for exits changes: FreqExit's recipe against others, from the table of an ablation."""

from collections.abc import Sequence

import pandas as pd

from varlab.analysis.measured import Measured
from varlab.claims.parts import column, column_rise, source_of
from varlab.claims.rules import FAILS, HOLDS, WIDE, all_of, judged, number
from varlab.claims.verdict import Number, Outcome, Side, Verdict
from varlab.markup import count
from varlab.measures.statistics import student_interval

Pair = tuple[pd.Series, pd.Series]  # rows of one training seed, of two recipes
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

    Recipes are taken as independent and compared at the training seeds that both have: by the mean difference with
    Student's interval over trainings, or, of one training, with the interval over its images.
    """
    claim = f"The corrected recipe, all terms together, is the best of the recipes at exit {exits}"
    own, rivals = _recipe(ablation, "corrected", exits).set_index("train_seed"), dict[str, list[Pair]]()
    for _, row in ablation.table[ablation.table.exits == exits].iterrows():
        if row.recipe not in ("corrected", "untrained") and row.train_seed in own.index:
            rivals.setdefault(row.recipe, []).append((own.loc[row.train_seed], row))
    if not rivals:
        return Verdict(claim, Outcome.NOT_MEASURED, "The ablation holds no other recipe of the same training seed.")
    parts, numbers = dict[Outcome, list[str]](), list[Number]()
    for recipe, pairs in rivals.items():
        closer = _mean_rise(f"distance: corrected minus {recipe}", pairs, "scattering_frechet")
        righter = _mean_rise(f"accuracy: {recipe} minus corrected", [pair[::-1] for pair in pairs], "class_accuracy")
        numbers += [closer, righter]
        by = f"Fréchet distance lower by {closer}, class accuracy higher by {righter}, {count(len(pairs), 'training')}"
        parts.setdefault(_word({judged(closer), judged(righter)}), []).append(f"{recipe} ({by})")
    ahead, beaten, open_ = (parts.get(word, []) for word in (FAILS, HOLDS, WIDE))
    finding = f"Better than it: {'; '.join(ahead)}. " if ahead else ""
    finding += f"It beats {', '.join(text.partition(' (')[0] for text in beaten) or 'none of them'}. "
    finding += f"Not told apart from it: {'; '.join(open_)}. " if open_ else ""
    finding += f"n = {int(pairs[0][0].n)} images a training, {count(len(own), 'training')} of the corrected recipe; "
    finding += "intervals over trainings, of one training over its images."
    outcome = FAILS if ahead else WIDE if open_ else HOLDS
    return Verdict(claim, outcome, finding, "", tuple(numbers), source_of(ablation.facts))


def _word(words: set[Outcome]) -> Outcome:
    """Of two measures: the claim fails where one is against it and none for it, and the reverse."""
    return FAILS if FAILS in words and HOLDS not in words else HOLDS if HOLDS in words and FAILS not in words else WIDE


def _mean_rise(about: str, pairs: Sequence[Pair], name: str) -> Number:
    """A column of the first rows less that of the second, mean over trainings; below 0 speaks for the claim."""
    rises = [column_rise(about, one, other, name, supports=Side.BELOW) for one, other in pairs]
    if len(rises) == 1:
        return rises[0]
    over = student_interval([rise.estimate for rise in rises])
    return number(about, over, sum(rise.n for rise in rises), supports=Side.BELOW)


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

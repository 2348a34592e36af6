"""Two sets of scores of the same prompts and seeds, paired image by image: the one table for all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from varlab.accelerators import DENSE
from varlab.comparison.likeness import refuse_unlike
from varlab.comparison.saved import Scores, read_scores
from varlab.errors import VarlabError, quoted, unknown
from varlab.measures.statistics import Design, adjusted, paired_rows
from varlab.outputs import FACTS, refuse_existing, save_json, save_table
from varlab.runs.origins import signed

MEDIANS = ("psnr",)  # infinite for equal images
RIGHT = "correct"  # the measure whose overall is the plain mean of the categories, as GenEval's
RESAMPLES = 10_000
TITLES = {
    "p": "p", "p_holm": "Holm", "p_equivalent_holm": "equal", "detectable": "detectable", "prompts_needed": "needed"
}  # fmt: skip
Margin = float | Mapping[str, float] | None


@dataclass(frozen=True)
class Paired:
    """``table``: one row a measure and category, of each pair of methods; ``facts``: how it was made; ``notes``."""

    table: pd.DataFrame
    facts: dict[str, Any]
    notes: list[str]

    def save(self, folder: Path | str, overwrite: bool = False) -> Path:
        """Write ``paired.csv`` and ``facts.json``. Raises VarlabError where one of them is, unless ``overwrite``."""
        place = Path(folder)
        files = place / "paired.csv", place / FACTS
        refuse_existing(*files, overwrite=overwrite)
        save_table(files[0], self.table)
        save_json(files[1], self.facts)
        return place

    def legend(self) -> str:
        """What the columns mean, in one paragraph."""
        facts = self.facts
        over = "prompts with all their images" if facts["seeds"] == "own" else "prompts and seeds, by t"
        return (
            f"difference: a less b, with its 95 % interval over {over} ({facts['resamples']:,} bootstrap draws, seed "
            f"{facts['bootstrap_seed']}); n: images of prompts; flips: images on which a is higher (+) and lower (-); "
            "Holm: p adjusted for the number of rows, overall and categories apart; equal: p of a difference beyond "
            "the margin; detectable: the true difference seen with 80 % power; needed: prompts that see the wanted one"
        )

    def shown(self) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
        """Of each pair of methods who they are, their differences, and the tests of these, as people read them."""
        for (a, b), table in self.table.groupby(["a", "b"], sort=False):
            rows = pd.DataFrame({"measure": table["measure"], "category": table["category"]})
            differences, tests = rows.copy(), rows.copy()
            differences["n"] = [f"{row.n} of {row.prompts}" for row in table.itertuples()]
            bounds = zip(table["difference"], table["low"], table["high"], strict=True)
            differences["difference"] = [
                f"{value:+.4f}" if low != low else f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"
                for value, low, high in bounds
            ]
            differences["flips"] = [f"+{row.higher} -{row.lower}" for row in table.itertuples()]
            differences["outcome"] = table["outcome"]
            for name in ("p", "p_holm", "p_equivalent_holm", "detectable", "prompts_needed"):
                form = "{:.0f}" if name == "prompts_needed" else "{:.3g}"
                tests[TITLES[name]] = table[name].map(form.format).replace("nan", "-")
            yield f"a: {a}; b: {b}", differences, tests


def pair(
    a: pd.DataFrame,
    b: pd.DataFrame,
    measures: Sequence[str],
    margin: Margin = None,
    wanted: float | None = None,
    crossed: bool = False,
    means_of: Sequence[str] = (RIGHT,),
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of ``paired_rows``, a block a measure; both tables have the same index (name, k) in the same order.

    crossed: all prompts share the noise of image k, so that k is a second factor. means_of: measures whose overall is
    the mean of category means; the others have one row, over all images.
    """
    parts = []
    for measure in measures:
        own = margin.get(measure) if isinstance(margin, Mapping) else margin
        names = list(a["category"]) if measure in means_of and a["category"].ne("").all() else None
        design = Design(
            list(a.index.get_level_values(0)), names, list(a.index.get_level_values(1)) if crossed else None
        )
        median, draws = measure in MEDIANS, {"n_resamples": RESAMPLES, "seed": seed}
        rows = paired_rows(a[measure], b[measure], design, median=median, margin=own, wanted=wanted, **draws)
        parts.append(rows.rename(columns={"a": "mean_a", "b": "mean_b"}).assign(measure=measure))
    return pd.concat(parts, ignore_index=True)


def in_one_table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of ``pair``, of ``a`` and ``b``, with p adjusted for their number."""
    table = adjusted(pd.concat(parts, ignore_index=True))
    front = ["a", "b", "measure", "category", "n", "prompts", "mean_a", "mean_b"]
    return table[[*front, *(name for name in table if name not in front)]]


def compare_saved(
    a: Path | str,
    b: Path | str,
    *,
    first: str | None = None,
    second: str | None = None,
    measures: Sequence[str] = (),
    margin: Margin = None,
    wanted: float | None = None,
    seeds: Literal["own", "shared"] = "own",
    despite: Sequence[str] = (),
    allow_missing: bool = False,
    seed: int = 0,
) -> Paired:
    """Any two saved comparisons or scores of the same prompts and seeds, paired image by image.

    Parameters
    ----------
    a, b: folders or files, see ``read_scores``; the same one twice compares two methods of it.
    first, second: the method of ``a`` and of ``b``; by default each that both hold, or the only one of each.
    measures: columns to compare; by default all numbers that both have.
    margin: differences within it count as none: a number, or one a measure.
    wanted: the difference that ``prompts_needed`` is asked for; the margin by default.
    seeds: "shared" where image k of every prompt was drawn with the same noise, so that a lucky seed is lucky for all:
        then errors are clustered by seed as well. "own", the default, is how this package draws.
    despite: fields in which the two may differ.
    allow_missing: compare the images that both have, and say how many these are.
    seed: of the bootstrap.

    Returns
    -------
    Paired
        Differences with intervals, tests, equivalence within the margin, and how many prompts would be needed.

    Raises
    ------
    VarlabError
        Files that cannot be read, fields that differ, prompts without a partner, and scores that are not there.

    Examples
    --------
    >>> vl.compare_saved("runs/a", "runs/b", margin={"ssim": 0.005}).table
    """
    one, two = read_scores(a), read_scores(b)
    if seeds not in ("own", "shared"):
        raise unknown("kind of seeds", seeds, ("own", "shared"))
    notes = refuse_unlike(one.facts, two.facts, despite)
    parts = []
    for ours, theirs in _methods(one, two, first, second):
        left, right, said = _partners(one, ours, two, theirs, allow_missing)
        chosen = _measures(one, left, two, right, measures, DENSE in (ours, theirs))
        if not allow_missing:
            _refuse_holes(one, left, chosen)
            _refuse_holes(two, right, chosen)
        if chosen:
            rows = pair(left, right, chosen, margin, wanted, seeds == "shared", seed=seed)
            parts.append(rows.assign(a=_label(one, ours), b=_label(two, theirs)))
            notes += said
    if not parts:
        raise VarlabError(f"{one.path} and {two.path} have no measure in common that tells methods apart.")
    table = in_one_table(parts)
    if table["a"].equals(table["b"]):
        table["a"], table["b"] = (table[side] + f" ({scores.path})" for side, scores in (("a", one), ("b", two)))
    facts = {
        "a": str(one.path), "b": str(two.path), "made_a": one.facts, "made_b": two.facts, "seeds": seeds,
        "despite": list(despite), "margin": margin, "wanted": wanted, "bootstrap_seed": seed, "resamples": RESAMPLES,
        "level": 0.95, "power": 0.8, "notes": notes, **signed(),
    }  # fmt: skip
    return Paired(table, facts, notes)


def _label(scores: Scores, method: str) -> str:
    return method or scores.path.stem


def _methods(one: Scores, two: Scores, first: str | None, second: str | None) -> list[tuple[str, str]]:
    for scores, name in ((one, first), (two, second)):
        if name is not None and name not in scores.methods:
            raise unknown(f"method of {scores.path}", name, scores.methods)
    if first is not None or second is not None:
        return [(first or _only(one, str(second)), second or _only(two, str(first)))]
    if shared := [name for name in one.methods if name in two.methods]:
        return [(name, name) for name in shared]
    return [(_only(one), _only(two))]


def _only(scores: Scores, wanted: str = "") -> str:
    """The method that is meant where none is given: the same one, or the only one beside the dense run."""
    own = [name for name in scores.methods if name != DENSE] or scores.methods
    if wanted in scores.methods:
        return wanted
    if len(own) > 1:
        raise VarlabError(f"{scores.path} holds several methods: name one with --first and --second: {', '.join(own)}.")
    return own[0]


def _partners(
    one: Scores, ours: str, two: Scores, theirs: str, allow_missing: bool
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The images that both have, in one order, and what a reader must know of the others."""
    left, right = one.of(ours), two.of(theirs)
    common = left.index[left.index.isin(right.index)]
    lost = len(left) + len(right) - 2 * len(common)
    if lost and (not allow_missing or common.empty):
        rows = [(left.index.difference(right.index), two), (right.index.difference(left.index), one)]
        shown = "; ".join(
            f"{len(index)} are not in {scores.path}, such as {quoted(index[0][0])}"
            for index, scores in rows
            if len(index)
        )
        raise VarlabError(
            f"{_label(one, ours)} and {_label(two, theirs)} are not of the same images: {shown}. Score the same "
            "prompts, or add --allow-missing (allow_missing=True) to compare what both have."
        )
    left, right = left.loc[common], right.loc[common]
    other = (left["prompt"] != right["prompt"]) & (left["prompt"] != "") & (right["prompt"] != "")
    if other.any():
        name = other.index[other.to_numpy()][0]
        raise VarlabError(
            f"Image {quoted(name[0])} has other prompts: {quoted(left.loc[name, 'prompt'])} in {one.path} and "
            f"{quoted(right.loc[name, 'prompt'])} in {two.path}. Score the same prompts in the same order."
        )
    note = f"{_label(one, ours)}: only the {len(common)} images that both have; {lost} are without a partner."
    return left, right, [note] if lost else []


def _measures(
    one: Scores, left: pd.DataFrame, two: Scores, right: pd.DataFrame, asked: Sequence[str], dense: bool
) -> list[str]:
    """Those asked for, or all that both have; fidelity to the dense image says nothing of that image itself."""
    shared = [name for name in one.measures if name in two.measures]
    for name in asked:
        if name not in shared:
            raise unknown(f"measure of both {one.path} and {two.path}", name, shared)
    there = [name for name in asked or shared if left[name].notna().any() and right[name].notna().any()]
    return there if asked or not dense else [name for name in there if name == RIGHT]


def _refuse_holes(scores: Scores, rows: pd.DataFrame, measures: Sequence[str]) -> None:
    for name in measures:
        if (gone := rows[name].isna()).any():
            image, k = rows.index[gone.to_numpy()][0]
            raise VarlabError(
                f"{scores.path}: {int(gone.sum())} of {len(rows)} values of {name} are missing or NaN, the first for "
                f"image {k} of {quoted(image)}. Score it, leave the measure out with --measure, or add --allow-missing."
            )

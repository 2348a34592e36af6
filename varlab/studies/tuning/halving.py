"""Successive halving over a space of specs, chosen on one half of the prompts and reported on the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.errors import VarlabError
from varlab.outputs import refuse_existing, save_json, save_table
from varlab.runs import Job
from varlab.runs.inputs import at_least, check_counts
from varlab.runs.provenance import provenance
from varlab.runs.trial import shapes_of
from varlab.scenes.prompt_sets import choose
from varlab.studies.tuning.answers import ANSWERS, FRONT, answers_of, front_of
from varlab.studies.tuning.points import Points, better_half, finalists_of
from varlab.studies.tuning.space import space_of
from varlab.sweeps import Sweep, sweep
from varlab.weights.registry import find
from varlab.weights.zoo import load

FIRST = 4  # prompts of the first rung, at least; each rung but the last keeps half of the candidates
WORKS = (0.3, 0.45, 0.6)
RECORD = "tuned.json"


@dataclass(frozen=True)
class Tuned:
    """What was chosen on one half of the prompts, and how it does on the other.

    ``table``: a row a finalist and baseline, all of the held-out half: its ``kind`` (baseline, single method or
    composition), work, ssim with interval, and whether it lay ``on_front`` of all on the half that chose.
    ``answers``: at each work of ``WORKS`` the single method and the composition that were chosen, what each is held
    against (the best baseline or mix of two; for the composition also the best single or mix) and their paired
    difference, held out.
    ``recommended``: the spec with the largest lower bound of its difference to the baselines; none where no bound is
    above zero.
    """

    table: pd.DataFrame
    answers: pd.DataFrame
    recommended: str | None
    facts: dict[str, Any]


def tune(
    model: str,
    out: Path | str,
    *,
    prompt_set: str | None = None,
    n: int = 64,
    seed: int = 0,
    shard: int = 8,
    works: Sequence[float] = WORKS,
    candidates: Sequence[str] | None = None,
    progress: Callable[..., Any] | None = None,
    **running: Any,
) -> Tuned:
    """The same call goes on where it was stopped. ``running``: workers, cluster, tell, wait, as ``sweep`` takes them.

    Parameters
    ----------
    n: prompts in all: half to choose on, half to report. Intervals narrow with its root, time grows with it.
    shard: prompts a shard.
    works: over the dense run's, at which candidates are held against baselines.
    candidates: specs in place of the space that is declared for all models.

    Raises
    ------
    VarlabError: as ``sweep`` does, and for fewer than 16 prompts, which no half could choose on.
    """
    at_least(16, n=n)
    check_counts(n=n)
    if not all(0 < work < 1 for work in works):
        raise VarlabError(f"Works are shares of the dense run's, between 0 and 1, not {', '.join(map(str, works))}.")
    place, chosen = Path(out), choose(prompt_set, n, model)
    if not (place / "choose-0").is_dir():
        refuse_existing(place)
    declared, baselines = space_of(shapes_of(find(model)))
    left, n = list(dict.fromkeys(candidates or declared)), len(chosen)
    searched, half, rows, start = len(left), n // 2, list[pd.DataFrame](), 0

    def drawn(name: str, specs: Sequence[str], first: int, count: int) -> Sweep:
        prompts = {"set": prompt_set, "n": count, "first": first}
        plan = {"models": [model], "specs": list(dict.fromkeys(specs)), "prompts": [prompts], "seeds": [seed]}
        made = sweep(plan | {"shard": shard}, place / name, dense=place / "dense", progress=progress, **running)
        if made.failures:
            raise VarlabError(f"{len(made.failures)} tasks failed, the first: {made.failures[0].error}. Try again.")
        return made

    for rung, end in enumerate(ends := _ends(half)):
        rows.append(drawn(f"choose-{rung}", [*baselines, *left], start, end - start).prompts)
        start, points = end, Points.of(pd.concat(rows), [*baselines, *left])
        if end != ends[-1]:
            left = better_half(points, left, works)
    finalists = finalists_of(points, left, works)
    held = drawn("report", [*baselines, *finalists], half, n - half)
    loaded = load(model)
    facts = provenance(Job(loaded, tuple(chosen.texts), loaded.settings, seed), chosen.name) | {
        "precision": "fp32",
        "chosen_on": half,
        "reported_on": n - half,
        "candidates": searched,
        "shard": shard,
        "threads": 1,
    }
    table, answers = front_of(held.table, points, baselines), answers_of(held, points, baselines, finalists, works)
    better = answers[(answers.against == "baselines") & (answers.low > 0)]
    recommended = str(better.loc[better.low.idxmax(), "candidate"]) if len(better) else None
    save_table(place / FRONT, table, digits="%.6g")
    save_table(place / ANSWERS, answers, digits="%.6g")
    save_json(place / RECORD, {"facts": facts | {"recommended": recommended}})
    return Tuned(table, answers, recommended, facts)


def _ends(half: int) -> list[int]:
    """Where each rung ends: the prompts double, from ``FIRST`` at least to all that choose."""
    found = [half]
    while found[0] // 2 >= FIRST:
        found.insert(0, found[0] // 2)
    return found

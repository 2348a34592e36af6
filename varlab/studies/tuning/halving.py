"""Successive halving over a space of specs, chosen on one half of the prompts and reported on the other."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from varlab.accelerators import DENSE
from varlab.analysis.frontier import SAME, corners, mix_at
from varlab.errors import VarlabError
from varlab.measures.statistics import bootstrap_interval
from varlab.runs.inputs import at_least
from varlab.scenes.prompt_sets import choose
from varlab.studies.tuning.space import space_of
from varlab.sweeps import Sweep, sweep
from varlab.weights.zoo import load

RUNGS = 3  # on an eighth, an eighth and a quarter of the prompts; each but the last keeps half of the candidates
WORKS = (0.3, 0.45, 0.6)
Floats = np.ndarray


@dataclass(frozen=True)
class Tuned:
    """What was chosen on one half of the prompts, and how it does on the other.

    ``table``: a row a finalist and baseline, all of the held-out half: work, ssim with interval, whether it is a
    ``baseline``, and whether it lay ``on_front`` of all on the half that chose. ``answers``: at each work of ``WORKS``
    the candidate that was chosen, the baseline (or mix of two) that was, and their paired difference, held out.
    ``recommended``: the spec with the largest lower bound of that difference; none where no bound is above zero.
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
    progress: Callable[..., Any] = lambda tally: None,
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
    choose(prompt_set, n, model)  # a file that is too short is told now, not after the half that chooses
    if not all(0 < work < 1 for work in works):
        raise VarlabError(f"Works are shares of the dense run's, between 0 and 1, not {', '.join(map(str, works))}.")
    declared, baselines = space_of(load(model, "empty"))
    left, place = list(candidates or declared), Path(out)
    half, rows, start = n // 2, list[pd.DataFrame](), 0

    def drawn(name: str, specs: Sequence[str], first: int, count: int) -> Sweep:
        prompts = {"set": prompt_set, "n": count, "first": first}
        plan = {"models": [model], "specs": list(dict.fromkeys(specs)), "prompts": [prompts], "seeds": [seed]}
        made = sweep(plan | {"shard": shard}, place / name, dense=place / "dense", progress=progress, **running)
        if made.failures:
            raise VarlabError(f"{len(made.failures)} tasks failed, the first: {made.failures[0].error}. Try again.")
        return made

    for rung in range(RUNGS):
        end = half if rung == RUNGS - 1 else max(1, half // 2 ** (RUNGS - 1 - rung))
        rows.append(drawn(f"choose-{rung}", [*baselines, *left], start, end - start).prompts)
        start = end
        chosen_on = pd.concat(rows)
        chosen_on = chosen_on[chosen_on.method.isin([*baselines, *left])]
        if rung < RUNGS - 1:
            left = _better_half(*_points(chosen_on, half), left)
    works_of, values = _points(chosen_on, half)
    finalists = [left[0]] if not left else _finalists(works_of, values.mean(axis=1), left, works)
    held = drawn("report", [*baselines, *finalists], half, n - half)
    facts = {
        "model": model,
        "n": n,
        "chosen on": half,
        "reported on": n - half,
        "seed": seed,
        "candidates": len(declared if candidates is None else candidates),
    }
    return _told(place, held, works_of, values, baselines, finalists, works, facts)


def _points(rows: pd.DataFrame, half: int) -> tuple[pd.Series, pd.DataFrame]:
    """Work over dense by method, and SSIM by method (row) and prompt (column): of the prompts that a method has."""
    flops = rows.groupby("method", sort=False).flops.mean()
    values = rows.pivot(index="method", columns="prompt", values="ssim").loc[flops.index]
    whole = values.notna().all(axis=1)
    return flops[whole] / flops[DENSE], values[whole]


def _better_half(works: pd.Series, values: pd.DataFrame, left: list[str]) -> list[str]:
    """The half of the candidates that lies least below the front of all, in the space's own order."""
    means = values.mean(axis=1).to_numpy()
    edge = corners(works.to_numpy(float), means)
    below = pd.Series(_front(works.to_numpy(float), means, edge) - means, index=works.index)[left]
    best = set(below.nsmallest((len(left) + 1) // 2).index)
    return [spec for spec in left if spec in best]


def _front(works: Floats, means: Floats, edge: list[int]) -> Floats:
    return np.interp(works, works[edge], means[edge])


def _finalists(works: pd.Series, means: pd.Series, left: list[str], wanted: Sequence[float]) -> list[str]:
    """Candidates on the front of all, and the best at no more than each wanted work."""
    edge = set(works.index[corners(works.to_numpy(float), means.to_numpy(float))])
    best = {
        means[[s for s in left if works[s] <= work + SAME]].idxmax()
        for work in wanted
        if (works[left] <= work + SAME).any()
    }
    return [spec for spec in left if spec in edge | best] or left[:1]


def _told(
    place: Path, held: Sweep, works: pd.Series, values: pd.DataFrame, baselines: list[str], finalists: list[str],
    wanted: Sequence[float], facts: dict[str, Any],
) -> Tuned:  # fmt: skip
    table = held.table.assign(baseline=held.table.method.isin(baselines))
    edge = works.index[corners(works.to_numpy(float), values.mean(axis=1).to_numpy())]
    table["on_front"] = table.method.isin(edge)
    columns = [
        "method",
        "baseline",
        "on_front",
        "n",
        "work_ratio",
        "ssim",
        "ssim_low",
        "ssim_high",
        "psnr",
        "seed",
        "weights",
        "precision",
        "device",
    ]
    table = table.sort_values("work_ratio", kind="stable")[columns].reset_index(drop=True)
    ssim = held.prompts.pivot(index="method", columns="prompt", values="ssim")
    answers = pd.DataFrame(filter(None, (_answer(work, works, values, baselines, finalists, ssim) for work in wanted)))
    better = answers[answers.low > 0] if len(answers) else answers
    recommended = str(better.loc[better.low.idxmax(), "candidate"]) if len(better) else None
    place.mkdir(parents=True, exist_ok=True)
    table.to_csv(place / "front.csv", index=False, float_format="%.6g")
    answers.to_csv(place / "answers.csv", index=False, float_format="%.6g")
    (place / "tuned.json").write_text(json.dumps(facts | {"recommended": recommended}, indent=1))
    return Tuned(table, answers, recommended, facts)


def _answer(
    work: float, works: pd.Series, values: pd.DataFrame, baselines: list[str], finalists: list[str], held: pd.DataFrame
) -> dict[str, Any] | None:
    """The best candidate and the best mix of baselines at a work, by the half that chooses; their difference, by the
    other. The mix may do as much work as the candidate does."""
    affordable = [spec for spec in finalists if works[spec] <= work + SAME]
    if not affordable:
        return None
    means = values.mean(axis=1)
    candidate = str(means[affordable].idxmax())
    names = [spec for spec in works.index if spec in baselines]
    level = works[names].to_numpy(float)
    shares = mix_at(level, corners(level, means[names].to_numpy(float)), float(works[candidate]))
    if not shares:
        return None
    rival = sum(share * held.loc[names[i]].to_numpy(float) for i, share in shares.items())
    found = bootstrap_interval(held.loc[candidate].to_numpy(float) - rival)
    return {
        "work": work, "candidate": candidate, "candidate_work": float(works[candidate]),
        "rival": " and ".join(f"{100 * share:.0f} % {names[i]}" for i, share in shares.items()),
        "difference": found.estimate, "low": found.low, "high": found.high, "n": held.shape[1],
    }  # fmt: skip

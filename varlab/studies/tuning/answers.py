"""What the half of the prompts that was held out says of what the other half chose."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from varlab.accelerators import DENSE
from varlab.analysis.frontier import corners, mix_at
from varlab.measures.statistics import bootstrap_interval
from varlab.studies.tuning.points import Points, best_at
from varlab.studies.tuning.space import composed
from varlab.sweeps import Sweep

FRONT, ANSWERS = "front.csv", "answers.csv"
COLUMNS = ["method", "kind", "on_front", "n", "work_ratio", "ssim", "ssim_low", "ssim_high", "psnr", "seed", "weights",
           "precision", "device", "threads"]  # fmt: skip
NONE_SO_CHEAP = "no {} does as little work"
NO_CANDIDATE = "no candidate does as little work"


def front_of(table: pd.DataFrame, points: Points, baselines: Sequence[str]) -> pd.DataFrame:
    """The held-out rows, the least work first; ``on_front``: by the half that chose."""
    both, edge = composed(table.method), points.edge(list(points.works.index))
    kinds = ["baseline" if spec in baselines else "composition" if spec in both else "single" for spec in table.method]
    table = table.assign(kind=kinds, on_front=table.method.isin(edge))
    return table.sort_values("work_ratio", kind="stable")[COLUMNS].reset_index(drop=True)


def answers_of(
    held: Sweep, points: Points, baselines: list[str], finalists: list[str], works: Sequence[float]
) -> pd.DataFrame:
    """At each work the best single method and the best composition, by the half that chooses, against the best mix of
    rivals that does as much work as the candidate; their paired difference by the other half."""
    ssim = held.prompts.pivot(index="method", columns="prompt", values="ssim")
    about = held.table[["seed", "weights", "precision", "device"]].iloc[0].to_dict()
    return pd.DataFrame([row | about for work in works for row in _answers(work, ssim, points, baselines, finalists)])


def _answers(
    work: float, held: pd.DataFrame, points: Points, baselines: list[str], finalists: list[str]
) -> Iterator[dict[str, Any]]:
    both = composed(finalists)
    singles = [spec for spec in finalists if spec not in both]
    for kind, group in (("single", singles), ("composition", both)):
        candidate = best_at(points, group, work)
        rivals = {"baselines": baselines} | ({"singles": [DENSE, *singles]} if kind == "composition" else {})
        for against, pool in rivals.items():
            yield {"work": work, "kind": kind, "against": against, **_answer(candidate, against, pool, held, points)}


def _answer(candidate: str | None, against: str, pool: list[str], held: pd.DataFrame, points: Points) -> dict[str, Any]:
    row: dict[str, Any] = {"candidate": candidate, "candidate_work": np.nan, "rival": NO_CANDIDATE}
    row |= dict.fromkeys(("ssim", "rival_ssim", "difference", "low", "high"), np.nan) | {"n": held.shape[1]}
    if candidate is None:
        return row
    level = points.works[pool].to_numpy(float)
    edge = corners(level, points.means[pool].to_numpy(float))
    shares = mix_at(level, edge, float(points.works[candidate]))
    own = held.loc[candidate].to_numpy(float)
    row |= {"candidate_work": float(points.works[candidate]), "ssim": own.mean()}
    if not shares:
        return row | {"rival": NONE_SO_CHEAP.format(against.removesuffix("s"))}
    rival = np.sum([share * held.loc[pool[i]].to_numpy(float) for i, share in shares.items()], axis=0)
    found = bootstrap_interval(own - rival)
    return row | {
        "rival": " and ".join(f"{100 * share:.0f} % {pool[i]}" for i, share in shares.items()),
        "rival_ssim": rival.mean(), "difference": found.estimate, "low": found.low, "high": found.high,
    }  # fmt: skip

"""What has been seen of each spec so far: its work and its fidelity by prompt; which of them go on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from varlab.accelerators import DENSE
from varlab.analysis.frontier import SAME, corners
from varlab.studies.tuning.space import composed


@dataclass(frozen=True)
class Points:
    """``works``: over dense by spec; ``values``: SSIM by spec (row) and prompt (column)."""

    works: pd.Series
    values: pd.DataFrame

    @classmethod
    def of(cls, rows: pd.DataFrame, specs: Sequence[str]) -> "Points":
        """Of the specs that have all prompts."""
        rows = rows[rows.method.isin(specs)]
        flops = rows.groupby("method", sort=False).flops.mean()
        values = rows.pivot(index="method", columns="prompt", values="ssim").loc[flops.index]
        whole = values.notna().all(axis=1)
        return cls(flops[whole] / flops[DENSE], values[whole])

    @property
    def means(self) -> pd.Series:
        return self.values.mean(axis=1)

    def edge(self, specs: Sequence[str]) -> list[str]:
        """The specs among these that no other one and no mix of two reaches, from the least work on."""
        works, means = self.works[list(specs)].to_numpy(float), self.means[list(specs)].to_numpy(float)
        return [specs[i] for i in corners(works, means)]


def better_half(points: Points, left: Sequence[str], works: Sequence[float]) -> list[str]:
    """Half of the single methods and half of the compositions, in their order: those least below the front of all, and
    the best at no more than each work, so that there is a rival of either kind at each."""
    edge = points.edge(list(points.works.index))
    front = np.interp(points.works, points.works[edge], points.means[edge])
    below, both = pd.Series(front, points.works.index) - points.means, composed(left)
    best = set[str]()
    for group in ([spec for spec in left if spec not in both], both):
        best |= set(below[group].nsmallest((len(group) + 1) // 2).index) | _best(points, group, works)
    return [spec for spec in left if spec in best]


def finalists_of(points: Points, left: Sequence[str], works: Sequence[float]) -> list[str]:
    """Candidates on the front of all; of the single methods those on their own front, since compositions are held
    against their mixes; of either kind the best at no more than each work."""
    both = composed(left)
    singles = [spec for spec in left if spec not in both]
    best = {*points.edge(list(points.works.index)), *points.edge([DENSE, *singles])}
    for group in (singles, both):
        best |= _best(points, group, works)
    return [spec for spec in left if spec in best]


def _best(points: Points, specs: Sequence[str], works: Sequence[float]) -> set[str]:
    return {spec for work in works if (spec := best_at(points, specs, work)) is not None}


def best_at(points: Points, specs: Sequence[str], work: float) -> str | None:
    """The spec that keeps most of those that do no more than this work."""
    affordable = [spec for spec in specs if points.works[spec] <= work + SAME]
    return str(points.means[affordable].idxmax()) if affordable else None

"""The frontier of baselines: what leaving out work reaches without an idea of what to leave out.

Stages, guidance and tokens can be left out blindly, alone and together. A method that saves as much work must keep more
than the best of these, not more than those that someone happened to run beside it. Between two of them stands their
mix: some images by one and the rest by the other cost, and keep, what lies between.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from varlab.errors import VarlabError, unknown
from varlab.markup import Shown, count, summary

DENSE = "none"
NO_MEAN = ("psnr",)  # infinite for an image that is left as it was, so that no mix of images has a mean
LOWER_IS_BETTER = ("lpips",)
SAME = 0.005  # of the dense work: what may lie between two that count as equal
WHOLE = 0.99  # of the images: a mix of which this much is one baseline goes by its name
BEST, BEST_MIX = "the best baseline at equal or less work", "the best mix at equal work"
HALVES = "the other half of the prompts"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frontier(Shown):
    """``prompts``: one row a baseline and prompt, in the prompts' order, with its ``flops`` and its fidelity to the
    dense image (which is itself a row: ``none``). ``facts``: where it comes from and where it is kept."""

    prompts: pd.DataFrame
    facts: dict[str, Any]

    def __repr__(self) -> str:
        prompts = count(self.prompts.prompt.nunique(), "prompt")
        return summary(
            f"Frontier of {count(len(self.specs), 'baseline')} on {prompts}: {self.facts.get('model')}",
            work=", ".join(f"{name} {work:.2f}" for name, work in self.works().items()),
            measures=", ".join(self.measures),
        )

    @property
    def specs(self) -> list[str]:
        return list(self.prompts.baseline.unique())

    @property
    def measures(self) -> list[str]:
        return [name for name in self.prompts.columns if name not in ("baseline", "prompt", "flops")]

    def works(self) -> pd.Series:
        """Operations of the transformer over the dense run's, by baseline."""
        flops = self.prompts.groupby("baseline", sort=False).flops.sum()
        return (flops / flops[DENSE]).rename("work_ratio")

    def values(self, measure: str) -> pd.DataFrame:
        """Fidelity by baseline (row) and prompt (column)."""
        if measure not in self.measures:
            raise unknown("measure of the frontier", measure, self.measures)
        return self.prompts.pivot(index="baseline", columns="prompt", values=measure).loc[self.specs]

    def table(self, measure: str = "ssim") -> pd.DataFrame:
        """baseline, work_ratio, the measure's mean, and whether it lies ``on_frontier``; the least work first."""
        values = self.values(measure).to_numpy()
        table = pd.DataFrame({"work_ratio": self.works(), measure: values.mean(1)})
        edge = corners(table.work_ratio.to_numpy(), _rising(measure, values).mean(1))
        table["on_frontier"] = np.isin(np.arange(len(table)), edge)
        return table.sort_values("work_ratio")

    @classmethod
    def read(cls, folder: Path) -> "Frontier | None":
        """That of a comparison that was saved to a folder; None where there is none."""
        if not (folder / "frontier.json").is_file():
            return None
        rows = pd.read_csv(folder / "frontier.csv")
        return cls(rows, json.loads((folder / "frontier.json").read_text("utf-8")))


def corners(works: Floats, means: Floats) -> list[int]:
    """Which points no other point and no mix of two others reaches: less work, or more kept. From the least work on.

    Between two of them the frontier is the straight line of their mixes, so it rises and never bends upwards.
    """
    found: list[int] = []
    for i in np.lexsort((-means, works)):
        if found and means[i] <= means[found[-1]]:
            continue
        while len(found) > 1 and _under(works, means, found[-2], found[-1], i):
            found.pop()
        found.append(int(i))
    return found


def _under(works: Floats, means: Floats, left: int, middle: int, right: int) -> bool:
    """Whether the middle point lies on or under the line between the others."""
    run, whole = works[middle] - works[left], works[right] - works[left]
    return bool((means[middle] - means[left]) * whole <= (means[right] - means[left]) * run)


def mix_at(works: Floats, edge: Sequence[int], work: float) -> dict[int, float]:
    """Shares of the images by corner that together cost ``work``, or less where no more is worth it; {} below all."""
    if work < works[edge[0]]:
        return {}
    upper = next((i for i, corner in enumerate(edge) if works[corner] > work), None)
    if upper is None:
        return {edge[-1]: 1.0}
    left, right = edge[upper - 1], edge[upper]
    share = float((work - works[left]) / (works[right] - works[left]))
    if min(share, 1 - share) <= 1 - WHOLE:
        return {left if share < 0.5 else right: 1.0}
    return {left: 1 - share, right: share}


class Rival(NamedTuple):
    """What a method is held against: ``differences`` [n] are the method's values less this one's, positive where the
    method is better; ``work`` is the rival's, over dense; ``rank`` says what it is the best of."""

    text: str
    rank: str
    work: float
    differences: Floats


def rivals(baselines: pd.DataFrame, works: pd.Series, own: Floats, work: float, measure: str = "ssim") -> list[Rival]:
    """The best single baseline at no more work than the method, and the best mix at its work, where that is another.

    baselines: values by spec (row) and prompt (column), the dense run among them; works: by spec; own [n]: the
    method's. Whoever comes out best on some prompts is flattered by them. So the prompts are split in halves, by
    chance and always alike: each half is judged by what came out best on the other, and all n differences count. The
    best of the other half may differ; then both are named. None where every baseline computes more than the method.
    """
    if measure in NO_MEAN:
        raise VarlabError(f"{measure} has no mean over a mix of images: judge by ssim.")
    values, level = _rising(measure, baselines.to_numpy(float)), works[baselines.index].to_numpy(float)
    mine, order = _rising(measure, np.asarray(own, float)), np.random.default_rng(0).permutation(len(own))
    halves = [half for half in (order[: (len(own) + 1) // 2], order[(len(own) + 1) // 2 :]) if len(half)]
    single: list[dict[int, float]] = []
    mixed: list[dict[int, float]] = []
    for i in range(len(halves)):
        means = values[:, halves[1 - i] if len(halves) > 1 else halves[0]].mean(1)
        cheap = np.flatnonzero((level <= work + SAME) & (baselines.index != DENSE))
        if not len(cheap):
            return []
        single.append({int(cheap[np.argmax(means[cheap])]): 1.0})
        mixed.append(mix_at(level, corners(level, means), work) or single[-1])
    ways = [single] if mixed == single else [single, mixed]
    return [_rival(list(baselines.index), level, values, mine, halves, way) for way in ways]


def _rival(
    specs: list[str], works: Floats, values: Floats, own: Floats, halves: list[Any], way: list[dict[int, float]]
) -> Rival:
    differences = np.full(len(own), np.nan)
    for half, shares in zip(halves, way, strict=True):
        differences[half] = own[half] - sum(share * values[i, half] for i, share in shares.items())
    work = np.mean([sum(share * works[i] for i, share in shares.items()) for shares in way])
    texts = list(dict.fromkeys(_named(specs, shares) for shares in way))
    rank = BEST if all(len(shares) == 1 for shares in way) else BEST_MIX
    if len(texts) == 1:
        return Rival(texts[0], rank, float(work), differences)
    text = " or ".join(texts) if rank == BEST else f"{texts[0]} (one half), {texts[1]} (the other)"
    return Rival(text, f"{rank}, chosen on {HALVES}", float(work), differences)


def _named(specs: list[str], shares: dict[int, float]) -> str:
    """``truncate:last=2``, or ``truncate:last=2 on 73 % of the images, dense on the rest``."""
    names = ["dense" if specs[i] == DENSE else specs[i] for i in shares]
    if len(names) == 1:
        return names[0]
    first = next(iter(shares.values()))
    return f"{names[0]} on {100 * first:.0f} % of the images, {names[1]} on the rest"


def _rising(measure: str, values: Floats) -> Floats:
    return -values if measure in LOWER_IS_BETTER else values

"""Which open reading of SparseVAR fits the model at hand: score distributions against the published operating points.

The papers' latencies say which share of the tokens lies below tau at .4, .5, .6 and .7; for every block and normaliser
the share is measured on dense runs and held against that. The block is further judged by how its scores rank with the
edges of the final image: the poster shows one block on contours and another on the background.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from varlab.accelerators.anchors import resize
from varlab.accelerators.sparsevar import Norm, normalise
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site
from varlab.errors import VarlabError, unknown
from varlab.metrics import edge_energy, spearman
from varlab.models.base import NextScaleModel
from varlab.prompt_sets import prompts
from varlab.runs import at_least, default_batch
from varlab.statistics import bootstrap_interval

Progress = Callable[[int, int], None]
TAUS = (0.4, 0.5, 0.6, 0.7)
PUBLISHED = {"infinity": (0.14, 0.54, 0.78, 0.84), "hart": (0.12, 0.23, 0.55, 0.85)}
"""Share of scores below each tau, inferred from the published latencies (uncertain by about .05)."""


class ScoreKeeper(Probe):
    """Mean squared change of every token in every block, averaged over guidance rows, at the scoring stages."""

    name = "scores"

    def __init__(self, last: int) -> None:
        self.last = last
        self.scores: dict[int, list[Tensor]] = {}

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        stage = site.stage
        if 0 < stage.from_end <= self.last:
            d = (x_out - x_in).float().square().mean(-1)
            d = d.view(2, stage.batch, -1).mean(0) if stage.guided else d
            self.scores.setdefault(stage.index, []).append(d)


@dataclass(frozen=True)
class Calibration:
    """``shares``: one row a normaliser, root and block. ``edges``: one row a block, 95 % intervals over prompts."""

    shares: pd.DataFrame
    edges: pd.DataFrame
    family: str
    n: int

    @property
    def best(self) -> pd.Series:
        """The reading whose shares come closest to the published ones."""
        return self.shares.loc[self.shares.distance.idxmin()]

    def verdict(self) -> str:
        """What the tables say, in words."""
        best, order = self.best, self.edges.sort_values("correlation")
        low, high = order.iloc[0], order.iloc[-1]
        shares = ", ".join(f"{best[f'below {tau}']:.2f}" for tau in TAUS)
        fits = "fits" if best.distance <= 0.05 else "comes closest, but does not fit within .05"
        contrast = "sees edges" if high.low > 0 else "does not see edges beyond doubt"
        other = "follows the background" if low.high < 0 else "does not follow the background beyond doubt"
        root = ", of square roots" if best.root else ""
        return (
            f"{best.norm}{root} at block {best.block:.0f} (from 0) {fits}: shares {shares} below {TAUS}, "
            f"root mean square distance {best.distance:.3f}. Block {high.block:.0f} {contrast} "
            f"(rank correlation {high.correlation:.2f} [{high.low:.2f}, {high.high:.2f}]); block {low.block:.0f} "
            f"{other} ({low.correlation:.2f} [{low.low:.2f}, {low.high:.2f}]). n = {self.n} prompts."
        )


def calibrate(
    model: NextScaleModel,
    prompt_set: str = "scenes",
    n: int = 50,
    last: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Dense runs of ``n`` prompts; scores of all blocks at the ``last`` stages before those that would be pruned."""
    at_least(1, n=n, last=last)
    if model.family not in PUBLISHED:
        raise unknown("family with published operating points", model.family, PUBLISHED)
    if last >= len(model.schedule):
        raise VarlabError(f"last={last} leaves no stage to score of {len(model.schedule)}.")
    texts, batch = list(prompts(prompt_set, n=n)), default_batch(model)
    parts: list[dict[int, Tensor]] = []
    images = []
    for first in range(0, n, batch):
        keeper = ScoreKeeper(last)
        samples = range(first, min(first + batch, n))
        run = Run(model, model.settings, SeededNoise(seed), [keeper])
        images.append(run.generate(texts[samples.start : samples.stop], samples).image)
        parts.append({k: torch.stack(scores, 1) for k, scores in keeper.scores.items()})
        if progress is not None:
            progress(samples.stop, n)
    scores = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}  # [n, blocks, h*w]
    shares = share_table(model, scores, PUBLISHED[model.family])
    return Calibration(shares, edge_table(model, scores, torch.cat(images)), model.family, n)


def share_table(model: NextScaleModel, scores: dict[int, Tensor], published: Sequence[float]) -> pd.DataFrame:
    """Share of normalised scores below each tau over all pruned stages and prompts, by normaliser, root and block."""
    rows = []
    for norm, root in product(get_args(Norm), (False, True)):
        below = []
        for k, d in scores.items():
            grids = model.schedule.grids
            mapped = resize(d, grids[k], grids[k + 1], "bilinear")
            reference = d.mean(-1, keepdim=True)
            if root:
                mapped, reference = mapped.clamp(min=0).sqrt(), reference.sqrt()
            z = normalise(mapped, norm, reference)
            below.append(torch.stack([(z < tau).float().mean((0, 2)) for tau in TAUS], -1))  # [blocks, taus]
        found = torch.stack(below).mean(0).numpy()
        for block, values in enumerate(found):
            distance = float(np.sqrt(np.mean((values - np.array(published)) ** 2)))
            named = {f"below {tau}": float(v) for tau, v in zip(TAUS, values, strict=True)}
            rows.append({"norm": norm, "root": root, "block": block, **named, "distance": distance})
    return pd.DataFrame(rows)


def edge_table(model: NextScaleModel, scores: dict[int, Tensor], images: Tensor) -> pd.DataFrame:
    """Rank correlation of each block's scores with the edges of the image, mean over stages, interval over prompts."""
    stages = []
    for k, d in scores.items():
        edges = edge_energy(images, model.schedule.grids[k]).flatten(1)
        stages.append(spearman(d, edges[:, None]))
    values = torch.stack(stages).nanmean(0).cpu().numpy()  # [n, blocks]
    found = bootstrap_interval(values)
    return pd.DataFrame(
        {"block": range(values.shape[1]), "correlation": found.estimate, "low": found.low, "high": found.high}
    )

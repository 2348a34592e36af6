"""Which open reading of SparseVAR fits the model at hand: score distributions against the published operating points.

The papers' latencies say which share of the tokens lies below tau at .4, .5, .6 and .7; for every block and normaliser
the share is measured on dense runs and held against that. The block is further judged by how its scores rank with the
edges of the final image: the poster shows one block on contours and another on the background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from varlab.accelerators.anchors import resize
from varlab.accelerators.sparsevar import Norm, normalise
from varlab.claims.rules import judged, measured
from varlab.claims.verdict import Number, Outcome, Side, Verdict
from varlab.context import fixed_context
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site
from varlab.errors import VarlabError, unknown
from varlab.measures.metrics import edge_energy, spearman
from varlab.measures.statistics import FEWEST, bootstrap_interval
from varlab.models.base import NextScaleModel
from varlab.runs import Job, Progress, default_batch
from varlab.runs.inputs import at_least, check_counts
from varlab.runs.provenance import provenance
from varlab.scenes.prompt_sets import choose

CLOSE = 0.05  # root mean square distance of shares: how sure the published ones are
TAUS = (0.4, 0.5, 0.6, 0.7)
PUBLISHED = {"infinity": (0.14, 0.54, 0.78, 0.84), "hart": (0.12, 0.23, 0.55, 0.85)}
"""Share of scores below each tau, inferred from the published latencies (uncertain by about .05)."""


class ScoreStore(Probe):
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
    """``shares``: one row a normaliser, root and block. ``edges``: one row a block. Both with 95 % intervals over
    prompts; blocks count from 1, as in logs. ``correlations`` [n, blocks]: those of ``edges`` by prompt.
    ``published``: the shares to compare with;
    ``facts``: the provenance."""

    shares: pd.DataFrame
    edges: pd.DataFrame
    correlations: np.ndarray
    published: tuple[float, ...]
    depth: int
    facts: dict[str, Any]

    @property
    def best(self) -> pd.Series:
        """The reading whose shares come closest to the published ones."""
        return self.shares.loc[self.shares.distance.idxmin()]

    def reading_verdict(self) -> Verdict:
        best = self.best
        root = ", of square roots" if best.root else ""
        shares = ", ".join(_with_bounds(best, f"below {tau}") for tau in TAUS)
        finding = (
            f"The reading {best.norm}{root} at block {best.block:.0f} (option block={best.block - 1:.0f}) comes "
            f"closest: below tau = {', '.join(map(str, TAUS))} lie {shares} of the scores, published are "
            f"{', '.join(map(str, self.published))}; root mean square distance {best.distance:.3f}, "
            f"allowed {CLOSE}. It is the best of {len(self.shares)} readings. n = {self.facts['n']}."
        )
        outcome = Outcome.TOO_FEW
        if self.facts["n"] >= FEWEST:
            outcome = Outcome.HOLDS if best.distance <= CLOSE else Outcome.FAILS
        distance = Number(
            "distance to the published shares",
            float(best.distance),
            np.nan,
            np.nan,
            self.facts["n"],
            reference=CLOSE,
            supports=Side.BELOW,
        )
        claim = "A reading of tau gives the published shares on this model (SparseVAR)"
        return Verdict(claim, outcome, finding, numbers=(distance,))

    def block_verdict(self) -> Verdict:
        """Of the poster's two blocks, 16 and 21 of 32, at the same depth of this model; the extremes only as told."""
        edge, background = max(0, self.depth // 2 - 1), max(0, round(21 / 32 * self.depth) - 1)
        near = measured(f"block {edge + 1}", self.correlations[:, edge])
        far = measured(f"block {background + 1}", self.correlations[:, background])
        gap = measured(f"{near.name} minus {far.name}", self.correlations[:, edge] - self.correlations[:, background])
        order = self.edges.sort_values("correlation")
        low, high = order.iloc[0], order.iloc[-1]
        claim = "The block at half depth sees edges, one at two thirds less so (SparseVAR, poster: 16, 21 of 32)"
        finding = (
            f"Rank correlation with the edges of the final picture: {near.name} {near}, {far.name} {far}, difference "
            f"by prompt {gap}. Highest of {len(order)} blocks: {high.block:.0f} with {high.correlation:.2f}; lowest: "
            f"{low.block:.0f} with {low.correlation:.2f}. n = {self.facts['n']}."
        )
        parts = {judged(near), judged(gap)}
        outcome = Outcome.FAILS if Outcome.FAILS in parts else Outcome.WIDE if len(parts) > 1 else parts.pop()
        return Verdict(claim, outcome, finding, numbers=(near, gap))

    def verdict(self) -> str:
        """Both verdicts in words."""
        found = (self.reading_verdict(), self.block_verdict())
        return " ".join(f"{one.claim}: {one.outcome}. {one.text}" for one in found)


def _with_bounds(row: pd.Series, name: str) -> str:
    low, high = row[f"{name} low"], row[f"{name} high"]
    return f"{row[name]:.2f}" + ("" if np.isnan(low) else f" ({low:.2f} to {high:.2f})")


@fixed_context()
def calibrate(
    model: NextScaleModel,
    prompt_set: str | None = None,
    n: int | None = None,
    last: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Dense runs of ``n`` prompts; scores of all blocks at the ``last`` stages before those that would be pruned.

    ``prompt_set``: as for ``varlab.log``; ``n`` None is 50, or all of a shorter file.
    """
    at_least(1, last=last)
    check_counts(n=n)
    if model.family not in PUBLISHED:
        raise unknown("family with published operating points", model.family, PUBLISHED)
    if last >= len(model.schedule):
        raise VarlabError(f"last={last} leaves no stage to score of {len(model.schedule)}.")
    chosen = choose(prompt_set, n, model, 50)
    job = Job(model, tuple(chosen.texts), model.settings, seed)
    parts: list[dict[int, Tensor]] = []
    images = []
    for samples in job.batches(default_batch(model)):
        stored = ScoreStore(last)
        run = Run(model, model.settings, SeededNoise(seed), [stored])
        images.append(run.generate(job.text(samples), samples).image)
        parts.append({k: torch.stack(scores, 1) for k, scores in stored.scores.items()})
        if progress is not None:
            progress(samples.stop, len(chosen))
    scores = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}  # [n, blocks, h*w]
    published = PUBLISHED[model.family]
    shares = share_table(model, scores, published)
    found = edge_correlations(model, scores, torch.cat(images))
    return Calibration(shares, edge_table(found), found, published, model.depth, provenance(job, chosen.name))


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
            below.append(torch.stack([(z < tau).float().mean(-1) for tau in TAUS], -1))  # [n, blocks, taus]
        found = bootstrap_interval(torch.stack(below).mean(0).cpu().numpy())
        for block, values in enumerate(found.estimate):
            row = {"norm": norm, "root": root, "block": block + 1}
            row["distance"] = float(np.sqrt(np.mean((values - np.array(published)) ** 2)))
            for i, tau in enumerate(TAUS):
                name, part = f"below {tau}", [float(bound[block, i]) for bound in found]
                row |= {name: part[0], f"{name} low": part[1], f"{name} high": part[2]}
            rows.append(row)
    return pd.DataFrame(rows)


def edge_correlations(model: NextScaleModel, scores: dict[int, Tensor], images: Tensor) -> np.ndarray:
    """Rank correlation [n, blocks] of each block's scores with the edges of the image, mean over stages."""
    stages = []
    for k, d in scores.items():
        edges = edge_energy(images, model.schedule.grids[k]).flatten(1)
        stages.append(spearman(d, edges[:, None]))
    found: np.ndarray = torch.stack(stages).nanmean(0).cpu().numpy()
    return found


def edge_table(values: np.ndarray) -> pd.DataFrame:
    """One row a block of correlations [n, blocks], with the interval over prompts."""
    found = bootstrap_interval(values)
    ends = {"correlation": found.estimate, "correlation low": found.low, "correlation high": found.high}
    return pd.DataFrame({"block": range(1, values.shape[1] + 1), **ends})

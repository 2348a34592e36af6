"""SparseVAR: tokens that changed little inside one block at the stage before are left out of the next.

Independent implementation from the poster and the method figure (arXiv 2507.20454); where these are silent, the
readings are options, and ``varlab.studies.calibration`` measures which one fits. With d = mean over channels of
(block output - block input)^2 at stage k-1, resized to stage k and normalised to z, a token of stage k is computed
where z >= tau or where it is an anchor; every other one copies its anchor's prediction.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from varlab.accelerators.anchors import Fill, resize
from varlab.accelerators.pruning import Keep, TokenPruning
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.engine.plan import RUN, Selection, StagePlan, select
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError, unknown
from varlab.schedules import Grid
from varlab.specs import option

Norm = Literal["mean", "computed-mean", "min-max", "max", "sigmoid", "absolute"]
Unscored = Literal["last", "anchor", "zero"]
Resize = Literal["bilinear", "nearest", "area", "bicubic"]
Rows = Literal["mean", "cond", "union"]
Operand = Literal["block", "attention", "cross", "ffn"]
Keys = Literal["absent", "weighted"]


def normalise(d: Tensor, norm: Norm, reference: Tensor) -> Tensor:
    """Scores d [..., n] on the scale of tau. ``reference`` [..., 1]: their mean over the tokens that were computed."""
    if norm == "mean":
        return d / d.mean(-1, keepdim=True)
    if norm == "computed-mean":
        return d / reference
    if norm == "max":
        return d / d.amax(-1, keepdim=True)
    if norm == "min-max":
        low, high = d.amin(-1, keepdim=True), d.amax(-1, keepdim=True)
        return (d - low) / (high - low)
    if norm == "sigmoid":
        return torch.sigmoid((d - d.mean(-1, keepdim=True)) / d.std(-1, keepdim=True))
    return d


@dataclass(frozen=True)
class Readings(Fill):
    """What the sources leave open, the default first in each list of choices.

    ``keys="weighted"`` equals duplicating an anchor's key and value for every token that it fills.
    """

    norm: Norm = option("mean", "score over: mean of the resized map, mean of computed tokens, range, maximum, z-score")
    root: bool = option(False, "whether the square roots of the scores are normalised")
    unscored: Unscored = option("last", "score of a token not computed a stage earlier: its last, its anchor's, zero")
    persistent: bool = option(False, "whether a token once left out stays out")
    resize: Resize = option("bilinear", "interpolation of the score map")
    rows: Rows = option("mean", "guidance rows that are scored: their mean, the conditional one, or either")
    operand: Operand = option("block", "whose change is scored: the whole block's or that of one sublayer")
    keys: Keys = option("absent", "keys of tokens left out are absent, or an anchor's key counts for all it fills")

    @classmethod
    def presets(cls) -> dict[str, "Readings"]:
        return {
            "poster": cls(),
            "only-computed": cls(norm="computed-mean", unscored="zero"),
            "duplicated": cls(keys="weighted"),
            "conditional": cls(rows="cond"),
        }


@dataclass(eq=False)
class SparseVAR(TokenPruning):
    """Prunes the ``last`` final stages (3 of 13 is the paper's P=10) by what one block did a stage earlier.

    No source gives the block for HART; ``varlab calibrate sparsevar`` tells what a model shows.

    Not options, for the engine decides: random numbers are drawn for the full grid and gathered, batches of unequal
    counts are padded and masked, and stages are counted from the end (``last``).

    ``sparsevar-logits`` copies predictions before they are sampled instead of the sampled codes.
    """

    name = "sparsevar"
    waits = True
    keep: Keep | None = option(  # type: ignore[assignment]
        None, "share of tokens in place of tau; one number, or one a pruned stage"
    )
    tau: float | None = option(None, "threshold on the normalised score, 0.6 where keep is not given; more is faster")
    block: int | None = option(None, "scoring block, from 0; none for the middle one, the paper's 16th of 32")
    readings: Readings = Readings()

    def __post_init__(self) -> None:
        if self.keep is not None and self.tau is not None:
            raise VarlabError(
                f"{self.name} takes tau or keep, one of them: keep={self.keep} leaves tau={self.tau} without use."
            )
        super().__post_init__()
        if not 0 <= self.threshold < math.inf:
            raise VarlabError(f"{self.name}: tau is a threshold of at least 0, not {self.tau}.")

    @property
    def threshold(self) -> float:
        return 0.6 if self.tau is None else self.tau

    @property
    def fill(self) -> Fill:  # type: ignore[override]
        return self.readings

    @property
    def shares(self) -> tuple[float, ...]:
        """None where the threshold decides."""
        return (1.0,) * self.last if self.keep is None else super().shares

    def start(self, context: Context) -> None:
        super().start(context)
        model, depth, stages = context.model, context.model.depth, len(context.model.schedule)
        self.scorer = depth // 2 - 1 if self.block is None else self.block
        if self.readings.operand not in ("block", *context.model.sublayers):
            raise unknown(
                f"sublayer of {context.model.name}", self.readings.operand, ("block", *context.model.sublayers)
            )
        if not 0 <= self.scorer < depth:
            raise VarlabError(f"sparsevar: block {self.block} is not one of the {depth} of {model.name}, from 0.")
        if self.last >= stages:
            raise VarlabError(
                f"sparsevar: last={self.last} leaves no stage to score of {stages}; at most {stages - 1}."
            )
        if (
            self.readings.norm in ("min-max", "sigmoid")
            and self.keep is None
            and model.schedule.lengths[-1 - self.last] == 1
        ):
            raise VarlabError(
                f"sparsevar: norm={self.readings.norm} compares the tokens of a stage, and stage "
                f"{stages - self.last} has one: take last={self.last - 1} or norm=mean."
            )
        self.score: Tensor | None = None  # [B, rows, h*w] of the stage scored last
        self.reference: Tensor | None = None  # [B, rows, 1]
        self.grid: Grid = (1, 1)
        self.alive: tuple[Tensor, Grid] | None = None  # [B, h*w] of the last pruned stage
        self.seen: dict[int, Tensor] = {}  # pruned stage -> scores [B, h*w] on the scale of tau, for the report

    def fork(self, samples: Tensor) -> Accelerator:
        twin = super().fork(samples)
        assert isinstance(twin, SparseVAR)
        if self.score is not None and self.reference is not None:
            twin.score, twin.reference = self.score[samples], self.reference[samples]
        if self.alive is not None and len(self.alive[0]) > 1:
            twin.alive = (self.alive[0][samples], self.alive[1])
        twin.seen = {k: z[samples] for k, z in self.seen.items()}
        return twin

    def plan(self, stage: Stage) -> StagePlan:
        selection = super().plan(stage).selection
        if selection is not None and self.readings.keys == "weighted":
            selection = replace(selection, counts=self._counts(stage, selection))
        return replace(self.outline(stage), selection=selection)

    def outline(self, stage: Stage) -> StagePlan:
        idle = self.keep is None and self.threshold == 0
        scores_next = 0 < stage.from_end <= self.last and not idle
        return StagePlan(watch=frozenset({self.scorer})) if scores_next else RUN

    def _counts(self, stage: Stage, selection: Selection) -> Tensor:
        """How many positions take the prediction of each computed one, itself included."""
        mask = selection.mask
        mask = mask if mask.ndim == 2 else mask[None]
        source = self._sources(stage, mask)[0]
        counts = torch.zeros_like(source).scatter_add(-1, source, torch.ones_like(source))
        return counts[0][selection.index] if selection.index.ndim == 1 else counts.gather(-1, selection.index)

    def _map(self, stage: Stage) -> Tensor:
        """The last score map on this stage's grid [B, rows, h*w]."""
        if self.score is None:
            raise VarlabError(
                f"sparsevar: no score for stage {stage.index + 1}: another method skipped those before it."
            )
        return resize(self.score, self.grid, (stage.grid[0], stage.grid[1]), self.readings.resize)

    def scores(self, stage: Stage) -> Tensor:
        d = self._map(stage).amax(1)
        self.seen[stage.index] = d / d.mean(-1, keepdim=True)
        return d

    def _choose(self, stage: Stage, anchors: Tensor | None) -> Selection | None:
        if self.keep is not None:
            return super()._choose(stage, anchors)
        if self.threshold == 0:
            return None
        assert self.reference is not None or self.score is None
        d, reference = self._map(stage), self.reference
        if self.readings.root:
            d, reference = d.clamp(min=0).sqrt(), None if reference is None else reference.sqrt()
        assert reference is not None
        z = normalise(d, self.readings.norm, reference).amax(1)
        blind = (
            f"sparsevar: block {self.scorer} changed all tokens by the same amount before stage {stage.index + 1}, and "
            f"norm={self.readings.norm} makes no score of that to hold against tau. "
            "Take keep=..., another block or norm."
        )
        mask, self.seen[stage.index] = z >= self.threshold, z
        grid = (stage.grid[0], stage.grid[1])
        if self.readings.persistent and self.alive is not None:
            mask &= resize(self.alive[0].float(), self.alive[1], grid, "nearest") > 0.5
        if anchors is None:  # a stage computes at least its highest token
            mask |= (d.amax(1) == d.amax(1).amax(-1, keepdim=True)) & ~mask.any(-1, keepdim=True)
        self.alive = (mask, grid)
        self.context.charge(stage, 8 * d.numel())
        return select(mask, anchors, (~z.isfinite().all(), blind))

    def after_sublayer(self, site: Site, x: Tensor, y: Tensor, selection: Selection | None) -> None:
        if site.sublayer == self.readings.operand:
            self._score(site, y, selection)

    def after_block(self, site: Site, x_in: Tensor, x_out: Tensor, selection: Selection | None) -> None:
        if self.readings.operand == "block":
            self._score(site, x_out.float() - x_in.float(), selection)

    def _score(self, site: Site, change: Tensor, selection: Selection | None) -> None:
        """Keep the mean squares of a change [R, n, C], rows reduced."""
        stage = site.stage
        if site.block != self.scorer or not 0 < stage.from_end <= self.last:
            return
        d = change.float().square().mean(-1)  # [R, n]
        self.context.charge(stage, 3 * change.numel())
        if stage.guided:
            both = torch.stack(d.chunk(2), 1)  # [B, 2, n]
            d = {"mean": both.mean(1, keepdim=True), "cond": both[:, :1], "union": both}[self.readings.rows]
        else:
            d = d[:, None]
        real = None if selection is None or selection.valid is None else selection.valid[:, None]
        if real is None:
            self.reference = d.mean(-1, keepdim=True)
        else:
            self.reference = (d * real).sum(-1, keepdim=True) / real.sum(-1, keepdim=True)
        self.score = d if selection is None else self._on_grid(d, stage, selection)
        self.grid = (stage.grid[0], stage.grid[1])

    def _on_grid(self, d: Tensor, stage: Stage, selection: Selection) -> Tensor:
        """Scores of the computed tokens [B, rows, n] on the whole grid; the others as ``unscored`` says."""
        mask = selection.mask.expand(d.shape[0], -1)
        place = (mask.cumsum(-1) - 1).clamp(min=0)
        if self.readings.unscored == "anchor" and self.alpha is not None:
            place = place.gather(-1, self._sources(stage, mask)[0])
        spread = d.gather(-1, place[:, None].expand(-1, d.shape[1], -1))
        if self.readings.unscored == "anchor" and self.alpha is not None:
            return spread
        others = (
            self._map(stage)
            if self.readings.unscored == "last" and self.score is not None
            else torch.zeros_like(spread)
        )
        return torch.where(mask[:, None], spread, others.expand_as(spread))

    def report(self) -> dict[str, Any]:
        """Also the ``score`` that decided: on the scale of tau, under ``keep`` over its mean."""
        grids = self.context.model.schedule.grids
        scores = {
            f"stage-{k + 1:02d}/score": (("y", "x"), z.unflatten(-1, tuple(grids[k])).cpu().numpy(), "")
            for k, z in self.seen.items()
        }
        return super().report() | scores


class SparseVARLogits(SparseVAR):
    """SparseVAR that copies predictions before they are sampled: a filled position draws from its anchor's logits.

    The read-out works token by token, so copying the hidden state it reads is copying the logits.
    """

    name = "sparsevar-logits"

    def expand(self, stage: Stage, x: Tensor, selection: Selection) -> Tensor:
        return self.spread(stage, x, selection)

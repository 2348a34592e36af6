"""What all methods share that leave tokens out before block 0: a selection from scores, and the fill of the rest."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.anchors import Fill, anchor_cells, anchor_mask, nearest_of
from varlab.accelerators.baselines import check_last, check_most
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.engine.images import Images
from varlab.engine.memory import upload
from varlab.engine.plan import RUN, Selection, StagePlan
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.specs import option

Keep = float | tuple[float, ...]


@dataclass(eq=False)
class TokenPruning(Accelerator):
    """Computes some tokens of the ``last`` final stages; the others take the prediction of the nearest anchor.

    A smaller ``keep`` is faster and coarser. Subclasses say which tokens matter.
    """

    keep: Keep = option(help="share of a stage's tokens, anchors included; one number, or one a pruned stage")
    alpha: int | None = option(4, "side of a cell of tokens that has one anchor; none for no anchors")
    last: int = option(3, "final stages that are pruned")
    fill: ClassVar[Fill] = Fill()

    def __post_init__(self) -> None:
        check_last(self.name, self.last)
        if self.keep is not None and len(self.shares) != self.last:
            raise VarlabError(f"{self.name}: keep lists {len(self.shares)} shares for {self.last} final stages.")
        if any(not 0 < share <= 1 for share in self.shares):
            raise VarlabError(f"{self.name}: keep is a share of the tokens in (0, 1], not {self.keep}.")
        if self.alpha is not None and self.alpha < 1:
            raise VarlabError(f"{self.name}: alpha is a cell's side in tokens, at least 1, or none; not {self.alpha}.")
        self.selections: dict[int, Selection | None] = {}

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the tokens that each pruned stage computes."""
        return self.keep if isinstance(self.keep, tuple) else (self.keep,) * self.last

    def start(self, context: Context) -> None:
        self.context, self.selections, self.batch = context, {}, 0
        model = context.model
        whole = sum(model.prefix(k) > 0 for k in range(len(model.schedule)))  # stages that carry text
        check_most(self.name, self.last, len(model.schedule) - whole, model.name)

    def fork(self, samples: Tensor) -> Accelerator:
        twin = super().fork(samples)
        assert isinstance(twin, TokenPruning)
        twin.selections = {k: None if kept is None else kept.samples(samples) for k, kept in self.selections.items()}
        twin.batch = len(samples)
        return twin

    def scores(self, stage: Stage) -> Tensor:
        """Importance of every token [B or 1, h*w]; only the order counts under ``keep``."""
        raise NotImplementedError

    def plan(self, stage: Stage) -> StagePlan:
        if stage.from_end >= self.last:
            return RUN
        anchors = self._anchors(stage)
        return StagePlan(selection=self._choose(stage, anchors))

    def outline(self, stage: Stage) -> StagePlan:
        return RUN  # which tokens run clashes with no other plan

    def _anchors(self, stage: Stage) -> Tensor | None:
        if self.alpha is None:
            return None
        cells = anchor_cells(tuple(stage.grid), self.alpha, self.fill.anchor, self.fill.partial)
        return upload(anchor_mask(cells), self.context.model.device)

    def _anchor_count(self, stage: Stage) -> int:
        """Counted where the lattice was made, not on the device, which would have to be waited for."""
        if self.alpha is None:
            return 0
        return int(anchor_mask(anchor_cells(tuple(stage.grid), self.alpha, self.fill.anchor, self.fill.partial)).sum())

    def _choose(self, stage: Stage, anchors: Tensor | None) -> Selection | None:
        """The anchors, then the highest scores up to the share. The count is known, so nothing waits for a device."""
        tokens = stage.grid[0] * stage.grid[1]
        share = self.shares[self.last - 1 - stage.from_end]
        count = max(1, round(share * tokens), self._anchor_count(stage))
        if count >= tokens:
            return None
        scores = self.scores(stage)
        if anchors is not None:
            scores = scores.masked_fill(anchors, torch.inf)
        index = scores.topk(count, dim=-1).indices.sort(-1).values
        return Selection(index[0] if len(index) == 1 else index, tokens, anchors=anchors)

    def complete(self, stage: Stage, codes: Tensor, selection: Selection) -> Tensor:
        return self.spread(stage, codes, selection)

    def spread(self, stage: Stage, values: Tensor, selection: Selection) -> Tensor:
        """Values of the computed positions [R, n, d] on the whole grid [R, h*w, d]."""
        mask = selection.mask
        mask = mask if mask.ndim == 2 else mask[None]
        source, filled = self._sources(stage, mask)
        place = (mask.cumsum(-1) - 1).clamp(min=0)  # of a computed position among the computed ones
        index = place.gather(-1, source).expand(stage.batch, -1).repeat(values.shape[0] // stage.batch, 1)
        full = values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
        self.context.charge(stage, full.numel())
        return full if filled is None else full * filled[..., None]

    def _sources(self, stage: Stage, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where each position's prediction comes from [B or 1, h*w]; and which are not left at zero, None for all."""
        grid = (stage.grid[0], stage.grid[1])
        place = torch.arange(mask.shape[-1], device=mask.device).expand_as(mask)
        if self.alpha is None or self.fill.nearest == "kept":
            if self.alpha is None and self.fill.orphans == "zero":
                first = mask.int().argmax(-1, keepdim=True)
                return torch.where(mask, place, first), mask
            return torch.where(mask, place, nearest_of(mask, grid)), None
        cells = upload(anchor_cells(grid, self.alpha, self.fill.anchor, self.fill.partial), mask.device)
        if self.fill.nearest == "euclid":
            cells = nearest_of(anchor_mask(cells), grid)
        return torch.where(mask, place, cells), None

    def end_stage(self, stage: Stage, images: Images) -> None:
        """Note what was computed, whoever else had a say in it."""
        self.selections[stage.index], self.batch = stage.plan.selection, stage.batch

    def report(self) -> dict[str, Any]:
        """``share`` of the tokens computed at each stage, and at the pruned ones which: ``kept`` is 0 or 1."""
        schedule = self.context.model.schedule
        share = np.full((self.batch, len(schedule)), np.nan)
        report: dict[str, Any] = {"share": (("stage",), share, "")}
        for k, selection in self.selections.items():
            mask = torch.ones(1, schedule.lengths[k]) if selection is None else selection.mask.float().cpu()
            maps = mask.expand(self.batch, -1).unflatten(-1, tuple(schedule.grids[k])).numpy()
            share[:, k] = maps.mean((1, 2))
            if k >= len(schedule) - self.last:
                report[f"stage-{k + 1:02d}/kept"] = (("y", "x"), maps, "")
        return report

"""FastVAR: cached token pruning, sub-layer by sub-layer, with restoration from an earlier stage (arXiv 2503.23367).

Before each sub-layer of a pruned stage the tokens farthest from the mean token are kept; the others receive what the
same sub-layer added at the cache stage, resized by area. The token count stays whole between sub-layers, and the
guidance rows choose their own tokens. Follows the released Infinity code, with stages counted from the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator, Compute
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError
from varlab.schedules import Grid
from varlab.specs import option

RELEASED_FINAL = 27  # last pruning block, from 0, of the released code on 32 blocks


def distances(x: Tensor) -> Tensor:
    """Squared distance [R, n] of each token of x [R, n, C] to their mean."""
    return (x - x.mean(1, keepdim=True)).square().sum(-1)


def pivotal(x: Tensor, count: int) -> Tensor:
    """Indices [R, count], ascending, of the tokens of x [R, n, C] that lie farthest from their mean."""
    return distances(x).topk(count, dim=-1).indices.sort(-1).values


@dataclass(eq=False)
class FastVAR(Accelerator):
    """Prunes as many stages as ``ratios`` has entries, then leaves out the ``drop`` final ones.

    The defaults are the paper's for Infinity-2B; most of the published gain is the truncation by ``drop`` (its 100 %).
    Holds one tensor a sub-layer and block of the cache stage, the one before the first pruned stage.
    """

    name = "fastvar"
    whole = True

    ratios: tuple[float, ...] = option((0.4, 0.5), "share of tokens that skip a sub-layer, by stage; more is faster")
    drop: int = option(2, "final stages that never run")
    first: int = option(3, "first block that prunes, from 0")
    final: int | None = option(None, "last block that prunes; none for 27 as released, or the last of fewer blocks")

    def __post_init__(self) -> None:
        self.ratios = tuple(self.ratios)
        if not self.ratios or any(not 0 <= ratio < 1 for ratio in self.ratios):
            raise VarlabError(
                f"{self.name}: ratios are shares of pruned tokens in [0, 1), by stage, not {self.ratios}."
            )
        last = RELEASED_FINAL if self.final is None else self.final
        if self.drop < 0 or self.first < 0 or last < self.first:
            raise VarlabError(
                f"{self.name}: drop={self.drop}, first={self.first}, final={last} must satisfy 0 <= first <= final."
            )
        if self.drop == 0 and any(self.ratios) and type(self) is FastVAR:
            raise VarlabError("fastvar drops the last scales. Without dropping it goes by the name fastvar-all-scales.")

    def start(self, context: Context) -> None:
        self.context, self.idle = context, not any(self.ratios)
        self.cache: dict[tuple[int, str], Tensor] = {}
        self.grid: Grid = (1, 1)
        self.batch = 0
        self.fresh: dict[int, Tensor] = {}  # pruned stage -> how many sub-layers computed a token [R, h*w]
        self.calls: dict[int, int] = {}  # pruned stage -> how many sub-layers pruned
        stages, depth = len(context.model.schedule), context.model.depth
        if len(self.ratios) + self.drop >= stages:
            raise VarlabError(
                f"{self.name}: {len(self.ratios)} pruned and {self.drop} dropped stages leave none of {stages}."
            )
        self.cached = stages - 1 - self.drop - len(self.ratios)
        for name, block in (("first", self.first), ("final", self.final or 0)):
            if block >= depth:
                raise VarlabError(
                    f"{self.name}: {name}={block} is not one of the {depth} blocks, 0 to {depth - 1}, of "
                    f"{context.model.name}."
                )
        self.last = min(RELEASED_FINAL, depth - 1) if self.final is None else self.final

    def fork(self, samples: Tensor) -> Accelerator:
        twin = super().fork(samples)
        assert isinstance(twin, FastVAR)
        for key, value in self.cache.items():
            twin.cache[key] = torch.cat([rows[samples] for rows in value.split(self.batch)])
        for k, count in self.fresh.items():
            twin.fresh[k] = torch.cat([rows[samples] for rows in count.split(self.batch)])
        twin.batch = len(samples)
        return twin

    def _ratio(self, stage: Stage) -> float | None:
        """Of a pruned stage, else None."""
        place = len(self.ratios) - 1 - (stage.from_end - self.drop)
        return self.ratios[place] if 0 <= place < len(self.ratios) else None

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan(action="stop") if stage.from_end < self.drop else RUN

    def outline(self, stage: Stage) -> StagePlan:
        return self.plan(stage)

    def check(self, outline: Sequence[StagePlan]) -> None:
        depth = self.context.model.depth
        ran = [(plan.depth or depth) if plan.action == "run" else 0 for plan in outline]
        for k, ratio in enumerate(self.ratios, start=self.cached + 1):
            pruning = min(ran[k], self.last + 1) if ratio and k < len(ran) else 0  # blocks up to the last that prunes
            if pruning > max(self.first, ran[self.cached]):
                raise self._uncached(k)

    def _uncached(self, k: int) -> VarlabError:
        return VarlabError(
            f"{self.name}: stage {k + 1} restores blocks from stage {self.cached + 1}, where another method leaves "
            "them out. Run as many blocks there as later, or leave one of the two methods out."
        )

    def sublayer(self, site: Site, x: Tensor, compute: Compute) -> Tensor:
        stage, key = site.stage, (site.block, str(site.sublayer))
        if self.idle or not self.first <= site.block <= self.last:
            return compute(x)
        ratio = self._ratio(stage)
        if ratio:
            return self._restored(site, x, ratio, compute)
        y = compute(x)
        if stage.index == self.cached:
            self.cache[key], self.grid, self.batch = y, (stage.grid[0], stage.grid[1]), stage.batch
        return y

    def choose(self, site: Site, x: Tensor, count: int) -> Tensor:
        """Indices [R, count], ascending, of the tokens that a sub-layer computes."""
        return pivotal(x, count)

    def _restored(self, site: Site, x: Tensor, ratio: float, compute: Compute) -> Tensor:
        stage, key = site.stage, (site.block, str(site.sublayer))
        if key not in self.cache:
            raise self._uncached(stage.index)
        tokens = x.shape[1]
        index = self.choose(site, x, tokens - int(ratio * tokens))
        old = self.cache[key][: x.shape[0]]  # conditional rows come first, should the others be gone
        y = F.interpolate(old.mT.unflatten(-1, self.grid), size=(stage.grid[0], stage.grid[1]), mode="area")
        y = y.flatten(2).mT.contiguous()
        fresh = self.fresh.setdefault(stage.index, x.new_zeros(x.shape[:2]))
        fresh.scatter_add_(1, index, fresh.new_ones(1, 1).expand_as(index))
        self.calls[stage.index] = self.calls.get(stage.index, 0) + 1
        self.context.charge(stage, 4 * x.numel() + y.numel())
        return y.scatter(1, index[..., None].expand(-1, -1, y.shape[-1]), compute(x, index))

    def report(self) -> dict[str, Any]:
        """At each pruned stage the share of sub-layers, over both guidance rows, that computed a token.

        kept: of the sub-layers that prune, by token. share_all: mean over tokens and all blocks, most of which may lie
        outside ``first`` to ``final`` and run whole.
        """
        grids, depth = self.context.model.schedule.grids, self.context.model.depth
        pruning = (self.last - self.first + 1) / depth
        report: dict[str, Any] = {}
        for k, count in self.fresh.items():
            share = (count / self.calls[k]).unflatten(0, (-1, self.batch)).mean(0)
            report[f"stage-{k + 1:02d}/kept"] = (("y", "x"), share.unflatten(-1, tuple(grids[k])).cpu().numpy(), "")
            report[f"stage-{k + 1:02d}/share_all"] = ((), (1 - (1 - share.mean(1)) * pruning).cpu().numpy(), "")
        return report


@dataclass(eq=False)
class FastVARAllScales(FastVAR):
    """FastVAR that runs every scale: the pruning alone, without its truncation.

    The released settings drop the last two scales of Infinity; the ratios of these two, 0.5 and 0.75, are HART's.
    """

    name = "fastvar-all-scales"

    ratios: tuple[float, ...] = option(
        (0.4, 0.5, 0.5, 0.75), "share of tokens that skip a sub-layer, by stage; more is faster"
    )
    drop: int = field(default=0, init=False)

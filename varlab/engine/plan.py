"""What may be changed in a stage: small immutable plans that accelerators return and the engine merges."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from varlab.errors import VarlabError
from varlab.markup import Shown

Action = Literal["run", "skip", "stop"]
Rows = Literal["both", "cond"]
_ACTIONS: tuple[Action, ...] = ("run", "skip", "stop")


@dataclass(frozen=True)
class Selection(Shown):
    """The grid positions of a stage that are computed, in raster order.

    ``index`` [n] is shared by all samples; [B, n] differs per sample, padded by repeats where
    ``valid`` [B, n] is False. ``anchors`` [length] marks positions that no merge may drop. ``counts``, of the
    index's shape, says for how many positions each key stands: its attention logits grow by the logarithm, as if
    the key and its value were there so many times. Both guidance rows of a sample share its positions.
    """

    index: Tensor
    length: int
    valid: Tensor | None = None
    anchors: Tensor | None = None
    counts: Tensor | None = None

    def __repr__(self) -> str:
        kept = self.mask.sum(-1).reshape(-1).tolist()
        return f"Selection({' or '.join(map(str, sorted(set(kept))))} of {self.length} tokens)"

    @property
    def mask(self) -> Tensor:
        """Boolean [length] or [B, length]: True where computed."""
        kept = torch.zeros((*self.index.shape[:-1], self.length), dtype=torch.int32, device=self.index.device)
        real = torch.ones_like(self.index) if self.valid is None else self.valid
        return kept.scatter_add(-1, self.index, real.int()) > 0

    def samples(self, rows: Tensor) -> "Selection":
        if self.index.ndim == 1:
            return self
        valid, counts = (None if part is None else part[rows] for part in (self.valid, self.counts))
        return replace(self, index=self.index[rows], valid=valid, counts=counts)


def select(mask: Tensor, anchors: Tensor | None = None, fault: tuple[Tensor, str] | None = None) -> Selection | None:
    """Selection of the True positions of ``mask`` [length] or [B, length]; a full one becomes None.

    fault: a flag on the device, and what VarlabError says where it is set. The device is waited for once.
    """
    if anchors is not None:
        mask = mask | anchors
    rows, length = mask.reshape(-1, mask.shape[-1]), mask.shape[-1]
    counts = rows.sum(-1)
    flag = counts.new_zeros(()) if fault is None else fault[0].to(counts.dtype)
    low, high, wrong = torch.stack([counts.min(), counts.max(), flag]).tolist()
    if fault is not None and wrong:
        raise VarlabError(fault[1])
    if low == 0:
        raise VarlabError("A selection keeps no token of a stage. Keep at least one, or skip the stage.")
    if low == length:
        return None
    # A stable sort of the complement lists the kept positions first, in raster order.
    order = (~rows).int().sort(dim=-1, stable=True).indices[:, :high]
    if len(rows) == 1:
        return Selection(order[0], length, anchors=anchors)
    if low == high:
        return Selection(order, length, anchors=anchors)
    valid = torch.arange(high, device=mask.device) < counts[:, None]
    return Selection(torch.where(valid, order, order[:, :1]), length, valid, anchors)


@dataclass(frozen=True)
class StagePlan(Shown):
    """How one stage runs.

    action: ``skip`` adds no residual and goes on, ``stop`` leaves the loop. depth: blocks that run.
    rows: None leaves them as they are; ``cond`` drops the unconditional row for good (guidance 1);
    ``both`` insists that it is still there. scale: another guidance scale.
    watch: blocks whose output ``after_block`` wants to see.
    """

    action: Action = "run"
    selection: Selection | None = None
    depth: int | None = None
    rows: Rows | None = None
    scale: float | None = None
    watch: frozenset[int] = field(default=frozenset())

    def __repr__(self) -> str:
        """What it changes alone."""
        changes = [f"{f.name}={v!r}" for f in fields(self) if (v := getattr(self, f.name)) not in (None, frozenset())]
        return f"StagePlan({', '.join(changes)})"


RUN = StagePlan()


def _both_selections(a: Selection | None, b: Selection | None) -> Selection | None:
    if a is None or b is None:
        return a or b
    anchors = a.anchors if b.anchors is None else b.anchors if a.anchors is None else a.anchors | b.anchors
    return select(a.mask & b.mask, anchors)


def _stricter(a: StagePlan, b: StagePlan) -> StagePlan:
    if a.scale is not None and b.scale is not None and a.scale != b.scale:
        raise VarlabError(f"Two methods ask for different guidance scales ({a.scale:g} and {b.scale:g}).")
    depths = [plan.depth for plan in (a, b) if plan.depth is not None]
    return StagePlan(
        action=max(a.action, b.action, key=_ACTIONS.index),
        selection=_both_selections(a.selection, b.selection),
        depth=min(depths) if depths else None,
        rows="cond" if "cond" in (a.rows, b.rows) else a.rows or b.rows,
        scale=a.scale if b.scale is None else b.scale,
        watch=a.watch | b.watch,
    )


def merge(plans: Sequence[StagePlan], depth: int) -> StagePlan:
    """The stricter of all plans: stop over skip over run, fewer blocks, fewer tokens (anchors stay), fewer rows."""
    plan = reduce(_stricter, plans, RUN)
    ran = depth if plan.depth is None else plan.depth
    if not 1 <= ran <= depth:
        raise VarlabError(f"A plan asks for {ran} blocks; this model has {depth}.")
    late = sorted(block for block in plan.watch if block >= ran)
    if late and plan.action == "run":
        raise VarlabError(
            f"Block {late[0]} is to be read but only {ran} blocks run. Choose an earlier block or a greater depth."
        )
    return plan if ran < depth else replace(plan, depth=None)


def stays_guided(plan: StagePlan, k: int, guided: bool) -> bool:
    """Whether the unconditional rows are there in stage k, ``guided`` saying whether they are before it."""
    if plan.rows == "both" and not guided:
        raise VarlabError(
            f"Stage {k + 1} asks for both guidance rows, but the unconditional one is gone for these images."
        )
    return guided and plan.rows != "cond"

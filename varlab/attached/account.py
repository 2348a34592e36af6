"""What the blocks were handed at each stage: the work of the ledger, and the group ``attached`` of a log."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.attached.streams import BlockCall
from varlab.engine.context import Context
from varlab.engine.stage import Stage
from varlab.probes.base import pooled
from varlab.probes.log import Group, Log, Variables

GROUP = "attached"


@dataclass
class Handed:
    """Sums over the block calls of a stage. ``masks``: of the calls whose tokens have known places [B, h*w]."""

    tokens: float = 0.0
    rows: int = 0
    blocks: int = 0
    masks: list[Tensor] = field(default_factory=list)


class Work:
    """Counts as our own ledger does; the keys of a block are those of all tokens that it was handed so far."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.keys: dict[int, int] = {}
        self.costs: dict[tuple[int, ...], tuple[int, int]] = {}  # by tokens of the sublayers, keys and text: of one row
        self.stages: dict[int, Handed] = {}

    def count(self, k: int, block: BlockCall, stage: Stage | None) -> bool:
        """One call of a block; ``stage`` None where the places of its tokens are not known. Returns whether its work
        is known."""
        model, (rows, n, _) = self.context.model, block.x.shape
        tokens = [block.tokens.get(name, n) for name in model.sublayers]
        self.keys[block.index] = keys = self.keys.get(block.index, 0) + tokens[0]
        text = _longest(block.given.get("ca_kv"))
        shape = (*tokens, keys, text or 0)
        if shape not in self.costs:
            self.costs[shape] = self._cost(tokens, keys, text or 0)
        linear, attention = self.costs[shape]
        work = self.context.ledger.stages[k]
        work.linear_flops += linear * rows
        work.attention_flops += attention * rows
        handed = self.stages.setdefault(k, Handed())
        handed.tokens += sum(tokens) / len(tokens) - model.prefix(k)
        handed.rows, handed.blocks = rows, handed.blocks + 1
        if stage is not None and stage.plan.selection is not None:
            handed.masks.append(stage.plan.selection.mask.expand(stage.batch, -1))
        return text is not None or "cross" not in model.sublayers

    def _cost(self, tokens: list[int], keys: int, text: int) -> tuple[int, int]:
        """Linear and attention FLOPs of one row of a block call."""
        model, conditioning = self.context.model, SimpleNamespace(text_rows=text)
        costs = [
            model.sublayer_cost(name, n, keys, conditioning) for name, n in zip(model.sublayers, tokens, strict=True)
        ]
        return sum(cost.linear for cost in costs), sum(cost.attention for cost in costs)

    def count_readout(self, k: int, tokens: int, batch: int, rows: int) -> None:
        """Embedding and read-out of a stage, with as many guidance rows as guidance makes use of."""
        cost = self.context.model.stage_cost(k, tokens, batch, batch * rows, self.context.settings)
        self.context.ledger.stages[k].read_out(cost)

    def log(self, samples: tuple[int, ...], seconds: float, unseen: list[str]) -> Log:
        """``share`` of a stage's tokens that its blocks were handed, on average; ``guidance_rows`` and ``blocks`` that
        ran; ``seconds`` of the call over its images, probes included. By stage ``kept``: share of the blocks that
        computed a token, where its place is known.

        NaN where no block of a stage ran.
        """
        schedule, depth, batch = self.context.model.schedule, self.context.model.depth, len(samples)
        share, rows, blocks = (np.full((batch, len(schedule)), np.nan, np.float32) for _ in range(3))
        log: Log = {}
        for k, handed in self.stages.items():
            called = min(handed.blocks, depth)  # in several passes each of them runs more than once
            share[:, k] = handed.tokens / called / schedule.lengths[k]
            rows[:, k], blocks[:, k] = handed.rows / batch, called
            if handed.masks:
                kept = torch.stack([mask.float() for mask in handed.masks]).sum(0) / called
                maps = pooled(kept, schedule.grids[k]).cpu().numpy()
                log[f"{GROUP}/stage-{k + 1:02d}"] = Group(samples, {"kept": (("y", "x"), maps, "1")})
        variables: Variables = {
            "share": (("stage",), share, "1"),
            "guidance_rows": (("stage",), rows, "1"),
            "blocks": (("stage",), blocks, "1"),
            "seconds": ((), np.full(batch, seconds / batch, np.float32), "s/image"),
        }
        facts = {"unseen": unseen, "timing": "one call over its images, probes included"}
        return {GROUP: Group(samples, variables, attrs=facts), **log}


def _longest(text: Any) -> int | None:
    """Rows of the longest text, from what cross-attention is given: (tokens, ..., longest)."""
    last = text[-1] if isinstance(text, tuple | list) and text else None
    if isinstance(last, int):
        return last
    return int(last) if isinstance(last, Tensor) and last.numel() == 1 else None

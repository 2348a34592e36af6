"""What is known of the stage at hand, and its parts put together."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from varlab.engine.plan import Selection
from varlab.engine.stage import Stage


@dataclass
class Stretch:
    """What is known of the stage at hand. ``called``: blocks that have run in it, in this pass."""

    index: int
    base: Stage
    called: set[int] = field(default_factory=set)
    closed: bool = False
    logits: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)  # of each pass [rows, n, V], its places
    labels: list[Tensor] = field(default_factory=list)  # of each pass [B, n]


def same_tokens(selection: Selection | None, index: Tensor | None) -> bool:
    """Whether a stage that is known has these tokens."""
    if selection is None or index is None:
        return selection is None and index is None
    return selection.index.shape == index.shape and torch.equal(selection.index, index)


def whole(parts: Sequence[tuple[Tensor, Tensor | None]], length: int) -> Tensor | None:
    """Values [rows, n, V] of a stage: of one pass as they are, of several on the whole grid."""
    if len(parts) == 1:
        return parts[0][0]
    if not parts or any(index is None for _, index in parts) or sum(p.shape[1] for p, _ in parts) != length:
        return None
    first = parts[0][0]
    out = first.new_empty(first.shape[0], length, first.shape[2])
    for values, index in parts:
        assert index is not None
        rows = index.expand(len(values), -1) if index.ndim == 1 else index.repeat(len(values) // len(index), 1)
        out.scatter_(1, rows[..., None].expand_as(values), values)
    return out

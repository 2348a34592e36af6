"""What happens inside a block of others: its stream, what each sublayer adds to it, and the gate that stands outside.

The released blocks multiply what a sublayer returns by a gate, in place, and add it themselves; a hook sees neither.
Both are computed here once more from what the block was given.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

GATES = {"attention": 0, "ffn": 1}  # place of a sublayer's gate among the six vectors of a modulation


def copied(x: Tensor) -> Tensor:
    """fp32, and nobody else's: what a loop of others hands on it may write over."""
    return x.clone() if x.dtype == torch.float32 else x.float()


class Snapshots:
    """Copies of streams; a block that is handed what the last one returned shares its copy."""

    def __init__(self) -> None:
        self.last: tuple[Tensor, int | None, Tensor] | None = None

    def take(self, x: Tensor) -> Tensor:
        version = None if x.is_inference() else x._version
        if self.last is not None and version is not None and self.last[0] is x and self.last[1] == version:
            return self.last[2]
        self.last = (x, version, copied(x))
        return self.last[2]


def stream_of(out: Any) -> Tensor | None:
    """What a block returns: the stream, which forks may hand back with more beside it."""
    first = out[0] if isinstance(out, tuple | list) and out else out
    return first if isinstance(first, Tensor) and first.ndim == 3 else None


def gate(block: nn.Module, sublayer: str, condition: Any, modulation: Tensor | None) -> Tensor | None:
    """Gate of a sublayer [R, 1, C] fp32; None where it cannot be seen. A tensor of one number where there is none.

    ``condition``: cond_BD as the block was given it; ``modulation``: what its own projection ``ada_lin`` returned.
    """
    place = GATES.get(sublayer)
    if place is None:
        return torch.ones(())
    own = getattr(block, "ada_gss", None)
    if isinstance(own, Tensor):
        six = own.float() + condition.float() if isinstance(condition, Tensor) and condition.ndim == 4 else None
    elif hasattr(block, "ada_lin"):
        six = None if modulation is None else modulation.float().view(len(modulation), 1, 6, -1)
    else:
        return None if hasattr(block, "scale_shift_table") else torch.ones(())
    return None if six is None else six.unbind(2)[place]


class BlockCall:
    """One call of a block, from what enters to what leaves.

    Attributes
    ----------
    x : the stream that enters, a copy [R, n, C]
    running : the stream after the sublayers so far; None once one of them could not be followed
    """

    def __init__(self, block: nn.Module, index: int, x: Tensor, given: Mapping[str, Any], order: list[str]) -> None:
        self.block, self.index, self.x, self.given, self.left = block, index, x, given, list(order)
        self.running: Tensor | None = x
        self.modulation: Tensor | None = None
        self.tokens: dict[str, int] = {}

    def add(self, sublayer: str, raw: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """The stream before a sublayer and what it adds to it, both [R, n, C]; None where that cannot be seen."""
        in_turn = bool(self.left) and self.left.pop(0) == sublayer
        before, self.running = self.running, None
        if before is None or raw is None or raw.shape != before.shape or not in_turn:
            return None
        factor = gate(self.block, sublayer, self.given.get("cond_BD"), self.modulation)
        if factor is None or (factor.ndim and factor.shape[0] != len(raw)):
            return None
        y = raw.float() * factor if factor.ndim else copied(raw)
        self.running = before + y
        return before, y

"""What happens inside a block of others: its stream, what each sublayer adds to it, and the gate that stands outside.

The released blocks multiply what a sublayer returns by a gate, in place, and add it themselves; a hook sees neither.
Both are computed here once more from what the block was given.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from varlab.engine.norms import small

GATES = {"attention": 0, "ffn": 1}  # place of a sublayer's gate among the six vectors of a modulation
ONE = torch.ones(())


def copied(x: Tensor) -> Tensor:
    """fp32, and nobody else's: what a loop of others hands on it may write over."""
    return x.clone() if x.dtype == torch.float32 else x.float()


class Snapshots:
    """Copies of streams; a block that is handed what the last one returned shares its copy."""

    def __init__(self) -> None:
        self.last: tuple[Tensor, int | None, Tensor] | None = None

    def take(self, x: Tensor) -> Tensor:
        version = None if x.is_inference() else x._version
        if self.last is None or self.last[0] is not x or not self._unchanged(x, version):
            self.last = (x, version, copied(x))
        return self.last[2]

    def _unchanged(self, x: Tensor, version: int | None) -> bool:
        """By its version; where it has none its numbers are looked at, unless a device would have to be waited for."""
        assert self.last is not None
        if version is not None:
            return self.last[1] == version
        return x.dtype == torch.float32 and x.device.type == "cpu" and torch.equal(x, self.last[2])


def stream_of(out: Any) -> Tensor | None:
    """What a block returns: the stream, which forks may hand back with more beside it."""
    first = out[0] if isinstance(out, tuple | list) and out else out
    return first if isinstance(first, Tensor) and first.ndim == 3 else None


def gates(block: nn.Module, condition: Any, modulation: Tensor | None) -> dict[str, Tensor | None]:
    """Gates of attention and ffn [R, 1, C] fp32; None where it cannot be seen. A tensor of one number where there is
    none, as of every other sublayer.

    ``condition``: cond_BD as the block was given it; ``modulation``: what its own projection ``ada_lin`` returned.
    """
    own = getattr(block, "ada_gss", None)
    if isinstance(own, Tensor):
        six = own.float() + condition.float() if isinstance(condition, Tensor) and condition.ndim == 4 else None
    elif hasattr(block, "ada_lin"):
        six = None if modulation is None else modulation.float().view(len(modulation), 1, 6, -1)
    else:
        return dict.fromkeys(GATES, None if hasattr(block, "scale_shift_table") else ONE)
    return dict.fromkeys(GATES) if six is None else {name: six[:, :, place] for name, place in GATES.items()}


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
        self.gates: dict[str, Tensor | None] | None = None  # once the first sublayer has run
        self.tokens: dict[str, int] = {}

    def add(self, sublayer: str, raw: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """The stream before a sublayer and what it adds to it, both [R, n, C]; None where that cannot be seen."""
        in_turn = bool(self.left) and self.left.pop(0) == sublayer
        before, self.running = self.running, None
        if before is None or raw is None or raw.shape != before.shape or not in_turn:
            return None
        if self.gates is None:
            self.gates = gates(self.block, self.given.get("cond_BD"), self.modulation)
        factor = self.gates.get(sublayer, ONE)
        if factor is None or (factor.ndim and factor.shape[0] != len(raw)):
            return None
        y = raw.float() * factor if factor.ndim else copied(raw)
        self.running = before + y
        return before, y


class Sums:
    """How far blocks' outputs are from the sum of what their sublayers added: of all small ones, and of a call whose
    streams are all large the first.

    Attributes
    ----------
    errors : relative
    """

    def __init__(self) -> None:
        self.errors: list[Tensor] = []

    def add(self, block: BlockCall, x_out: Tensor) -> None:
        if block.running is not None and not block.left and (small(x_out) or not self.errors):
            self.errors.append(torch.dist(block.running, x_out) / torch.dist(block.x, x_out))

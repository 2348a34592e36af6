"""Keys and values of the stages that ran, per block, preallocated. Blocks and rows may differ in length."""

import torch
from torch import Tensor

from varlab.errors import VarlabError
from varlab.models.base import EqualPrefix


class KVStore:
    """One buffer [R, H, capacity, c] for keys and one for values per block, filled from the left.

    ``append`` returns everything a query of the current stage may see. ``lengths`` count the tokens seen so far; those
    of a stage after which nobody looks back are not kept: a block sees them in a copy beside the others, which costs
    the copying and saves their room. Where samples keep different numbers of tokens, or a key stands
    for several, a bias on the attention logits says so. ``kept``: a type to keep them in, if not their own.
    """

    def __init__(self, blocks: int, capacity: int, kept: torch.dtype | None = None) -> None:
        self.capacity, self.kept = capacity, kept
        self.keys: list[Tensor | None] = [None] * blocks
        self.values: list[Tensor | None] = [None] * blocks
        self.lengths = [0] * blocks
        self.held = [0] * blocks  # tokens of each block that are in its buffers
        self.bias: list[Tensor | None] = [None] * blocks  # [R, capacity] once any key differs from the others
        self.equal_prefix = [EqualPrefix()] * blocks  # none where a block never saw the text

    def append(
        self, block: int, k: Tensor, v: Tensor, bias: Tensor | None, store: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """k, v [R, H, n, c]; bias [R, n] or None for zeros. -> keys, values [R, H, N, c]; bias [R, 1, 1, N] or None.

        ``store=False`` for the last stage, which needs no place in the buffers.
        """
        start, end = self.held[block], self.held[block] + k.shape[2]
        self.lengths[block] += k.shape[2]
        if not store:
            return self._beside(block, k, v, bias)
        if end > self.capacity:
            raise VarlabError(f"The KV store of block {block} holds {self.capacity} tokens and {end} are needed.")
        keys, values = self.keys[block], self.values[block]
        if keys is None or values is None:
            rows, heads, _, width = k.shape
            shape, kept = (rows, heads, self.capacity, width), self.kept or k.dtype
            keys = self.keys[block] = k.new_empty(shape, dtype=kept)
            values = self.values[block] = v.new_empty(shape, dtype=kept)
        keys[:, :, start:end], values[:, :, start:end] = k, v
        self.held[block] = end
        seen = keys[:, :, :end].to(k.dtype), values[:, :, :end].to(v.dtype)
        return *seen, self._note(block, start, end, k, bias)

    def _beside(self, block: int, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """What ``append`` returns, without room for these tokens in the buffers."""
        keys, values, held, noted = self.keys[block], self.values[block], self.held[block], self.bias[block]
        if keys is not None and values is not None:
            k, v = torch.cat([keys[:, :, :held].to(k.dtype), k], 2), torch.cat([values[:, :, :held].to(v.dtype), v], 2)
        if bias is None and noted is None:
            return k, v, None
        before = k.new_zeros(k.shape[0], held) if noted is None else noted[:, :held]
        now = k.new_zeros(k.shape[0], k.shape[2] - held) if bias is None else bias.to(k.dtype)
        return k, v, torch.cat([before, now], 1)[:, None, None]

    def _note(self, block: int, start: int, end: int, k: Tensor, bias: Tensor | None) -> Tensor | None:
        noted = self.bias[block]
        if noted is None:
            if bias is None:
                return None
            noted = self.bias[block] = k.new_zeros(k.shape[0], self.capacity)
        noted[:, start:end] = 0 if bias is None else bias
        return noted[:, None, None, :end]

    def rewind(self, held: list[int]) -> None:
        """Forget what was appended since the blocks held so many tokens each, all of which were kept."""
        self.held, self.lengths = list(held), list(held)

    def clear(self) -> None:
        """Forget all tokens and keep the buffers."""
        self.rewind([0] * len(self.held))
        self.bias = [None] * len(self.bias)
        self.equal_prefix = [EqualPrefix()] * len(self.equal_prefix)

    def release(self) -> None:
        """Give the buffers back, once nobody looks back any more; what was counted stays."""
        for buffers in (self.keys, self.values, self.bias):
            buffers[:] = [None] * len(buffers)

    def skip(self, block: int, count: int) -> None:
        """Count tokens that were written into the buffers from outside, by a replayed graph."""
        self.held[block] += count
        self.lengths[block] += count

    def rows(self, index: Tensor | slice) -> "KVStore":
        """A store with only these rows: a copy, or, of a slice, a view that keeps the memory of all."""
        store = KVStore(len(self.keys), self.capacity, self.kept)
        store.keys = [None if k is None else k[index] for k in self.keys]
        store.values = [None if v is None else v[index] for v in self.values]
        store.bias = [None if b is None else b[index] for b in self.bias]
        store.lengths, store.held, store.equal_prefix = list(self.lengths), list(self.held), list(self.equal_prefix)
        return store

    @property
    def bytes(self) -> int:
        """Bytes in use (not reserved), keys and values, all blocks."""
        total = 0
        for keys, length in zip(self.keys, self.held, strict=True):
            if keys is not None:
                total += 2 * keys.shape[0] * keys.shape[1] * length * keys.shape[3] * keys.element_size()
        return total

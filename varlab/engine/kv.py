"""Keys and values of the stages that ran, per block, preallocated. Blocks and rows may differ in length."""

import torch
from torch import Tensor

from varlab.errors import VarlabError


class KVStore:
    """One buffer [R, H, capacity, c] for keys and one for values per block, filled from the left.

    ``appended`` returns everything a query of the current stage may see. Where samples keep different
    numbers of tokens, the padded ones are masked out.
    """

    def __init__(self, blocks: int, capacity: int) -> None:
        self.capacity = capacity
        self.keys: list[Tensor | None] = [None] * blocks
        self.values: list[Tensor | None] = [None] * blocks
        self.lengths = [0] * blocks
        self.visible: list[Tensor | None] = [None] * blocks  # [R, capacity] bool once any token is padding

    def append(self, block: int, k: Tensor, v: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """k, v [R, H, n, c]; valid [R, n] or None. -> keys, values [R, H, N, c] and mask [R, 1, 1, N] or None."""
        rows, heads, count, width = k.shape
        start, end = self.lengths[block], self.lengths[block] + count
        if end > self.capacity:
            raise VarlabError(f"The KV store of block {block} holds {self.capacity} tokens and {end} are needed.")
        keys, values = self.keys[block], self.values[block]
        if keys is None or values is None:
            keys = self.keys[block] = k.new_empty(rows, heads, self.capacity, width)
            values = self.values[block] = v.new_empty(rows, heads, self.capacity, width)
        keys[:, :, start:end], values[:, :, start:end] = k, v
        self.lengths[block] = end
        mask = self._note_padding(block, start, end, rows, valid)
        return keys[:, :, :end], values[:, :, :end], mask

    def _note_padding(self, block: int, start: int, end: int, rows: int, valid: Tensor | None) -> Tensor | None:
        visible = self.visible[block]
        if visible is None:
            if valid is None:
                return None
            visible = self.visible[block] = torch.ones(rows, self.capacity, dtype=torch.bool, device=valid.device)
        visible[:, start:end] = True if valid is None else valid
        return visible[:, None, None, :end]

    def rows(self, index: Tensor) -> "KVStore":
        """A store with only these rows; the rest is given up."""
        store = KVStore(len(self.keys), self.capacity)
        store.keys = [None if k is None else k[index] for k in self.keys]
        store.values = [None if v is None else v[index] for v in self.values]
        store.visible = [None if m is None else m[index] for m in self.visible]
        store.lengths = list(self.lengths)
        return store

    @property
    def bytes(self) -> int:
        """Bytes in use (not reserved), keys and values, all blocks."""
        total = 0
        for keys, length in zip(self.keys, self.lengths, strict=True):
            if keys is not None:
                total += 2 * keys.shape[0] * keys.shape[1] * length * keys.shape[3] * keys.element_size()
        return total

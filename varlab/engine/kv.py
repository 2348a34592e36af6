"""Keys and values of the stages that ran, per block, preallocated. Blocks and rows may differ in length."""

from torch import Tensor

from varlab.errors import VarlabError


class KVStore:
    """One buffer [R, H, capacity, c] for keys and one for values per block, filled from the left.

    ``append`` returns everything a query of the current stage may see. Where samples keep different numbers of
    tokens, or a key stands for several, a bias on the attention logits says so.
    """

    def __init__(self, blocks: int, capacity: int) -> None:
        self.capacity = capacity
        self.keys: list[Tensor | None] = [None] * blocks
        self.values: list[Tensor | None] = [None] * blocks
        self.lengths = [0] * blocks
        self.bias: list[Tensor | None] = [None] * blocks  # [R, capacity] once any key differs from the others

    def append(self, block: int, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """k, v [R, H, n, c]; bias [R, n] or None for zeros. -> keys, values [R, H, N, c]; bias [R, 1, 1, N] or None."""
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
        return keys[:, :, :end], values[:, :, :end], self._note(block, start, end, k, bias)

    def _note(self, block: int, start: int, end: int, k: Tensor, bias: Tensor | None) -> Tensor | None:
        noted = self.bias[block]
        if noted is None:
            if bias is None:
                return None
            noted = self.bias[block] = k.new_zeros(k.shape[0], self.capacity)
        noted[:, start:end] = 0 if bias is None else bias
        return noted[:, None, None, :end]

    def rows(self, index: Tensor) -> "KVStore":
        """A store with only these rows; the rest is given up."""
        store = KVStore(len(self.keys), self.capacity)
        store.keys = [None if k is None else k[index] for k in self.keys]
        store.values = [None if v is None else v[index] for v in self.values]
        store.bias = [None if b is None else b[index] for b in self.bias]
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

"""Keys and values of the stages that ran, per block, preallocated. Blocks and rows may differ in length."""

import torch
from torch import Tensor

from varlab.errors import VarlabError


class KVStore:
    """One buffer [R, H, capacity, c] for keys and one for values per block, filled from the left.

    ``append`` returns everything a query of the current stage may see. Where samples keep different numbers of
    tokens, or a key stands for several, a bias on the attention logits says so. ``spare``: tokens of a stage whose
    keys no later one reads (``keep`` False): all blocks share one buffer for them.
    """

    def __init__(self, blocks: int, capacity: int, spare: int = 0) -> None:
        self.capacity, self.spare = capacity, spare
        self.keys: list[Tensor | None] = [None] * blocks
        self.values: list[Tensor | None] = [None] * blocks
        self.lengths = [0] * blocks
        self.bias: list[Tensor | None] = [None] * blocks  # [R, capacity] once any key differs from the others
        self.shared: tuple[Tensor, Tensor] | None = None
        self.shared_length = 0

    def append(
        self, block: int, k: Tensor, v: Tensor, bias: Tensor | None, keep: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """k, v [R, H, n, c]; bias [R, n] or None for zeros. -> keys, values [R, H, N, c]; bias [R, 1, 1, N] or None."""
        start, end = self.lengths[block], self.lengths[block] + k.shape[2]
        if end > self.capacity + (0 if keep else self.spare):
            raise VarlabError(f"The KV store of block {block} holds {self.capacity} tokens and {end} are needed.")
        keys, values = self._buffers(block, k, v) if keep else self._copied(block, k, v, start)
        keys[:, :, start:end], values[:, :, start:end] = k, v
        seen = self._note(block, start, end, k, bias, keep)
        if keep:
            self.lengths[block] = end
        else:
            self.shared_length = end
        return keys[:, :, :end], values[:, :, :end], seen

    def _buffers(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.keys[block], self.values[block]
        if keys is None or values is None:
            keys, values = self.keys[block], self.values[block] = self._empty(k, v, self.capacity)
        return keys, values

    @staticmethod
    def _empty(k: Tensor, v: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        rows, heads, _, width = k.shape
        return k.new_empty(rows, heads, tokens, width), v.new_empty(rows, heads, tokens, width)

    def _copied(self, block: int, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The shared buffer, with what the block holds."""
        if self.shared is None:
            self.shared = self._empty(k, v, self.capacity + self.spare)
        for buffer, held in zip(self.shared, (self.keys[block], self.values[block]), strict=True):
            if held is not None:
                buffer[:, :, :start] = held[:, :, :start]
        return self.shared

    def _note(self, block: int, start: int, end: int, k: Tensor, bias: Tensor | None, keep: bool) -> Tensor | None:
        noted = self.bias[block]
        if noted is None:
            if bias is None:
                return None
            noted = k.new_zeros(k.shape[0], self.capacity)
        if not keep:
            own = noted.new_zeros(k.shape[0], end - start) if bias is None else bias.to(noted.dtype)
            return torch.cat([noted[:, :start], own], -1)[:, None, None]
        self.bias[block] = noted
        noted[:, start:end] = 0 if bias is None else bias
        return noted[:, None, None, :end]

    def rows(self, index: Tensor) -> "KVStore":
        """A store with only these rows; the rest is given up."""
        store = KVStore(len(self.keys), self.capacity, self.spare)
        store.keys = [None if k is None else k[index] for k in self.keys]
        store.values = [None if v is None else v[index] for v in self.values]
        store.bias = [None if b is None else b[index] for b in self.bias]
        store.lengths = list(self.lengths)
        return store

    @property
    def bytes(self) -> int:
        """Bytes in use (not reserved), keys and values, all blocks."""
        held = [
            *zip(self.keys, self.lengths, strict=True),
            (self.shared[0] if self.shared else None, self.shared_length),
        ]
        total = 0
        for keys, length in held:
            if keys is not None:
                total += 2 * keys.shape[0] * keys.shape[1] * length * keys.shape[3] * keys.element_size()
        return total

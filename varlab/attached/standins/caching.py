"""Keys and values kept between the stages, as the released attention keeps them."""

import torch
from torch import Tensor


class Caching:
    """For an attention layer: keys and values [rows, heads, tokens, width] grow from call to call while it is on."""

    cached: tuple[Tensor, Tensor] | None = None
    caching = False

    def kv_caching(self, enable: bool) -> None:
        self.caching, self.cached = enable, None

    def grown(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """These after those of the calls before."""
        if not self.caching:
            return k, v
        if self.cached is not None:
            k, v = torch.cat([self.cached[0], k], 2), torch.cat([self.cached[1], v], 2)
        self.cached = k, v
        return k, v

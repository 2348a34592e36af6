"""Labels of a codebook: which may be drawn, how they are drawn or softened, and in how many passes.

Source: the released code of HART (arXiv 2410.10812); the passes follow MaskGIT (arXiv 2202.04200).
"""

import math

import torch
from torch import Tensor

LEAST = 1e-9  # of exponential numbers: below the smallest that fp32 generators draw but for 0


def only_likeliest(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """logits [..., V] with all but the ``top_k`` largest at -inf, then a tail of probability 1 - top_p; 0 keeps all."""
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p > 0:
        ascending, order = logits.sort(dim=-1)
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[..., -1] = False
        logits = logits.masked_fill(tail.scatter(-1, order, tail), -torch.inf)
    return logits


def draw_label(logits: Tensor, uniform: Tensor) -> Tensor:
    """Labels [...] with the probabilities of ``logits`` [..., V], from numbers [..., 1] in [0, 1)."""
    reached = logits.softmax(-1).cumsum(-1)
    total = reached[..., -1:]
    place = torch.minimum(uniform * total, total.nextafter(torch.zeros_like(total)))  # a product may round up to 1
    return torch.searchsorted(reached, place, right=True).squeeze(-1)


def soften(logits: Tensor, ratio: float, exponential: Tensor) -> Tensor:
    """Weights [..., V] of a mixture of codes, sharper the further along (``ratio`` in [0, 1]) the stage is."""
    temperature = max(0.27 * (1 - 0.95 * ratio), 0.005)
    return gumbel_mixture(logits * (1 + ratio), exponential, temperature)


def gumbel_mixture(logits: Tensor, exponential: Tensor, temperature: float) -> Tensor:
    """Softmax of logits with Gumbel noise, which is minus the logarithm of exponential numbers.

    In fp32 about one number in eight million is drawn as 0, whose logarithm would spoil the whole row.
    """
    return ((logits - exponential.clamp(min=LEAST).log()) / temperature).softmax(-1)


def pass_sizes(tokens: int, passes: int) -> list[int]:
    """Tokens of each pass: few at first, more later, by a cosine; passes without any token are left out."""
    sizes, left = [], tokens
    for i in range(1, passes):
        later = max(1, min(left - 1, math.floor(tokens * math.cos(math.pi / 2 * i / passes))))
        sizes.append(left - later)
        left = later
    return [size for size in (*sizes, left) if size]

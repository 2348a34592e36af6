"""Which layers FreqExit supervises at an update, how much each counts, and which samples skip which block."""

from collections.abc import Iterable

import torch
from torch import Tensor

ROTATION = 4  # groups of layers that take turns
MOST_DROPPED = 0.1


def drop_growth(depth: int) -> list[float]:
    """From 0 at the first block to 1 at the last, exponentially."""
    return [2 ** (layer / max(depth - 1, 1)) - 1 for layer in range(depth)]


def drop_rates(depth: int, most: float = MOST_DROPPED) -> list[float]:
    """Probability that a sample skips each block. Constant over training: the paper's time curriculum is not in the
    released code."""
    return [most * growth for growth in drop_growth(depth)]


def executed(step: int, depth: int, batch: int, most: float = MOST_DROPPED) -> Tensor:
    """Samples that run each block [depth, batch], boolean.

    The number of dropped samples is a count of uniform draws, at most batch - 1; which ones, a permutation from the
    same seed. So the mask follows from update, depth and batch alone (CPU generator).
    """
    rows = torch.ones(depth, batch, dtype=torch.bool)
    for layer, rate in enumerate(drop_rates(depth, most)):
        seed = 42 + step + 1000 * layer
        count = int((torch.rand(batch, generator=torch.Generator().manual_seed(seed)) < rate).sum())
        order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
        rows[layer, order[: min(count, batch - 1)]] = False
    return rows


def rotation(step: int, depth: int, groups: int = ROTATION) -> list[int]:
    """The group of layers whose turn it is."""
    size = -(-depth // groups)
    first = step % groups * size
    return list(range(first, min(first + size, depth)))


def supervised(step: int, depth: int, groups: int = ROTATION) -> list[int]:
    """Layers with a loss at this update: the group, and always the last."""
    return sorted({*rotation(step, depth, groups), depth - 1})


def layer_weight(layer: int) -> int:
    """Deeper layers count more; the first counts nothing."""
    return layer * (layer + 1) // 2


def shares(layers: Iterable[int]) -> dict[int, float]:
    """Weights that sum to 1 over the layers."""
    weights = {layer: float(layer_weight(layer)) for layer in layers}
    total = sum(weights.values())
    return {layer: weight / total if total else 1 / len(weights) for layer, weight in weights.items()}

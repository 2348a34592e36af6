"""Where the tokens lie that a fork hands to a block."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from varlab.errors import VarlabError

# (stage, block), both from 0 -> positions [n] or [B, n] on the stage's grid, a boolean mask of it, or None
Places = Callable[[int, int], Any]


def placed(
    places: Places | None, stage: int, block: int, n: int, length: int, batch: int, rows: int, maskgit: Any
) -> Tensor | None:
    """Positions [n] or [B, n] of the tokens of a block call; None where nobody says, or the guidance rows differ.

    ``maskgit``: what HART's last stage says of its pass, a mask of the grid or positions.
    Raises VarlabError for places that are none of the grid's, or not as many as the tokens.
    """
    if places is not None and (told := places(stage, block)) is not None:
        index = _index(told, n, length, rows)
        if index is None or not _fits(index, n, length):
            raise VarlabError(
                f"places({stage}, {block}) is of shape {tuple(torch.as_tensor(told).shape)}; block {block + 1} was "
                f"handed {n} of the {length} tokens of stage {stage + 1}: give their positions from 0, or a mask."
            )
        return _shared(index, batch)
    index = None if maskgit is None else _index(maskgit, n, length, rows)
    return _shared(index, batch) if index is not None and _fits(index, n, length) else None


def _index(told: Any, n: int, length: int, rows: int) -> Tensor | None:
    """Positions [n] or [m, n] from positions or from a mask of as many tokens in each row."""
    values = torch.as_tensor(told)
    while values.ndim > 1 and values.shape[-1] == 1 and n > 1:
        values = values.squeeze(-1)
    if values.ndim > 2:
        values = values.flatten(1)
    if values.ndim not in (1, 2) or (values.ndim == 2 and rows % len(values)):
        return None
    if values.shape[-1] == n and values.dtype != torch.bool and not values.is_floating_point():
        return values.long()
    if values.shape[-1] != length:
        return None
    chosen = values if values.dtype == torch.bool else values > 0
    if not bool((chosen.sum(-1) == n).all()):
        return None
    return chosen.nonzero()[:, -1].view(*chosen.shape[:-1], n)


def _fits(index: Tensor, n: int, length: int) -> bool:
    if index.shape[-1] != n or int(index.min()) < 0 or int(index.max()) >= length:
        return False
    return bool((index.sort(-1).values.diff(dim=-1) > 0).all())


def _shared(index: Tensor, batch: int) -> Tensor | None:
    """[n] or [B, n]; both guidance rows must have the same places, else what they hold cannot be compared."""
    if index.ndim == 1 or len(index) == batch:
        return index
    if len(index) == 1:
        return index[0]
    half, other = index.chunk(2)
    return half if len(index) == 2 * batch and torch.equal(half, other) else None

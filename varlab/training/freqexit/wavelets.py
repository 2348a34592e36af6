"""The one-level orthonormal 2-D Haar transform as a differentiable function, and its inverse.

An odd side is extended by one sample, mirrored without repeating the edge. Values equal PyWavelets' (mode "reflect").
"""

from typing import Literal

import torch
from torch import Tensor

Gradient = Literal["exact", "library"]
ROOT = 2**-0.5


def to_even(x: Tensor, gradient: Gradient = "exact") -> Tensor:
    """Maps [..., h, w] with odd sides extended by one sample; a side of 1 repeats its sample.

    ``library``: no gradient flows through the added samples, as in pytorch_wavelets 1.3.0; wrong for odd sides.
    """
    for axis in (-2, -1):
        side = x.shape[axis]
        if side % 2:
            edge = x.narrow(axis, max(side - 2, 0), 1)
            x = torch.cat([x, edge.detach() if gradient == "library" else edge], axis)
    return x


def split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Low and high half along an axis of even length."""
    first, second = x.unflatten(axis, (-1, 2)).unbind(axis)
    return (first + second) * ROOT, (first - second) * ROOT


def haar(x: Tensor, gradient: Gradient = "exact") -> tuple[Tensor, Tensor]:
    """Maps [..., h, w] -> LL [..., h', w'] and details [..., 3, h', w'], h' = ceil(h / 2).

    Details in the order LH (low along the width, high along the height), HL, HH.
    """
    low, high = split(to_even(x, gradient), -1)  # along the width
    (ll, lh), (hl, hh) = split(low, -2), split(high, -2)
    return ll, torch.stack([lh, hl, hh], -3)


def inverse(ll: Tensor, details: Tensor) -> Tensor:
    """LL [..., h', w'] and details [..., 3, h', w'] -> maps [..., 2 h', 2 w']."""
    lh, hl, hh = details.unbind(-3)
    low, high = _rows(ll, lh), _rows(hl, hh)
    first, second = (low + high) * ROOT, (low - high) * ROOT
    return torch.stack([first, second], -1).flatten(-2)


def _rows(low: Tensor, high: Tensor) -> Tensor:
    """Undo ``split`` along the height."""
    first, second = (low + high) * ROOT, (low - high) * ROOT
    return torch.stack([first, second], -2).flatten(-3, -2)

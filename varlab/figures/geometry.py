"""Boxes (left, bottom, right, top) and straight lines (x, y of both ends): which touch which, all against all."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def grown(boxes: Floats, by: float) -> Floats:
    """Boxes [n, 4] larger by so much on each side."""
    larger: Floats = boxes + by * np.array([-1.0, -1.0, 1.0, 1.0])
    return larger


def overlaps(boxes: Floats, others: Floats) -> Booleans:
    """[n, m]: whether boxes [n, 4] share area with others [m, 4]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: Booleans = np.all(low < high, axis=-1)
    return shared


def crosses(lines: Floats, boxes: Floats) -> Booleans:
    """[n, m]: whether lines [n, 4] pass through boxes [m, 4]."""
    start, run = lines[:, None, :2], (lines[:, 2:] - lines[:, :2])[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # a line along one axis meets no side of the other
        sides = np.stack([(boxes[None, :, :2] - start) / run, (boxes[None, :, 2:] - start) / run])
    still = np.broadcast_to(run == 0, sides.shape[1:])
    within = (start > boxes[None, :, :2]) & (start < boxes[None, :, 2:])
    enters = np.where(still, np.where(within, -np.inf, np.inf), sides.min(0)).max(-1)
    leaves = np.where(still, np.where(within, np.inf, -np.inf), sides.max(0)).min(-1)
    found: Booleans = np.maximum(enters, 0.0) < np.minimum(leaves, 1.0)
    return found


def meets(lines: Floats, others: Floats) -> Booleans:
    """[n, m]: whether lines [n, 4] cross others [m, 4]; two that only touch, or lie on one another, do not."""
    a, b = lines[:, None, :2], lines[:, None, 2:]
    c, d = others[None, :, :2], others[None, :, 2:]
    found: Booleans = (_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)
    return found


def _side(a: Floats, b: Floats, c: Floats) -> Floats:
    """Positive where c lies left of the way from a to b."""
    turn: Floats = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    return turn

"""Compares a soft mask with templates of the shapes, after bringing both to the same area and centroid."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its parts load when they are used

from varlab.scenes.grammar import SHAPES
from varlab.scenes.render import shape_distance

GRID = 32
AREA_SIDE = 16.0
"""Every mask is scaled until its area is that of a square of this side, on a grid of 32."""
ROTATIONS = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
BLURS = (0.5, 1.2, 2.0, 2.8)
"""Sigma of the templates' blur, in grid cells."""
LIMITS = {
    "circle": (0.90, 0.07),
    "square": (0.89, 0.05),
    "triangle": (0.86, 0.08),
    "star": (0.82, 0.05),
    "ring": (0.76, 0.15),
    "cross": (0.83, 0.10),
}
"""Least confidence and margin to name a shape. Blobs look most like circles and squares: ask more there."""
_ROUND = ("circle", "ring")


@dataclass(frozen=True)
class Match:
    """Position of the shape's centre and radius in pixels of the mask; the rest as in Detection."""

    shape: str
    x: float
    y: float
    radius: float
    confidence: float
    margin: float


def match_shape(alpha: np.ndarray) -> Match:
    """The best shape for a soft mask [height, width] in 0..1 that is not empty."""
    area = float(alpha.sum())
    scale = np.sqrt(area) / AREA_SIDE  # pixels a grid cell
    y, x = scipy.ndimage.center_of_mass(alpha)
    steps = (np.arange(GRID) - (GRID - 1) / 2) * scale
    if scale > 1:  # against aliasing
        alpha = scipy.ndimage.gaussian_filter(alpha, 0.4 * np.sqrt(scale**2 - 1))
    rows, columns = np.broadcast_arrays(y + steps[:, None], x + steps[None])
    patch = scipy.ndimage.map_coordinates(alpha, [rows, columns], order=1, mode="constant")
    masks, sizes, owners, areas, offsets = _templates()
    shared = np.minimum(masks, patch.reshape(-1).astype(np.float32)).sum(axis=1)
    overlap = shared / (sizes + patch.sum() - shared)
    best = int(overlap.argmax())
    shape = int(owners[best])
    confidence = float(overlap[best])
    margin = confidence - float(overlap[owners != shape].max())
    radius = float(np.sqrt(area / areas[best]))
    least_confidence, least_margin = LIMITS[SHAPES[shape]]
    known = confidence >= least_confidence and margin >= least_margin
    centre_x, centre_y = x + 0.5 - offsets[best, 0] * radius, y + 0.5 - offsets[best, 1] * radius
    return Match(SHAPES[shape] if known else "unknown", centre_x, centre_y, radius, confidence, margin)


@lru_cache(maxsize=1)
def _templates() -> tuple[np.ndarray, ...]:
    """Masks float32 [n, 1024], their sums, their shapes, areas for radius 1, and centroids (x, y) for radius 1."""
    masks, owners, areas, offsets = [], [], [], []
    for owner, shape in enumerate(SHAPES):
        for rotation in (0.0,) if shape in _ROUND else ROTATIONS:
            area, centroid = _moments(shape, rotation)
            mask = _mask(shape, rotation, area, centroid)
            for blur in BLURS:
                masks.append(scipy.ndimage.gaussian_filter(mask, blur).reshape(-1))
                owners.append(owner)
                areas.append(area)
                offsets.append(centroid)
    stacked = np.array(masks, np.float32)
    return stacked, stacked.sum(axis=1), np.array(owners), np.array(areas), np.array(offsets)


def _rotated(shape: str, rotation: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    return shape_distance(shape, x * cosine + y * sine, y * cosine - x * sine)


def _moments(shape: str, rotation: float) -> tuple[float, tuple[float, float]]:
    """Area and centroid of a shape of radius 1."""
    steps = (np.arange(400) - 199.5) / 150
    x, y = steps[None], steps[:, None]
    inside = _rotated(shape, rotation, x, y) < 0
    area = float(inside.sum()) / 150**2
    return area, (float((inside * x).sum() / inside.sum()), float((inside * y).sum() / inside.sum()))


def _mask(shape: str, rotation: float, area: float, centroid: tuple[float, float]) -> np.ndarray:
    """Soft mask [32, 32] with its centroid in the middle and the common area."""
    radius = AREA_SIDE / np.sqrt(area)  # grid cells
    steps = (np.arange(GRID * 4) - (GRID * 4 - 1) / 2) / 4
    x, y = steps[None] / radius + centroid[0], steps[:, None] / radius + centroid[1]
    fine = _rotated(shape, rotation, x, y) < 0
    return fine.reshape(GRID, 4, GRID, 4).mean(axis=(1, 3))

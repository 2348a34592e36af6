"""Finds shapes by classical vision: it plays the part of GenEval's detector, and learns nothing.

Every image is first brought to 64 pixels a side, so that all thresholds below are in pixels of that size.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when they are used
from PIL import Image

from varlab.errors import VarlabError
from varlab.scenes.backgrounds import SIDE, Standout, standout
from varlab.scenes.grammar import COLORS, SCENE_VERSION
from varlab.scenes.templates import match_shape

MIN_AREA = 24
MIN_SECOND_HUE = 0.2
COLOR_DISTANCE = 0.30
COVERAGE_QUANTILES = (0.08, 0.25, 0.7)
MAX_OBJECTS = 16
_OPENING = np.ones((2, 2), dtype=bool)
_CLOSE = np.ones((3, 3), dtype=bool)
_PALETTE = np.array(list(COLORS.values()))
_NAMES = tuple(COLORS)


@dataclass(frozen=True)
class Detection:
    """One object. Position (of the shape's centre) and radius are fractions of the side.

    `confidence` is the soft IoU (0 to 1) with the best template, `margin` its lead over the best other shape.
    `shape` or `color` is "unknown" where nothing fits well enough.
    """

    shape: str
    color: str
    x: float
    y: float
    radius: float
    confidence: float
    margin: float


def detect(image: np.ndarray, version: str = SCENE_VERSION) -> list[Detection]:
    """Objects of an image uint8 [height, width, 3], the most confident first, at most 16.

    The two versions of the scenes differ in how objects are told from the background, and in nothing else.
    """
    pixels = _normalised(image)
    against = standout(pixels, version)
    found = [_describe(pixels, against, region, others) for region, others in _regions(pixels, against.mask)]
    return sorted(found, key=lambda detection: -detection.confidence)[:MAX_OBJECTS]


def _normalised(image: np.ndarray) -> np.ndarray:
    """float64 [64, 64, 3] in 0..1."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 1:
        raise VarlabError(f"The scorer needs images uint8 [height, width, 3], not {image.dtype} {list(image.shape)}.")
    if image.shape[:2] != (SIDE, SIDE):
        smaller = min(image.shape[:2]) >= SIDE
        method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
        image = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), method))
    return image / 255.0


def _regions(pixels: np.ndarray, mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mask of an object, mask of all other objects), each bool [64, 64]."""
    mask = scipy.ndimage.binary_opening(mask, _OPENING)
    regions = [part for region in _connected(mask, MIN_AREA) for part in _split_hues(pixels, region)]
    union = np.stack(regions).any(axis=0) if regions else mask
    return [(region, union & ~region) for region in regions]


def _connected(mask: np.ndarray, floor: float) -> list[np.ndarray]:
    """Its connected parts of at least so many pixels."""
    labels = scipy.ndimage.label(mask)[0]
    areas = np.bincount(labels.ravel())
    return [labels == i for i in range(1, len(areas)) if areas[i] >= floor]


def _split_hues(pixels: np.ndarray, region: np.ndarray) -> list[np.ndarray]:
    """Parts a region where two palette colours touch; each part must be a compact share of it."""
    hues = np.full(region.shape, -1)
    hues[region] = _nearest_color(pixels[region])[0]
    floor = max(MIN_AREA, MIN_SECOND_HUE * region.sum())
    cores: list[np.ndarray] = []
    for hue, area in zip(*np.unique(hues[region], return_counts=True), strict=True):
        if area >= floor:  # an opening adds no pixel
            cores.extend(_connected(scipy.ndimage.binary_opening(hues == hue, _CLOSE), floor))
    if len({int(np.median(hues[core])) for core in cores}) < 2:
        return [region]
    distances = np.stack([scipy.ndimage.distance_transform_edt(~core) for core in cores])
    owner = distances.argmin(axis=0)
    return [region & (owner == i) for i in range(len(cores))]


def _nearest_color(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest palette colour and the distance to it, for colours [n, 3].

    A palette colour may be dimmed to 0.6 or brightened to 1.1, since shades and blur keep the hue.
    """
    scale = (colors @ _PALETTE.T) / (_PALETTE**2).sum(axis=1)  # [n, 8]
    scaled = np.clip(scale, 0.6, 1.1)[..., None] * _PALETTE
    distance = np.linalg.norm(colors[:, None] - scaled, axis=2)
    best = distance.argmin(axis=1)
    return best, distance[np.arange(len(colors)), best]


def _core(region: np.ndarray) -> np.ndarray:
    """The inner pixels, where there are enough."""
    inner = scipy.ndimage.binary_erosion(region)
    return inner if inner.sum() >= MIN_AREA // 2 else region


def _color(colors: np.ndarray) -> str:
    """Palette name of the median over the brighter half of an object's inner pixels [n, 3]."""
    brightness = colors.sum(axis=1)
    middle = np.median(colors[brightness >= np.median(brightness)], axis=0)
    best, distance = _nearest_color(middle[None])
    return _NAMES[best[0]] if distance[0] < COLOR_DISTANCE else "unknown"


def _describe(pixels: np.ndarray, against: Standout, region: np.ndarray, others: np.ndarray) -> Detection:
    core = _core(region)
    difference, noise = against.difference(core), against.noise
    inside = difference[core]
    around = scipy.ndimage.binary_dilation(region, iterations=2) & ~others
    # Full coverage is where a texture's shade lies, or, in a blurred plain shape, near its peak: try both.
    candidates = []
    for quantile in COVERAGE_QUANTILES:
        full = max(np.quantile(inside, quantile) - noise, noise)
        coverage = np.where(around, np.clip((difference - noise) / full, 0, 1), 0)
        candidates.append(match_shape(coverage if coverage.any() else region.astype(float)))
    match = max(candidates, key=lambda found: (found.shape != "unknown", found.confidence))
    return Detection(
        match.shape,
        _color(pixels[core]),
        match.x / SIDE,
        match.y / SIDE,
        match.radius / SIDE,
        match.confidence,
        match.margin,
    )

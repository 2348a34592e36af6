"""What stands out from the background, flat or textured: the first half of the scorer's vision."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from varlab.scenes.grammar import TEXTURED, require_version

SIDE = 64
CONTRAST = 0.10
"""Largest channel difference from a flat background (of 1) above which a pixel belongs to something."""
NOISE = 0.03
UNLIKELY = 4.0
"""The same for a textured one, in its standard deviations along whatever direction of colour the pixel differs."""
LEAST_DEVIATION = 0.012
_STEPS = np.linspace(-1, 1, SIDE)
_X, _Y = np.meshgrid(_STEPS, _STEPS)
_BASIS = np.stack([np.ones_like(_X), _X, _Y, _X * _Y], axis=-1).reshape(-1, 4)
_DISTANCE = np.maximum(np.abs(_X), np.abs(_Y)).reshape(-1)  # from the centre; 1 at the border


@dataclass(frozen=True)
class Standout:
    """``mask`` [64, 64]: pixels that belong to something. ``difference``: from a mask of an object's inner pixels to
    how far every pixel lies from the background towards that object [64, 64]; up to ``noise`` it means nothing."""

    mask: np.ndarray
    difference: Callable[[np.ndarray], np.ndarray]
    noise: float


def standout(pixels: np.ndarray, version: str) -> Standout:
    """pixels [64, 64, 3] in 0..1 of a picture of that version of the scenes."""
    return _from_texture(pixels) if require_version(version) == TEXTURED else _from_flat(pixels)


def _from_flat(pixels: np.ndarray) -> Standout:
    difference = np.abs(pixels - fit_flat(pixels)).max(axis=2)
    return Standout(difference > CONTRAST, lambda core: difference, NOISE)


def fit_flat(pixels: np.ndarray) -> np.ndarray:
    """The bilinear gradient [64, 64, 3] that explains the border, then all that resembles it.

    Objects that touch the border are dropped as outliers.
    """
    values = pixels.reshape(-1, 3)
    border = _DISTANCE > 1 - 4.5 / SIDE  # two pixels wide
    inlier = border & (np.abs(values - np.median(values[border], axis=0)).max(axis=1) < 0.25)
    for tolerance in (0.15, 0.10, 0.06, 0.06):
        if inlier.sum() < 16:
            inlier = border
        chosen = _BASIS[inlier]
        weights = np.linalg.solve(chosen.T @ chosen + 1e-6 * np.eye(4), chosen.T @ values[inlier])
        fitted = _BASIS @ weights
        near = np.abs(values - fitted).max(axis=1) < tolerance
        inlier = near if tolerance <= 0.06 else near & border
    return fitted.reshape(pixels.shape)


def _from_texture(pixels: np.ndarray) -> Standout:
    """Brightness varies along a textured background and hue hardly does: what counts is the distance in deviations.

    Seen along the direction in which an object differs most for what the background varies (Fisher's discriminant),
    its coverage grows from 0 on the background to 1.
    """
    rest, inverse = fit_textured(pixels)

    def difference(core: np.ndarray) -> np.ndarray:
        middle = np.median(rest[core], axis=0)
        found: np.ndarray = rest @ (inverse @ middle) / np.sqrt(middle @ inverse @ middle)
        return found

    return Standout(_deviations(rest, inverse) > UNLIKELY, difference, 1.0)


def fit_textured(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pixels less a bilinear background [64, 64, 3], the inverse covariance of the background about that [3, 3]).

    Fitted to the border, then to all that resembles it.
    """
    values = pixels.reshape(-1, 3)
    border = _DISTANCE > 1 - 8.5 / SIDE  # four pixels wide
    inlier = border & (np.abs(values - np.median(values[border], axis=0)).max(axis=1) < 0.3)
    for within in (border, True, True, True):
        if inlier.sum() < 32:
            inlier = border
        chosen = _BASIS[inlier]
        ridge = 1e-5 * len(chosen) * np.eye(4)
        rest = values - _BASIS @ np.linalg.solve(chosen.T @ chosen + ridge, chosen.T @ values[inlier])
        inverse = np.linalg.inv(np.cov(rest[inlier].T) + LEAST_DEVIATION**2 * np.eye(3))
        inlier = (_deviations(rest, inverse) < 3.5) & within
    return rest.reshape(pixels.shape), inverse


def _deviations(rest: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sqrt(((rest @ inverse) * rest).sum(axis=-1))
    return found

"""Textured surfaces: grey fields whose power falls with frequency as in natural pictures, drawn from their spectra.

A picture's power falls about as 1 / f^2 (amplitude as 1 / f), the exponent between 1.5 and 2.5 from picture to picture.
Source: Field, Relations between the statistics of natural images and the response properties of cortical cells (1987).
A layer adds a direction and a band of frequencies to that; a surface joins two layers along a winding border.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when they are used

PERIOD = 1.5
"""Fields repeat after so many sides, so that opposite borders of a picture have nothing in common."""
CELLS = 96
"""Frequencies a direction: up to 32 cycles a side, the finest that 64 pixels hold; larger pictures have no finer."""
REACH = 2.5
"""Deviations from the mean that a field approaches and never passes."""
DIRECTIONS = np.array([[1.0, -0.2, -0.8], [0.8, -1.0, 0.2], [-0.3, 1.0, -0.7]], np.float32)
"""What a tint adds to red, green and blue: warm, pink or green one way, the opposite the other."""
_AXIS = np.fft.fftfreq(CELLS, 1 / CELLS).astype(np.float32) / PERIOD  # cycles a side
_FREQUENCY = np.hypot(_AXIS[:, None], _AXIS[None])
_FREQUENCY[0, 0] = np.inf
_LOG = np.log(_FREQUENCY, where=np.isfinite(_FREQUENCY), out=np.full_like(_FREQUENCY, 40.0))
_ANGLE = np.arctan2(_AXIS[:, None], _AXIS[None])


@dataclass(frozen=True)
class Layer:
    """A field: its power falls as frequency ** -exponent.

    ``alignment`` favours frequencies along ``angle`` (radians; 0 is the same in all directions). A share ``band`` of
    the power lies within half an octave of ``centre`` (cycles a side) instead, which looks like a weave or ripples.
    """

    exponent: float
    angle: float
    alignment: float
    band: float
    centre: float


@dataclass(frozen=True)
class Surface:
    """Texture of a picture: its background, and the grain of its objects, which is that of the second layer.

    ``contrast``: standard deviation of the grey field, of 1. ``tint``: the same of what it adds to a colour's
    channels. ``grain``: how much darker objects get where their grain is darkest, of their own brightness.
    ``border``: (angle, offset in sides from the middle, width in sides) of where the second layer takes over;
    None for a background of the first alone.
    """

    seed: int
    layers: tuple[Layer, Layer]
    contrast: float
    tint: float
    direction: int
    grain: float
    border: tuple[float, float, float] | None


def draw_surface(rng: np.random.Generator, contrast: tuple[float, float]) -> Surface:
    """A random surface with a contrast between these two."""
    border = (float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(-0.3, 0.3)), float(rng.uniform(0.01, 0.08)))
    return Surface(
        int(rng.integers(2**62)),
        (_draw_layer(rng), _draw_layer(rng)),
        float(rng.uniform(*contrast)),
        float(rng.uniform(0.0, 0.025)),
        int(rng.integers(len(DIRECTIONS))),
        float(rng.uniform(0.0, 0.35)),
        border if rng.random() < 0.5 else None,
    )


def _draw_layer(rng: np.random.Generator) -> Layer:
    aligned, banded = rng.random(2)
    return Layer(
        float(rng.uniform(1.5, 2.5)),
        float(rng.uniform(0, np.pi)),
        float(rng.uniform(0.5, 2.0)) if aligned < 0.5 else 0.0,
        float(rng.uniform(0.1, 0.4)) if banded < 0.35 else 0.0,
        float(np.exp(rng.uniform(np.log(3), np.log(16)))),
    )


def paint(canvas: np.ndarray, surfaces: Sequence[Surface]) -> np.ndarray:
    """Textures backgrounds float32 [n, size, size, 3] in place.

    Returns the grain [n, size, size]: how much darker an object is at each point, as a share of its brightness.
    """
    size = canvas.shape[1]
    first, tint = _fields([s.layers[0] for s in surfaces], [s.seed for s in surfaces], 0, size)
    second, grain = _fields([s.layers[1] for s in surfaces], [s.seed for s in surfaces], 1, size)
    grey = first + _shares(surfaces, tint) * (second - first)
    contrast, strength = (np.array([getattr(s, k) for s in surfaces], np.float32) for k in ("contrast", "tint"))
    canvas += (contrast[:, None, None] * _bounded(grey))[..., None]
    hues = DIRECTIONS[[s.direction for s in surfaces]] * strength[:, None]
    canvas += _bounded(tint)[..., None] * hues[:, None, None]
    np.clip(canvas, 0.01, None, out=canvas)
    depth = np.array([s.grain for s in surfaces], np.float32)[:, None, None]
    return depth * (0.5 + _bounded(grain) / (2 * REACH))


def _fields(layers: Sequence[Layer], seeds: Sequence[int], stream: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two independent fields float32 [n, size, size] of each layer, of deviation 1: parts of one complex field."""
    noise = np.stack(
        [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream)))).standard_normal(
                (CELLS, CELLS, 2), np.float32
            )
            for seed in seeds
        ]
    ).view(np.complex64)[..., 0]
    spectrum = _resized(noise * np.sqrt(_power(layers)), round(PERIOD * size))
    cells = spectrum.shape[1]
    field = scipy.fft.ifft2(spectrum, axes=(1, 2), overwrite_x=True)[:, :size, :size] * np.float32(cells**2)
    return field.real, field.imag


def _power(layers: Sequence[Layer]) -> np.ndarray:
    """Of the frequencies, float32 [n, CELLS, CELLS], with the sum 1."""
    exponent, angle, alignment, band, centre = np.array(
        [(o.exponent, o.angle, o.alignment, o.band, np.log(o.centre)) for o in layers], np.float32
    ).T[..., None, None]
    fall = np.exp(alignment * np.cos(2 * (_ANGLE - angle)) - exponent * _LOG)
    bump = np.exp(alignment * np.cos(2 * (_ANGLE - angle)) - ((_LOG - centre) / np.float32(0.35)) ** 2)
    sums = [part.sum((1, 2), keepdims=True) for part in (fall, bump)]
    return (1 - band) * fall / sums[0] + band * bump / sums[1]


def _resized(spectrum: np.ndarray, cells: int) -> np.ndarray:
    """The same field on another number of points: frequencies that these cannot hold are left out."""
    if cells == CELLS:
        return spectrum
    kept = min(cells, CELLS) // 2
    place = np.concatenate([np.arange(kept), np.arange(-kept, 0)])
    resized = np.zeros((len(spectrum), cells, cells), np.complex64)
    resized[:, place[:, None], place] = spectrum[:, place[:, None], place]
    return resized


def _bounded(field: np.ndarray) -> np.ndarray:
    return REACH * np.tanh(field / np.float32(REACH))


def _shares(surfaces: Sequence[Surface], winding: np.ndarray) -> np.ndarray:
    """Of the second layer at each point, 0..1 [n, size, size]; ``winding`` bends the borders."""
    size = winding.shape[1]
    step = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    angle, offset, width = np.array([s.border or (0, 9, 1) for s in surfaces], np.float32).T[..., None, None]
    distance = step[None, None] * np.cos(angle) + step[None, :, None] * np.sin(angle) - offset
    return scipy.special.expit((distance + np.float32(0.08) * winding) / width)

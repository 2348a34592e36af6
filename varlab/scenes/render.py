"""Draws scenes with signed distances: antialiased, at any resolution, in batches."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from varlab.errors import VarlabError, unknown
from varlab.scenes.grammar import COLORS, SHAPES, TEXTURES, Scene, SceneObject
from varlab.scenes.surfaces import paint

PERIOD = 0.088
"""Texture period as a fraction of the side: 5.6 pixels at 64."""
SHADE = 0.55
WHITE_SHADE = 0.70
"""The darker tone of a texture relative to the colour; white stays above every background."""
WHITE_ON_TEXTURE = 0.84
"""The same of white where the background is textured, whose brightest spots it stays above."""
WHITE_GRAIN = 0.4
"""Strength of white's grain, relative to that of other colours."""
WINDOW = 1.25
BATCH = 256
CHUNK = 32


def render(scenes: Sequence[Scene], size: int = 64) -> np.ndarray:
    """Images uint8 [n, size, size, 3]. A pixel's value is taken at its centre, edges are one pixel soft."""
    if size < 8:
        raise VarlabError(f"Images need a side of at least 8 pixels, not {size}.")
    images = np.empty((len(scenes), size, size, 3), dtype=np.uint8)
    for start in range(0, len(scenes), BATCH):
        batch = scenes[start : start + BATCH]
        canvas = _backgrounds(batch, size)
        grain = _textured(canvas, batch)
        for (shape, texture, grained), members in _groups(batch).items():
            members.sort(key=lambda member: member[1].radius)
            for chunk in range(0, len(members), CHUNK):
                _draw(canvas, members[chunk : chunk + CHUNK], shape, texture, grain if grained else None)
        np.clip(canvas, 0, 1, out=canvas)
        canvas *= 255
        canvas += 0.5
        images[start : start + len(batch)] = canvas
    return images


def _backgrounds(scenes: Sequence[Scene], size: int) -> np.ndarray:
    """Bilinear blends of the four corner tones, float32 [n, size, size, 3]."""
    corners = np.array([scene.background for scene in scenes], dtype=np.float32).reshape(-1, 2, 2, 3)
    step = (np.arange(size, dtype=np.float32) + 0.5) / size
    blend = np.stack([1 - step, step], axis=1)  # [size, 2]
    columns = np.tensordot(corners, blend, axes=(2, 1))  # [n, 2, 3, size]
    return np.ascontiguousarray(np.einsum("yi,nicx->nyxc", blend, columns, optimize=True))


def _textured(canvas: np.ndarray, scenes: Sequence[Scene]) -> np.ndarray | None:
    """Textures the backgrounds of scenes that have a surface; returns the grain of objects there."""
    found = [(i, scene.surface) for i, scene in enumerate(scenes) if scene.surface is not None]
    if not found:
        return None
    index = [i for i, _ in found]
    grain, part = np.zeros(canvas.shape[:3], np.float32), canvas[index]
    grain[index] = paint(part, [surface for _, surface in found])
    canvas[index] = part
    return grain


def _groups(scenes: Sequence[Scene]) -> dict[tuple[str, str, bool], list[tuple[int, SceneObject]]]:
    """(image index, object) by shape, texture, and whether there is a grain. Objects never overlap, so the order does
    not matter."""
    groups: dict[tuple[str, str, bool], list[tuple[int, SceneObject]]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        for item in scene.objects:
            groups[item.shape, item.texture, scene.surface is not None].append((index, item))
    return groups


def _draw(
    canvas: np.ndarray, members: list[tuple[int, SceneObject]], shape: str, texture: str, grain: np.ndarray | None
) -> None:
    """Blends objects of one shape and texture into the canvas, each inside a window around it."""
    size = canvas.shape[1]
    numbers = np.array([(o.x, o.y, o.radius, o.rotation) for _, o in members], dtype=np.float32)
    x, y, radius, rotation = numbers.T[..., None, None]  # each [b, 1, 1]
    width = min(size, int(np.ceil(2 * WINDOW * float(radius.max()) * size)) + 3)
    offsets = np.arange(width)
    left = np.clip(np.floor(x[:, 0] * size - width / 2).astype(int), 0, size - width)  # [b, 1]
    top = np.clip(np.floor(y[:, 0] * size - width / 2).astype(int), 0, size - width)
    rows, columns = (top + offsets)[:, :, None], (left + offsets)[:, None, :]
    dx = (columns + np.float32(0.5)) / np.float32(size) - x  # [b, 1, w]
    dy = (rows + np.float32(0.5)) / np.float32(size) - y  # [b, w, 1]
    cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    across, down = dx * cosine + dy * sine, dy * cosine - dx * sine  # [b, w, w], fractions of the side
    distance = shape_distance(shape, across / radius, down / radius) * radius
    alpha = np.clip(0.5 - distance * size, 0, 1)[..., None]
    colors = np.array([np.multiply(COLORS[o.color], o.brightness) for _, o in members], dtype=np.float32)
    tone = np.minimum(colors, 1)[:, None, None]  # [b, 1, 1, 3]
    if texture != "plain":
        white = WHITE_SHADE if grain is None else WHITE_ON_TEXTURE
        shades = np.array([white if o.color == "white" else SHADE for _, o in members], np.float32)
        shades = shades[:, None, None]
        tone = tone * (shades + (1 - shades) * _bright(texture, across, down, size))[..., None]
    images = np.array([index for index, _ in members])[:, None, None]
    if grain is not None:
        strength = np.array([WHITE_GRAIN if o.color == "white" else 1 for _, o in members], np.float32)
        tone = tone * (1 - strength[:, None, None] * grain[images, rows, columns])[..., None]
    under = canvas[images, rows, columns]
    # Two objects of one image may share a window's corner: add the changes instead of assigning.
    np.add.at(canvas, (images, rows, columns), alpha * (tone - under))


def shape_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (negative inside) to a shape of radius 1 around the origin, y down."""
    if shape == "circle":
        return np.hypot(x, y) - 0.92
    if shape == "square":
        return _box(x, y, 0.82, 0.82)
    if shape == "triangle":
        return _polygon(x, y, [(0, -0.90), (1.04, 0.90), (-1.04, 0.90)])
    if shape == "star":
        return _star(x, y, 1.16, 0.46)
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.78) - 0.22
    if shape == "cross":
        return np.minimum(_box(x, y, 1.0, 0.32), _box(x, y, 0.32, 1.0))
    raise unknown("shape", shape, SHAPES)


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def _polygon(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Distance to the edge lines of a convex polygon, clockwise (y down); exact but beyond its corners."""
    distances = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = float(np.hypot(bx - ax, by - ay))
        distances.append((x - ax) * ((by - ay) / length) - (y - ay) * ((bx - ax) / length))
    return np.max(np.stack(distances), axis=0)


def _star(x: np.ndarray, y: np.ndarray, outer: float, inner: float) -> np.ndarray:
    """Five points: all folded onto one half point, whose edge runs from the tip to the notch."""
    sector = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + sector, 2 * sector) - sector)
    length = np.hypot(x, y)
    along, beside = length * np.cos(angle), length * np.sin(angle)
    edge_along, edge_beside = inner * np.cos(sector) - outer, inner * np.sin(sector)
    norm = float(np.hypot(edge_along, edge_beside))
    return ((along - outer) * edge_beside - beside * edge_along) / norm


def _bright(texture: str, across: np.ndarray, down: np.ndarray, size: int) -> np.ndarray:
    """1 where the full colour shows, 0 where its shade does; tied to the object's centre and rotation."""
    pixels = np.float32(PERIOD * size)
    u, v = across / np.float32(PERIOD), down / np.float32(PERIOD)
    if texture == "striped":
        return np.clip(0.5 + (np.abs(v - np.round(v)) - 0.23) * pixels, 0, 1)
    if texture == "dotted":
        centre = np.hypot(u - np.round(u), v - np.round(v))
        return np.clip(0.5 + (centre - 0.31) * pixels, 0, 1)
    if texture == "checkered":
        # Cells of 0.62 periods; both signs are soft over one pixel.
        cell = np.float32(0.62)
        sides = [np.clip(2 * (np.abs(np.mod(w / cell + 0.5, 2) - 1) - 0.5) * cell * pixels, -1, 1) for w in (u, v)]
        return 0.5 + 0.5 * sides[0] * sides[1]
    raise unknown("texture", texture, TEXTURES)

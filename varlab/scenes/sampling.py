"""Random scenes: scene number i of a seed is the same however many scenes are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from varlab.errors import VarlabError, unknown
from varlab.scenes.grammar import (
    BACKGROUNDS,
    CATEGORIES,
    COLORS,
    SCENE_VERSION,
    SHAPES,
    TEXTURED,
    TEXTURES,
    Scene,
    SceneObject,
    require_version,
)
from varlab.scenes.surfaces import draw_surface

Range = tuple[float, float]


@dataclass(frozen=True)
class World:
    """What is drawn in a version of the scenes. Radii by the number of objects, as fractions of the side.

    ``tones``: brightness of backgrounds by their name; ``contrast``: of their textures, None for flat ones.
    """

    textures: tuple[float, ...]
    tones: Mapping[str, Range]
    radii: Mapping[int, Range]
    counting_radii: Mapping[int, Range]
    contrast: Mapping[str, Range] | None = None


WORLDS = {
    SCENE_VERSION: World(
        textures=(0.55, 0.15, 0.15, 0.15),
        tones={"dark": (0.06, 0.22), "light": (0.36, 0.48)},
        radii={1: (0.20, 0.30), 2: (0.15, 0.22)},
        counting_radii={2: (0.13, 0.17), 3: (0.13, 0.17), 4: (0.12, 0.16)},
    ),
    TEXTURED: World(
        textures=(0.4, 0.2, 0.2, 0.2),
        tones={"dark": (0.07, 0.17), "light": (0.28, 0.38)},
        radii={1: (0.11, 0.30), 2: (0.11, 0.22)},
        counting_radii={2: (0.12, 0.17), 3: (0.12, 0.17), 4: (0.12, 0.16)},
        contrast={"dark": (0.02, 0.06), "light": (0.04, 0.10)},
    ),
}
TINT = 0.03
ROTATION = 8.0
BRIGHTNESS = 0.05
FRAME_GAP = 0.02
OBJECT_GAP = 0.05
CANDIDATES = 48

REACH = {"circle": 0.92, "square": 0.93, "triangle": 1.12, "star": 1.16, "ring": 1.0, "cross": 1.05}
"""Half side of the box around a shape of radius 1 at any allowed rotation."""


def sample_scenes(
    n: int, seed: int, categories: Mapping[str, float] | None = None, first: int = 0, version: str = SCENE_VERSION
) -> list[Scene]:
    """Scenes `first` to `first + n - 1` of a seed; `version` "1" has flat backgrounds, "2" textured ones.

    `categories` gives weights by category name (default: all six equally). Each scene has its own generator,
    seeded with (seed, index), so that batches and workers do not matter.
    """
    if n < 0 or seed < 0 or first < 0:
        raise VarlabError(f"n, seed and first must not be negative: n={n}, seed={seed}, first={first}.")
    names, edges = _weights(categories)
    world = WORLDS[require_version(version)]
    return [_sample_scene(scene_generator(seed, first + i), names, edges, world) for i in range(n)]


def scene_generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """The generator of one scene; stream 0 draws the scene, stream 1 its caption."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index, stream))))


def _weights(categories: Mapping[str, float] | None) -> tuple[list[str], np.ndarray]:
    """Category names and their cumulative shares."""
    shares = dict.fromkeys(CATEGORIES, 1.0) if categories is None else dict(categories)
    for name in shares:
        if name not in CATEGORIES:
            raise unknown("scene category", name, CATEGORIES)
    weights = np.array(list(shares.values()), dtype=float)
    if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise VarlabError(f"Category weights must be finite, not negative and not all zero: {shares}.")
    return list(shares), np.cumsum(weights / weights.sum())


def _sample_scene(rng: np.random.Generator, names: list[str], edges: np.ndarray, world: World) -> Scene:
    category = names[min(int(np.searchsorted(edges, rng.random(), side="right")), len(names) - 1)]
    background_name = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    background = _background(world.tones[background_name], rng)
    count = {"single_object": 1, "colors": 1, "counting": 0}.get(category, 2) or int(rng.integers(2, 5))
    kinds = _kinds(category, count, world, rng)
    places = None
    while places is None:
        places = _places(category, [shape for shape, _, _ in kinds], world, rng)
    objects = tuple(
        SceneObject(*kind, *place, rng.uniform(-ROTATION, ROTATION), 1 - BRIGHTNESS * rng.uniform(-1, 1))
        for kind, place in zip(kinds, places, strict=True)
    )
    surface = draw_surface(rng, world.contrast[background_name]) if world.contrast else None
    return Scene(category, objects, background, background_name, surface)


def _background(tones: Range, rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    corners = rng.uniform(*tones, (4, 1)) + rng.uniform(-TINT, TINT, (4, 3))
    return tuple((float(r), float(g), float(b)) for r, g, b in corners)


def _kinds(category: str, count: int, world: World, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """(shape, colour, texture) of each object: alike when counting, else of different shape.

    Only color_attr forbids equal colours.
    """
    textures = rng.choice(TEXTURES, size=count, p=world.textures)
    colors = rng.choice(list(COLORS), size=count, replace=category != "color_attr")
    if category == "counting":
        shape = str(rng.choice(SHAPES))
        return [(shape, str(colors[0]), str(textures[0]))] * count
    shapes = rng.choice(SHAPES, size=count, replace=False)
    return [(str(s), str(c), str(t)) for s, c, t in zip(shapes, colors, textures, strict=True)]


def _places(
    category: str, shapes: list[str], world: World, rng: np.random.Generator
) -> list[tuple[float, float, float]] | None:
    """(x, y, radius) of each object, inside the frame, with a gap between the boxes; None when stuck."""
    count = len(shapes)
    counting = category == "counting"
    low, high = (world.counting_radii if counting else world.radii)[count]
    base = rng.uniform(low, high)
    placed: list[tuple[float, float, float]] = []
    reaches: list[float] = []
    for shape in shapes:
        radius = min(max(base * rng.uniform(0.92, 1.08), low), high) if counting else rng.uniform(low, high)
        reach = radius * REACH[shape]
        margin = reach + FRAME_GAP
        spots = rng.uniform(margin, 1 - margin, (CANDIDATES, 2))
        valid = np.ones(CANDIDATES, dtype=bool)
        for (x, y, _), other in zip(placed, reaches, strict=True):
            distance = np.abs(spots - (x, y))
            valid &= distance.max(axis=1) >= reach + other + OBJECT_GAP
            if category == "position":
                valid &= distance.max(axis=1) >= 2 * distance.min(axis=1)
        if not valid.any():
            return None
        x, y = spots[int(np.argmax(valid))]
        placed.append((float(x), float(y), float(radius)))
        reaches.append(reach)
    return placed

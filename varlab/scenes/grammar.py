"""What a scene is, and the closed language that describes it.

A prompt is one or more objects joined by "and" or a relation, with an optional background:
"a red star above a blue ring on a dark background", "three striped green circles", "a ring and a square".
"""

import re
from dataclasses import dataclass

import numpy as np

from varlab.errors import VarlabError, require_words, unknown
from varlab.scenes.surfaces import Surface

SCENE_VERSION = "1"
"""Stored with checkpoints; changes whenever the distribution of scenes, captions or pixels changes."""
TEXTURED = "2"
"""The world of textured pictures; its captions and words are those of version 1."""
SCENE_VERSIONS = (SCENE_VERSION, TEXTURED)

CATEGORIES = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.12, 0.12),
    "orange": (1.00, 0.55, 0.08),
    "yellow": (0.98, 0.90, 0.15),
    "green": (0.15, 0.75, 0.22),
    "cyan": (0.15, 0.85, 0.90),
    "blue": (0.12, 0.30, 0.95),
    "purple": (0.70, 0.20, 0.85),
    "white": (0.97, 0.97, 0.97),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")
BACKGROUNDS = ("dark", "light")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {"a", "an", "and", "on", "of", "left", "right", "above", "below", "background"}
        | {*SHAPES, *PLURALS.values(), *COLORS, *TEXTURES[1:], *BACKGROUNDS, *NUMBERS.values()}
    )
)


@dataclass(frozen=True)
class SceneObject:
    """One shape. x (to the right), y (down) and radius are fractions of the side; rotation is in degrees.

    `brightness` multiplies the palette colour. Raises VarlabError for unknown names.
    """

    shape: str
    color: str
    texture: str
    x: float
    y: float
    radius: float
    rotation: float = 0.0
    brightness: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise unknown("shape", self.shape, SHAPES)
        if self.color not in COLORS:
            raise unknown("color", self.color, COLORS)
        if self.texture not in TEXTURES:
            raise unknown("texture", self.texture, TEXTURES)


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn; `background` holds the RGB of the corners in reading order.

    `surface`: the texture of a picture of version 2, None in version 1.
    """

    category: str
    objects: tuple[SceneObject, ...]
    background: tuple[tuple[float, float, float], ...]
    background_name: str
    surface: Surface | None = None


def require_version(version: str) -> str:
    """The version of scenes, where there is one; else VarlabError names those there are."""
    if version not in SCENE_VERSIONS:
        raise unknown("version of the scenes", version, SCENE_VERSIONS)
    return version


def tokenize(prompt: str) -> list[str]:
    """Lower-case words of a prompt, without punctuation. Raises for an empty prompt or unknown words."""
    words = re.findall(r"[^\s.,;:!?\"'()]+", prompt.lower())
    if not words:
        raise VarlabError("The prompt is empty. Write for example 'a red star above a blue ring'.")
    require_words(words, VOCABULARY, prompt, "The scorer of scenes")
    return words


def relation_between(first: SceneObject, second: SceneObject) -> str:
    """Where the first object lies as seen from the second, along the larger of the two distances."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def noun_phrase(shape: str, count: int = 1, adjectives: tuple[str, ...] = ()) -> str:
    """ "an orange star", "three striped rings"."""
    words = [*adjectives, shape if count == 1 else PLURALS[shape]]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article if count == 1 else NUMBERS[count], *words])


def benchmark_prompt(scene: Scene) -> str:
    """The GenEval-style prompt of the scene's category: only what that category asks for."""
    first, last = scene.objects[0], scene.objects[-1]
    if scene.category == "single_object":
        return noun_phrase(first.shape)
    if scene.category == "colors":
        return noun_phrase(first.shape, 1, (first.color,))
    if scene.category == "counting":
        return noun_phrase(first.shape, len(scene.objects))
    if scene.category == "color_attr":
        phrases = [noun_phrase(o.shape, 1, (o.color,)) for o in (first, last)]
        return " and ".join(phrases)
    joiner = relation_between(first, last) if scene.category == "position" else "and"
    return f"{noun_phrase(first.shape)} {joiner} {noun_phrase(last.shape)}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A training caption: every second one names all attributes, the others leave some out at random.

    Two different objects come in either order; half of the time their relation is named, else "and".
    """
    full = bool(rng.random() < 0.5)
    named_color, named_texture = full or rng.random() < 0.5, full or rng.random() < 0.5
    if scene.category in ("colors", "color_attr"):
        named_color = True
    objects = list(scene.objects)
    if scene.category == "counting":
        adjectives = _adjectives(objects[0], named_color, named_texture, rng)
        text = noun_phrase(objects[0].shape, len(objects), adjectives)
    else:
        if rng.random() < 0.5:
            objects.reverse()
        phrases = [noun_phrase(o.shape, 1, _adjectives(o, named_color, named_texture, rng)) for o in objects]
        related = rng.random() < 0.5 and len(objects) == 2
        joiner = relation_between(objects[0], objects[1]) if related else "and"
        text = f" {joiner} ".join(phrases)
    if full or rng.random() < 0.25:
        text += f" on a {scene.background_name} background"
    return text


def shortened(text: str, colors: bool) -> str:
    """A caption without textures and background, and without colours too unless ``colors``: as true of its scene."""
    kept = [word for word in text.split(" on a ")[0].split() if word not in TEXTURES and (colors or word not in COLORS)]
    return " ".join(
        ("an" if after[0] in "aeiou" else "a") if word in ("a", "an") else word
        for word, after in zip(kept, [*kept[1:], ""], strict=True)
    )


def _adjectives(item: SceneObject, named_color: bool, named_texture: bool, rng: np.random.Generator) -> tuple[str, ...]:
    """Colour and texture in either order, as far as they are named; a plain texture never is."""
    words = [item.color] if named_color else []
    if named_texture and item.texture != "plain":
        words.append(item.texture)
    if rng.random() < 0.5:
        words.reverse()
    return tuple(words)

"""Version 2 of the scenes: textures with a natural spectrum, the words of version 1, and as sure a scorer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.test_scenes import assert_found
from varlab.errors import VarlabError
from varlab.measures.spectra import power_exponent
from varlab.scenes import (
    CATEGORIES,
    COLORS,
    SCENE_VERSION,
    TEXTURED,
    SceneObject,
    benchmark_prompt,
    caption,
    detect,
    judge,
    make_dataset,
    render,
    sample_scenes,
    score_images,
    tokenize,
)
from varlab.scenes.sampling import WORLDS

CAPTION_OF_VERSION_1 = "a blue dotted triangle and a green circle"
PLACES_OF_VERSION_1 = [("cross", "purple", 0.613881, 0.735214), ("triangle", "white", 0.66302, 0.265173)]
PIXELS_OF_VERSION_1 = [[93, 92, 90, 89], [86, 86, 88, 726], [79, 83, 86, 89], [72, 78, 455, 250]]


def textured(n: int, seed: int, categories=None, first: int = 0):
    return sample_scenes(n, seed, categories, first, TEXTURED)


def exponents(images: np.ndarray) -> np.ndarray:
    return power_exponent(torch.from_numpy(images).float().mean(-1) / 255).numpy()


def test_version_1_is_what_it_was():
    """Numbers and pictures as they were before there was a version 2."""
    scenes = sample_scenes(3, 5)
    assert caption(scenes[1], np.random.default_rng(0)) == CAPTION_OF_VERSION_1
    places = [(o.shape, o.color, round(o.x, 6), round(o.y, 6)) for o in scenes[0].objects]
    assert places == PLACES_OF_VERSION_1
    assert all(s.surface is None for s in scenes)
    image = render(scenes)[0].astype(int)
    assert np.abs(image[::16, ::16].sum(-1) - np.array(PIXELS_OF_VERSION_1)).max() <= 1
    assert sample_scenes(3, 5, version="1") == scenes
    assert np.array_equal(render([textured(1, 5)[0], *scenes])[1:], render(scenes))  # side by side with version 2


def test_power_exponent_is_that_of_a_known_field():
    rng, frequency = np.random.default_rng(0), np.hypot(*np.meshgrid(np.fft.fftfreq(192), np.fft.fftfreq(192)))
    frequency[0, 0] = np.inf
    for exponent in (0.0, 1.0, 2.0):
        noise = np.fft.fft2(rng.normal(size=(12, 192, 192))) * frequency ** (-exponent / 2)
        maps = torch.from_numpy(np.fft.ifft2(noise).real[:, :64, :64])
        assert float(power_exponent(maps).mean()) == pytest.approx(exponent, abs=0.15)


def test_backgrounds_have_a_natural_spectrum():
    """Power falls as 1 / f^2 on average and not alike in all; that of version 1, a gradient, as 1 / f^3."""
    empty = {v: [replace(s, objects=()) for s in sample_scenes(60, 3, version=v)] for v in ("1", "2")}
    flat, found = (exponents(render(scenes)) for scenes in empty.values())
    assert found.mean() == pytest.approx(2.0, abs=0.15) and found.std() > 0.2
    assert np.median(flat) > 2.7
    contrast = render(empty["2"]).std((1, 2)).mean()
    assert contrast > 2 * render(empty["1"]).std((1, 2)).mean()


def test_captions_are_those_of_version_1():
    rng, used = np.random.default_rng(0), set()
    for one, two in zip(sample_scenes(150, 8), textured(150, 8), strict=True):
        assert one.category == two.category and one.background_name == two.background_name
        used |= set(tokenize(caption(two, rng)))
    assert {"striped", "dark", "light", *COLORS} <= used
    brightness: dict[str, list[float]] = {"dark": [], "light": []}
    scenes = [replace(s, objects=()) for s in textured(60, 9)]
    for scene, image in zip(scenes, render(scenes), strict=True):
        brightness[scene.background_name].append(image.mean())
    assert max(brightness["dark"]) < min(brightness["light"])


def test_objects_have_a_grain_and_come_small():
    scenes = [s for s in textured(400, 4, {"single_object": 1}) if s.objects[0].texture == "plain"]
    assert min(s.objects[0].radius for s in scenes) < 0.12 < WORLDS[SCENE_VERSION].radii[1][0]
    large = [s for s in scenes if s.objects[0].radius > 0.22 and s.objects[0].shape in ("square", "circle")]
    grains = []
    for scene in large:
        (o,) = scene.objects
        x, y, reach = round(o.x * 64), round(o.y * 64), 6
        grains.append(render([scene])[0, y - reach : y + reach, x - reach : x + reach].astype(float).std((0, 1)).max())
    assert len(grains) >= 5 and np.median(grains) > 3


def test_a_scene_depends_on_seed_and_index_and_its_picture_on_nothing_else():
    scenes = textured(12, 4)
    assert textured(5, 4, first=3) == scenes[3:8]
    small = render(scenes, 64)
    assert np.array_equal(render(scenes[3:5], 64), small[3:5])
    reduced = render(scenes, 128).reshape(12, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(reduced - small).mean() < 4  # finest texture is lost between two sizes
    assert render(scenes[:2], 40).shape == (2, 40, 40, 3)
    images, captions = make_dataset(5, 4, size=32, first=3, version=TEXTURED)
    assert np.array_equal(images, render(scenes[3:8], 32)) and len(captions) == 5


def right(n: int, seed: int, size: int = 64) -> dict[str, float]:
    """Share of ground truth judged right, by category."""
    found = {}
    for category in CATEGORIES:
        scenes = textured(n, seed, {category: 1})
        texts = [benchmark_prompt(s) for s in scenes]
        table = score_images(render(scenes, size), texts, [category] * n, version=TEXTURED)
        found[category] = float(table.correct.mean())
    return found


def test_scorer_reads_ground_truth():
    assert min(right(10, 21).values()) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("size", "n"), [(64, 500), (128, 100), (256, 100)])
def test_scorer_reads_ground_truth_fully(size: int, n: int):
    assert min(right(n, 22, size).values()) >= 0.99


def test_detections_are_where_the_objects_are():
    scenes = textured(12, 12)
    for scene, image in zip(scenes, render(scenes), strict=True):
        assert_found(scene, detect(image, TEXTURED), radius=0.02)


def test_textures_alone_hold_nothing_and_wrong_pictures_are_refused():
    for scene in textured(15, 14):
        assert detect(render([replace(scene, objects=())])[0], TEXTURED) == []
    star = SceneObject("star", "red", "plain", 0.27, 0.5, 0.2)
    ring = SceneObject("ring", "blue", "dotted", 0.73, 0.5, 0.2)
    pair = render([replace(textured(1, 15)[0], objects=(star, ring))])[0]
    assert judge(pair, "a red star left of a blue ring", TEXTURED).correct
    for prompt in ("a circle", "a green star", "a blue star and a red ring", "a star right of a ring", "two stars"):
        assert not judge(pair, prompt, TEXTURED).correct, prompt


def test_any_picture_is_read_without_a_failure():
    rng = np.random.default_rng(0)
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = (230, 30, 30)
    for image in (half, np.full((64, 64, 3), 255, np.uint8), *rng.integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)):
        for found in detect(image, TEXTURED):
            assert np.isfinite([found.x, found.y, found.radius, found.confidence]).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample_scenes(1, 0, version="3"),
        lambda: make_dataset(1, 0, version="0"),
        lambda: detect(np.zeros((64, 64, 3), np.uint8), "textured"),
    ],
)
def test_another_version_is_refused_by_those_there_are(call):
    with pytest.raises(VarlabError, match=r"version of the scenes.*1, 2"):
        call()

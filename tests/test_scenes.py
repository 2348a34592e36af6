"""Scenes: the language, the pictures, and a scorer that sees what is there and nothing else."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from varlab.errors import VarlabError
from varlab.scenes import (
    CATEGORIES,
    COLORS,
    SHAPES,
    VOCABULARY,
    Clause,
    Detection,
    Scene,
    SceneObject,
    benchmark_prompt,
    caption,
    detect,
    judge,
    judge_detections,
    make_dataset,
    parse,
    render,
    sample_scenes,
    score_images,
    summarise,
    tokenize,
)

DARK = ((0.1, 0.1, 0.12), (0.2, 0.2, 0.2), (0.15, 0.15, 0.15), (0.08, 0.1, 0.1))


def scene(*objects: SceneObject) -> Scene:
    return Scene("two_object", objects, DARK, "dark")


def item(shape="star", color="red", x=0.5, y=0.5, radius=0.2, texture="plain") -> SceneObject:
    return SceneObject(shape, color, texture, x, y, radius)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0))
    return np.clip(smooth + 0.5, 0, 255).astype(np.uint8)


def rates(n: int, size: int, sigma: float) -> dict[str, float]:
    """Share of correct judgements on ground truth, by category."""
    scores = {}
    for category in CATEGORIES:
        scenes = sample_scenes(n, 21, {category: 1})
        images = [blurred(image, sigma) if sigma else image for image in render(scenes, size)]
        verdicts = [judge(i, benchmark_prompt(s)).correct for i, s in zip(images, scenes, strict=True)]
        scores[category] = float(np.mean(verdicts))
    return scores


# The language


def test_captions_are_true_parseable_and_use_the_whole_vocabulary():
    rng = np.random.default_rng(0)
    used: set[str] = set()
    for sampled in sample_scenes(1500, 3):
        text = caption(sampled, rng)
        used.update(tokenize(text))
        requirement = parse(text)
        assert requirement.background in (None, sampled.background_name)
        assert sum(clause.count for clause in requirement.clauses) == len(sampled.objects)
        by_shape = {o.shape: o for o in sampled.objects}
        for clause in requirement.clauses:
            target = by_shape[clause.shape]
            assert clause.color in (None, target.color) and clause.texture in (None, target.texture)
            if clause.position:
                relation, other = clause.position
                second = by_shape[requirement.clauses[other].shape]
                difference = {"left of": second.x - target.x, "right of": target.x - second.x}
                difference |= {"above": second.y - target.y, "below": target.y - second.y}
                assert difference[relation] > 0
    assert used == set(VOCABULARY)


def test_half_of_the_captions_spell_out_everything_and_half_of_the_pairs_their_relation():
    rng = np.random.default_rng(1)
    pairs = sample_scenes(1000, 5, {"two_object": 1})
    parsed = [parse(caption(s, rng)) for s in pairs]
    full = np.mean([bool(p.background) and all(c.color for c in p.clauses) for p in parsed])
    related = np.mean([p.clauses[0].position is not None for p in parsed])
    assert 0.5 < full < 0.65 and 0.45 < related < 0.55


def test_parse_reads_all_parts():
    first, second = parse("Three striped green circles, left of an orange dotted star.").clauses
    assert first == Clause("circle", 3, "green", "striped", ("left of", 1))
    assert second == Clause("star", 1, "orange", "dotted")
    assert parse("a ring and a square on a dark background").background == "dark"
    assert len(parse("a ring and a square and two crosses").clauses) == 3


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        (" ?! ", "empty"),
        ("a blu star", "near words: blue"),
        ("a wooden star on marble", "the words 'wooden', 'marble' in"),
        ("a red", "a shape"),
        ("red star", "'a', 'an' or a number"),
        ("two star", "circles"),
        ("a star left a ring", "'of'"),
        ("a star on a red background", "dark background"),
        ("a star on a dark background and a ring", "the end of the prompt"),
        ("a star a ring", "'and'"),
        ("a star and", "found the end"),
    ],
)
def test_bad_prompts_are_named(prompt, message):
    with pytest.raises(VarlabError, match=message):
        parse(prompt)


# Scenes and pictures


def test_a_scene_depends_on_seed_and_index_only():
    scenes = sample_scenes(60, 4)
    assert sample_scenes(7, 4) == scenes[:7] and sample_scenes(10, 4, first=30) == scenes[30:40]
    assert sample_scenes(60, 5) != scenes
    assert set(Counter(s.category for s in sample_scenes(600, 4))) == set(CATEGORIES)


def test_objects_fit_the_frame_and_keep_apart():
    for sampled in sample_scenes(300, 6):
        drawn = render([sampled], 64)[0].astype(int)
        alone = [render([replace(sampled, objects=(o,))], 64)[0].astype(int) for o in sampled.objects]
        empty = render([replace(sampled, objects=())], 64)[0].astype(int)
        change = np.stack([np.abs(image - empty).max(axis=2) for image in alone])
        border = np.maximum(change[:, [0, -1]].max(), change[:, :, [0, -1]].max())
        assert border < 0.35 * change.max()  # the soft edge of a tip at most
        assert (change > 0).sum(axis=0).max() == 1
        assert np.array_equal(drawn - empty, sum(image - empty for image in alone))


def test_position_scenes_have_one_clear_axis():
    for sampled in sample_scenes(100, 7, {"position": 1}):
        a, b = sampled.objects
        near, far = sorted((abs(a.x - b.x), abs(a.y - b.y)))
        assert far >= 2 * near


def test_render_is_scale_free_and_batch_free():
    scenes = sample_scenes(40, 8)
    small, large = render(scenes, 64), render(scenes, 256)
    reduced = large.reshape(40, 64, 4, 64, 4, 3).mean(axis=(2, 4))
    assert np.abs(reduced - small).mean() < 1.0
    assert np.array_equal(render(scenes[:9], 64), small[:9])
    assert render(scenes[:2], 50).shape == (2, 50, 50, 3) and render([], 64).shape == (0, 64, 64, 3)


def test_texture_darkens_but_keeps_the_palette_colour():
    for texture in ("striped", "dotted", "checkered"):
        image = render([scene(item("square", "green", radius=0.3, texture=texture))], 64)[0]
        inside = image[20:44, 20:44].reshape(-1, 3) / 255
        bright = inside[inside[:, 1] >= np.quantile(inside[:, 1], 0.8)]
        assert np.allclose(bright.mean(axis=0), COLORS["green"], atol=0.03)
        assert inside[:, 1].min() < 0.65 * COLORS["green"][1]


def test_make_dataset_does_not_depend_on_workers():
    images, captions = make_dataset(2100, 9, size=16, workers=2)
    again, same = make_dataset(60, 9, size=16, first=2030)
    assert images.shape == (2100, 16, 16, 3) and images.dtype == np.uint8
    assert np.array_equal(images[2030:2090], again) and captions[2030:2090] == same
    assert make_dataset(0, 1)[0].shape == (0, 64, 64, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample_scenes(3, 0, {"couting": 1}),
        lambda: sample_scenes(3, 0, {"counting": 0}),
        lambda: sample_scenes(3, 0, {}),
        lambda: sample_scenes(3, -1),
        lambda: sample_scenes(-1, 0),
        lambda: make_dataset(-1, 0),
        lambda: render(sample_scenes(1, 0), 4),
        lambda: render([scene(item("blob"))]),
        lambda: render([scene(item(color="pink"))]),
        lambda: render([scene(item(texture="furry"))]),
        lambda: make_dataset(3, 0, workers=0),
        lambda: detect(np.zeros((64, 64, 3))),
        lambda: detect(np.zeros((64, 64), dtype=np.uint8)),
        lambda: score_images(np.zeros((1, 64, 64, 3), np.uint8), ["a star"], []),
        lambda: summarise(score_images([], [], [])),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(VarlabError):
        call()


# The scorer


@pytest.mark.parametrize(
    ("size", "sigma", "n", "least"), [(64, 0, 30, 0.99), (64, 1, 20, 0.98), (128, 0, 8, 0.98), (256, 0, 4, 0.98)]
)
def test_scorer_reads_ground_truth(size, sigma, n, least):
    assert min(rates(n, size, sigma).values()) >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "sigma", "n", "least"),
    [(64, 0, 400, 0.99), (64, 1, 400, 0.98), (128, 0, 200, 0.99), (256, 0, 200, 0.99)],
)
def test_scorer_reads_ground_truth_fully(size, sigma, n, least):
    assert min(rates(n, size, sigma).values()) >= least


def test_detections_are_where_the_objects_are():
    for sampled, image in zip(sample_scenes(60, 12), render(sample_scenes(60, 12)), strict=True):
        assert_found(sampled, detect(image), radius=0.015)


def assert_found(scene, found, radius):
    """Every object, where it is, with a radius so near."""
    assert len(found) == len(scene.objects)
    for o in scene.objects:
        near = min(found, key=lambda d: np.hypot(d.x - o.x, d.y - o.y))
        assert (near.shape, near.color) == (o.shape, o.color)
        assert np.hypot(near.x - o.x, near.y - o.y) < 0.015 and abs(near.radius - o.radius) < radius


def test_noise_does_not_disturb():
    rng = np.random.default_rng(0)
    scenes = sample_scenes(60, 13)
    noisy = np.clip(render(scenes) + rng.normal(0, 6, (60, 64, 64, 3)), 0, 255).astype(np.uint8)
    right = [judge(i, benchmark_prompt(s)).correct for i, s in zip(noisy, scenes, strict=True)]
    assert np.mean(right) >= 0.95


def test_blobs_and_halves_are_not_shapes():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    named = []
    for _ in range(120):
        field = ndimage.gaussian_filter(rng.normal(size=(64, 64)), rng.choice([3, 4, 6]))
        field = field / field.std() - 5 * np.hypot(x, y)
        cover = np.clip(3 * (field - np.quantile(field, 1 - rng.uniform(0.05, 0.2))) + 0.5, 0, 1)[..., None]
        image = 40 * (1 - cover) + 255 * cover * np.array(COLORS[rng.choice(list(COLORS))])
        named += [d.shape != "unknown" for d in detect(image.astype(np.uint8))]
    assert len(named) >= 120 and np.mean(named) < 0.04
    for shape in SHAPES:
        for half in (np.s_[:, :32], np.s_[:, 32:]):
            image = render([scene(item(shape, radius=0.28))])[0]
            image[half] = render([scene()])[0][half]
            assert [d.shape for d in detect(image)] == ["unknown"], shape


def test_empty_pictures_hold_nothing():
    for sampled in sample_scenes(40, 14):
        assert detect(render([replace(sampled, objects=())])[0]) == []
    assert detect(np.full((64, 64, 3), 200, np.uint8)) == []


def test_wrong_pictures_are_refused_with_a_reason():
    pair = render([scene(item("star", "red", 0.27), item("ring", "blue", 0.73))])[0]
    assert judge(pair, "a red star left of a blue ring").correct
    assert judge(pair, "a ring right of a star and a ring").reason.startswith("expected more objects")
    for prompt, reason in {
        "a circle": "expected circle>=1, found 0",
        "a green star": "expected green star>=1, found 0 (red)",
        "a blue star and a red ring": "expected blue star",
        "a star right of a ring": "expected right of",
        "a star above a ring": "expected above",
        "two stars": "expected star>=2, found 1",
    }.items():
        verdict = judge(pair, prompt)
        assert not verdict.correct and verdict.reason.startswith(reason)
    places = [(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)]
    four = render([scene(*(item("cross", "cyan", x, y, 0.14) for x, y in places))])[0]
    verdicts = [judge(four, f"{word} crosses") for word in ("two", "three", "four")]
    assert [v.correct for v in verdicts] == [False, False, True]
    assert verdicts[1].reason == "expected cross<=3, found 4"
    assert judge(four, "a cross").correct


def test_touching_objects_of_two_colours_are_told_apart():
    image = render([scene(item("square", "red", 0.3), item("circle", "cyan", 0.64))])[0]
    assert {(d.shape, d.color) for d in detect(image)} == {("square", "red"), ("circle", "cyan")}


def seen(shape, color="red", x=0.5, y=0.5) -> Detection:
    return Detection(shape, color, x, y, 0.1, 0.95, 0.2)


def test_judging_canned_detections():
    diagonal = [seen("star", "red", 0.2, 0.2), seen("ring", "blue", 0.8, 0.8)]
    for relation in ("left of", "above"):  # GenEval accepts both on a diagonal
        assert judge_detections(diagonal, parse(f"a star {relation} a ring")).correct
    close = [seen("star", x=0.5), seen("ring", x=0.52)]
    assert not judge_detections(close, parse("a star left of a ring")).correct
    stars = [seen("star", "red"), seen("star", "blue")]
    assert judge_detections(stars, parse("a red star and a blue star")).correct
    assert not judge_detections(stars, parse("a star and a star and a star")).correct
    assert judge_detections(stars, parse("two stars")).correct
    three = [*stars, seen("star", "red")]
    assert judge_detections(three, parse("two red stars and a blue star")).correct
    assert not judge_detections(three, parse("two stars")).correct
    # Any of several candidates may stand in the relation.
    several = [seen("star", x=0.8), seen("star", x=0.2), seen("ring", x=0.5)]
    assert judge_detections(several, parse("a star left of a ring")).correct


def test_score_table_and_summary():
    scenes = [s for c in CATEGORIES for s in sample_scenes(6, 15, {c: 1})]
    texts = [benchmark_prompt(s) for s in scenes]
    texts[0] = "four crosses"  # a single object is drawn
    table = score_images(render(scenes), texts, [s.category for s in scenes])
    assert list(table.columns[:4]) == ["entry", "category", "prompt", "correct"] and len(table) == 36
    assert not table.correct[0] and not table.shape_correct[0] and not table.exact_count[0]
    assert table.correct[1:].all() and table.exact_count[1:].all()
    summary = summarise(table)
    assert list(summary.index) == [*CATEGORIES, "overall"]
    assert summary.loc["single_object", "mean"] == pytest.approx(5 / 6)
    assert summary.loc["overall", "mean"] == pytest.approx((5 + 5 / 6) / 6)
    assert summary.loc["overall", "low"] < summary.loc["overall", "mean"] < summary.loc["overall", "high"]
    assert summary.loc["counting", ["mean", "low", "high", "n"]].tolist() == [1, 1, 1, 6]


def test_intervals_treat_images_of_a_prompt_as_one_draw():
    rows = score_images(np.zeros((40, 64, 64, 3), np.uint8), ["a star"] * 40, ["single_object"] * 40)
    rows["correct"] = np.arange(40) < 20
    wide = rows.assign(entry=np.arange(40) // 10)
    widths = [(s.high - s.low)["overall"] for s in (summarise(rows), summarise(wide))]
    assert widths[1] > 2 * widths[0] and summarise(wide).prompts["overall"] == 4
    assert summarise(wide).texts.tolist() == [1, 1]

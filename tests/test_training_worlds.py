"""Minis of textured scenes: both parts go on from a mini of flat ones, and no run mixes the two."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.minis import refused
from tests.test_training import TINY, finished  # noqa: F401  (a fixture)
from varlab.evaluation import scenes
from varlab.evaluation.command import score_command
from varlab.evaluation.judging import judge
from varlab.runs.origins import made_with, scene_version
from varlab.scenes import TEXTURED, make_dataset, render, sample_scenes, score_images
from varlab.training.export import export
from varlab.training.pipeline import begin_from, train
from varlab.training.recipes import RECIPES
from varlab.weights import zoo
from varlab.weights.embedded import load_mini

LOOP = replace(TINY.loop, steps=2)
SECOND = replace(
    TINY, name="tiny-textured", scene_version=TEXTURED, fine_tunes="tiny", loop=LOOP, tokenizer_loop=LOOP, pool_seed=7
)


@pytest.fixture(scope="module")
def textured(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run of the second world, and the folder of minis in which it found the first one."""
    places = tmp_path_factory.mktemp("places")
    export(TINY, finished, places / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VARLAB_DATA", str(places))
        assert train(SECOND, places / "run")
        export(SECOND, places / "run", places / "tiny-textured")
        assert train(SECOND, places / "run")  # done: nothing is begun anew
    return places / "run", places


def test_both_parts_go_on_from_the_mini_of_the_other_scenes(textured: tuple[Path, Path]) -> None:
    run, places = textured
    (first, before), (second, facts) = load_mini(places / "tiny"), load_mini(places / "tiny-textured")
    assert facts.scene_version == TEXTURED and before.scene_version == "1"
    assert facts.extra["fine_tuned_from"] == {"weights": before.weights, "scene_version": "1"}
    assert facts.extra["transformer_steps"] == facts.extra["tokenizer_steps"] == 2  # counted from 0
    assert [(part["first"], part["last"], part["scene_version"]) for part in facts.extra["parts"]] == [(1, 2, TEXTURED)]
    for part in ("tokenizer", "transformer"):
        a, b = (getattr(mini, part).state_dict() for mini in (first, second))
        moved = max(float((a[key].float() - b[key].float()).abs().max()) for key in a)
        assert 0 < moved < 0.05, part  # a few small steps away, not a fresh start
    images, captions = make_dataset(SECOND.pool, 7, size=16, version=TEXTURED)
    assert np.array_equal(np.load(run / "pool" / "images.npy")[: len(captions)], images)
    assert json.loads((run / "pool" / "captions.json").read_text()) == captions
    assert json.loads((run / "pool" / "pool.json").read_text())["scene_version"] == TEXTURED


def test_a_textured_mini_is_continued_with_its_tokenizer(textured: tuple[Path, Path], tmp_path: Path) -> None:
    _, places = textured
    longer = SECOND.with_sizes(steps=1)
    assert train(longer, tmp_path, init_from=places / "tiny-textured")
    export(longer, tmp_path, tmp_path / "mini")
    (former, known), (continued, facts) = load_mini(places / "tiny-textured"), load_mini(tmp_path / "mini")
    assert facts.extra["transformer_steps"] == 3 and facts.extra["tokenizer_steps"] == 2
    assert facts.extra["fine_tuned_from"] == known.extra["fine_tuned_from"]
    a, b = former.tokenizer.state_dict(), continued.tokenizer.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_other_scenes_are_refused_with_the_difference(textured: tuple[Path, Path], tmp_path: Path) -> None:
    run, places = textured
    refused(lambda: begin_from(TINY, tmp_path / "x", places / "tiny-textured"), "scene_version 2, not 1")
    refused(lambda: begin_from(SECOND, run, places / "tiny-textured"), "continues from other weights")
    flat = replace(SECOND, scene_version="1")
    refused(lambda: train(flat, run), "another scene pool", "'scene_version': '2'", "'scene_version': '1'")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["mini-infinity", "mini-hart"])
def test_shipped_recipes_fit_the_minis_that_they_go_on_from(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[f"{name}-textured"]
    assert recipe.scene_version == TEXTURED and recipe.fine_tunes == name
    begin_from(recipe, tmp_path, Path(name))
    assert load_mini(tmp_path / "from")[1].scene_version == "1"


def test_a_model_knows_its_scenes_and_is_judged_by_them(
    textured: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VARLAB_DATA", str(textured[1]))
    model, flat = zoo.load("tiny-textured"), zoo.load("tiny")
    assert model.scene_version == model.with_().scene_version == TEXTURED and flat.scene_version == "1"
    assert made_with(model)["scene_version"] == TEXTURED and "scene_version" not in made_with(flat)
    asked: list[str] = []

    def score(*given: Any) -> Any:
        asked.append(given[-1])
        return score_images(*given)

    monkeypatch.setattr(scenes, "score_images", score)
    truth = scenes.score_ceiling(model, 6).truth.images
    scenes.score_samples(model, 6, 1)
    scenes.score_samples(flat, 6, 1)
    former = tmp_path / "flat.json"
    former.write_text(json.dumps({"entries": [], "weights": "w", "seed": 0}))
    command = lambda: score_command("scenes", model, 6, 1, 0, None, lambda *_: None, against=former)  # noqa: E731
    refused(command, "scenes of version 1", "tiny-textured draws version 2")
    assert len(truth) == 6 and asked == [TEXTURED, TEXTURED, TEXTURED, "1"]
    asked.clear()
    monkeypatch.chdir(tmp_path)  # the pictures are kept below it
    score_command("scenes", model, 6, 1, 0, None, lambda *_: None)
    assert asked == [TEXTURED] * 3  # samples, ground truth, reconstructions


def test_pictures_are_judged_by_the_scenes_that_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "images" / "00000" / "0000.png"
    image.parent.mkdir(parents=True)
    Image.fromarray(render(sample_scenes(1, 3, version=TEXTURED))[0]).save(image)
    asked: list[str] = []

    def score(*given: Any) -> Any:
        asked.append(given[-1])
        return score_images(*given)

    monkeypatch.setattr(scenes, "score_images", score)
    for given in (None, TEXTURED):
        judge("scenes", tmp_path, allow_missing=True, scene_version=given)
    assert asked == ["1", TEXTURED]
    refused(lambda: judge("scenes", tmp_path, allow_missing=True, scene_version="3"), "version of the scenes", "1, 2")
    record = {"model": "tiny", "weights": "trained"}
    refused(lambda: scene_version(record, TEXTURED), "tiny draws scenes of version 1", "version 2 is asked for")
    assert scene_version(record | {"scene_version": TEXTURED}) == scene_version({}, TEXTURED) == TEXTURED

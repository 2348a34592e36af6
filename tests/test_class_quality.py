"""Distances between sets of images: filters, closed forms, intervals, and the files of other evaluators."""

import sys
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import tiny_var
from tests.minis import refused
from varlab.evaluation import adm, adm_scores, classes, scenes
from varlab.evaluation.adm import export_npz, inception_scores
from varlab.evaluation.classes import class_scenes, described, score_classes
from varlab.evaluation.distances import (
    FrechetSpace,
    Moments,
    covered,
    frechet,
    moments,
    precision_recall,
    root,
)
from varlab.evaluation.scattering import FEATURES, FLOOR, scattering, scattering_of, wavelets
from varlab.evaluation.scenes import HELD, detail, score, score_samples
from varlab.evaluation.scripts import inception_features
from varlab.measures.statistics import centred_interval
from varlab.weights.zoo import load


def normal(n: int, d: int = 3, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, d))


# Features


def test_wavelets_see_no_constant_and_follow_their_direction() -> None:
    bank = wavelets(48, 48)
    assert bank[..., 0, 0].abs().max() < 1e-6
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    for direction, wave in enumerate((x, y)):
        found = torch.fft.ifft2(torch.fft.fft2(torch.cos(0.75 * torch.pi * wave)) * bank[0]).abs().mean((-2, -1))
        assert int(found.argmax()) == (0, 2)[direction]


def test_a_flat_image_has_only_its_colour() -> None:
    image = torch.tensor([0.2, 0.4, 0.6])[None, :, None, None].expand(1, 3, 24, 24)
    found = scattering(image)[0]
    assert found.shape == (FEATURES,) and torch.allclose(found[:3], image[0, :, 0, 0])
    assert torch.allclose(found[3:], torch.full((FEATURES - 3,), FLOOR).log(), atol=1e-2)


def test_features_see_detail_and_not_the_place() -> None:
    pictures, _ = class_scenes(8, 3, 40)
    own = scattering_of(pictures)
    moved = scattering_of(np.roll(pictures, (3, 2), (1, 2)))
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(pictures).movedim(-1, 1).float(), 3, 1, 1)
    dull = scattering_of(blurred.byte().movedim(1, -1).numpy())
    assert np.abs(moved - own).mean() < 0.5 * np.abs(dull - own).mean()
    refused(lambda: scattering(torch.zeros(1, 3, 12, 12)), "at least 16 pixels")


# Distances


def test_frechet_has_its_closed_form() -> None:
    a = Moments(torch.tensor([0.0, 1.0]).double(), torch.diag(torch.tensor([1.0, 4.0])).double())
    b = Moments(torch.tensor([2.0, 1.0]).double(), torch.diag(torch.tensor([9.0, 4.0])).double())
    assert frechet(a, b) == pytest.approx(4 + 4) and frechet(a, a) == pytest.approx(0, abs=1e-9)
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double()
    assert torch.allclose(root(matrix) @ root(matrix), matrix)
    refused(lambda: moments(normal(3, 3)), "more images", "not 3")


def test_intervals_hold_the_estimate_and_tell_a_shift_from_none() -> None:
    space = FrechetSpace(normal(400), 60)
    same, also, far = (space.draws(normal(400, seed=s, shift=d)) for s, d in ((1, 0.0), (2, 0.0), (3, 0.4)))
    interval = centred_interval(far)
    assert interval.low < interval.estimate < interval.high and interval.estimate == pytest.approx(0.48, abs=0.2)
    assert centred_interval(far - same).low > 0
    none = centred_interval(same - also)
    assert none.low < 0 < none.high


def test_the_interval_of_a_distance_holds_it_however_few_the_images() -> None:
    """With 12 images on 8 features a resampled set lies far further away than the set: twice the estimate less the
    quantiles of the draws would reach far below 0."""
    space = FrechetSpace(normal(12, 8), 80)
    draws = space.draws(normal(12, 8, seed=1))
    found = centred_interval(draws)
    assert draws[1:].mean() > 1.2 * draws[0]  # what the correction is for
    assert 2 * draws[0] - np.quantile(draws[1:], 0.975) < 0
    assert 0 < found.low < found.estimate < found.high


def test_the_interval_of_a_distance_covers_its_mean_at_this_n() -> None:
    draws = [FrechetSpace(normal(30, seed=2 * i), 60).draws(normal(30, seed=2 * i + 1, shift=0.5)) for i in range(60)]
    mean = np.mean([one[0] for one in draws])
    covered = np.mean([low <= mean <= high for _, low, high in map(centred_interval, draws)])
    assert covered >= 0.85


def test_pairs_share_their_draws() -> None:
    space, features = FrechetSpace(normal(50), 8), normal(50, seed=4)
    assert np.array_equal(space.draws(features), space.draws(features.copy()))
    assert not np.array_equal(space.draws(features), FrechetSpace(normal(50), 8, seed=1).draws(features))


def test_precision_and_recall_part_when_modes_are_missing() -> None:
    real = np.concatenate([normal(200, seed=1), normal(200, seed=2, shift=20)])
    half = np.concatenate([normal(200, seed=3), normal(200, seed=4)])
    precision, recall = precision_recall(half, real)
    assert precision.estimate > 0.8 and recall.estimate == pytest.approx(0.5, abs=0.1)
    assert covered(real, real).all() and not covered(real + 100, real).any()


# Of a model


def named_var() -> classes.VAR:
    model = tiny_var()
    model.text = classes.VAR(model.transformer, model.tokenizer, class_list()).text
    return model


def class_list() -> tuple[str, ...]:
    return ("a red circle", "a blue circle", "a red star", "a blue star", "a red ring", "a blue ring", "a red cross",
            "a blue cross", "a red square", "a blue square")  # fmt: skip


@pytest.fixture
def few_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances over 15 of the 87 features, for which 18 pictures are enough."""
    monkeypatch.setattr("varlab.evaluation.scattering.scattering", lambda images: scattering(images)[:, :15])


@pytest.mark.usefixtures("few_features")
def test_a_score_has_its_scale_beside_it() -> None:
    table = score_classes(named_var(), n=18, methods=("none", "freqexit:exits=2")).set_index("source")
    assert list(table.index) == ["none", "freqexit:exits=2", "reconstructions", "other scenes"]
    assert table.loc["other scenes", "class_accuracy"] > 0.9 > table.loc["none", "class_accuracy"]
    assert table.loc["other scenes", "scattering_frechet"] < table.loc["none", "scattering_frechet"]
    assert (table.scattering_frechet_low <= table.scattering_frechet_high).all() and set(table.n) == {18}
    refused(lambda: score_classes(tiny_var(), n=18), "named scene classes")


def test_described_agrees_with_the_scorer() -> None:
    pictures, names = class_scenes(12, 3, 40)
    wrong = names[1:] + names[:1]
    assert described(pictures, names).correct.mean() > 0.9 > described(pictures, wrong).correct.mean()


def test_scores_hold_few_pictures_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, names = class_scenes(6, 3, 16)
    most, alive = 0, list[weakref.ref[np.ndarray]]()

    def one_by_one(*_: object) -> Iterator[np.ndarray]:
        nonlocal most
        for i in range(300):
            picture = drawn[i % 6].copy()
            alive.append(weakref.ref(picture))
            most = max(most, sum(one() is not None for one in alive))
            yield picture

    monkeypatch.setattr(classes, "scattering_of", lambda few: np.mean(few, axis=(1, 2)))
    monkeypatch.setattr(classes, "score_images", lambda few, *_: pd.DataFrame({"correct": [True] * len(few)}))
    found = described(one_by_one(), names * 50)
    np.testing.assert_array_equal(found.features, np.tile(drawn.mean((1, 2)), (50, 1)))
    assert len(found.correct) == 300 and most <= 201  # those that are judged, and those that come next
    most = 0
    monkeypatch.setattr(scenes, "drawn", lambda *_: islice(one_by_one(), 150))
    whole, power, kept = score_samples(load("nano-infinity", "empty"), 75, 2, every=50)
    assert whole.images.entry.tolist() == np.repeat(range(75), 2).tolist() and len(kept) == 3
    assert power == pytest.approx(detail(drawn) / 6) and most <= 2 * HELD + 4
    refused(lambda: score(drawn, names * 2, ["colors"] * 12), "12 prompts need as many images, not 6")


def test_references_are_those_of_the_whole_set() -> None:
    whole, names = class_scenes(HELD + 3, scenes.HELD_OUT_SEED, 16)
    for first in (0, HELD - 2):
        pictures, found = zip(*classes.held_out(HELD + 3 - first, 16, first), strict=True)
        assert np.array_equal(pictures, whole[first:]) and list(found) == names[first:]


def test_references_come_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, most, alive = np.random.default_rng(0).integers(0, 256, (600, 4, 4, 3), np.uint8), 0, []

    def few_at_once(n: int, seed: int, side: int, first: int) -> tuple[np.ndarray, list[str]]:
        nonlocal most
        made = whole[first : first + n].copy()
        alive.append(weakref.ref(made))
        most = max(most, sum(len(one) for chunk in alive if (one := chunk()) is not None))
        return made, ["a red circle"] * n

    monkeypatch.setattr(classes, "class_scenes", few_at_once)
    monkeypatch.setattr(classes, "score_images", lambda few, *_: pd.DataFrame({"correct": [True] * len(few)}))
    monkeypatch.setattr("varlab.evaluation.scattering.scattering", lambda images: images.mean((2, 3)))
    exact = scattering_of(whole)
    assert np.array_equal(classes.space_of(classes.held_out(600, 16), 2).real, exact)
    found = classes._changed(classes.held_out(500, 16, 100), lambda few: (255 - picture for picture in few))
    assert np.allclose(found.features, 1 - exact[100:]) and len(found.correct) == 500
    assert most <= 5 * HELD  # those that are judged, and those that come next


# Files of other evaluators


def test_the_export_is_what_the_evaluator_reads_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_var()
    monkeypatch.setattr(adm, "CHUNK", 8)
    export_npz(model, tmp_path / "whole.npz", n=20, seed=3)
    images = np.load(tmp_path / "whole.npz")["arr_0"]
    assert images.shape == (20, 20, 20, 3) and images.dtype == np.uint8
    calls = 0
    chunk = adm._chunk

    def failing(job: object, numbers: range) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return chunk(job, numbers)  # type: ignore[arg-type]

    monkeypatch.setattr(adm, "_chunk", failing)
    with pytest.raises(KeyboardInterrupt):
        export_npz(model, tmp_path / "cut.npz", n=20, seed=3)
    assert not (tmp_path / "cut.npz").exists()
    refused(lambda: export_npz(model, tmp_path / "cut.npz", n=20, seed=4), "another export")
    export_npz(model, tmp_path / "cut.npz", n=20, seed=3)
    assert calls == 4 and np.array_equal(np.load(tmp_path / "cut.npz")["arr_0"], images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.json", "cut.npz", "whole.json", "whole.npz"]
    refused(lambda: export_npz(model, tmp_path / "images.png", n=2), ".npz")


def test_fid_says_what_it_needs_and_hands_both_sets_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, real = np.random.default_rng(0).integers(0, 256, (2, 6, 2, 2, 3), np.uint8)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    refused(lambda: inception_scores(pictures, real, tmp_path), "pip install torch-fidelity", "score frechet")
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setattr(inception_features, "load", lambda device: lambda p: [p.float().mean((2, 3)) / 255] * 3)
    table, notes = inception_scores(iter(pictures), iter(real), tmp_path)
    found = table.set_index("measure")
    assert list(found.index) == ["fid", "sfid", "inception_score", "precision", "recall", "kid"]
    means = (images.astype(np.float32).mean((1, 2)) / 255 for images in (pictures, real))
    assert found.value["fid"] == pytest.approx(adm_scores.fid(*(adm_scores.statistics(each) for each in means)))
    assert found.low.notna().all() and (found.images == 6).all() and any("jackknife" in note for note in notes)

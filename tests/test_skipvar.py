"""SkipVAR: decisions, what they do to each image, and the models that make them."""

import json
import os
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tests.conftest import features, tiny_infinity
from varlab.accelerators import build
from varlab.accelerators.decisions import FEATURES, Classifier, DecisionModel, always, load, save
from varlab.accelerators.pickles import load_official
from varlab.accelerators.skipvar import SkipVAR
from varlab.accelerators.skipvar import features as skipvar_features
from varlab.engine.hooks import Accelerator
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.infinity import TextBatch
from varlab.probes.log import of_methods

BY_RATIO = Classifier((0.0, 0.0), (1.0, 1.0), ((0.0, 1.0),), (-0.5,), (0, 2))


def run(*specs: str | Accelerator, images: tuple[int, ...] = (0, 1, 2), schedule: str = "long") -> Generation:
    rows = features(3, 3, 3).features.split(3)
    text = TextBatch(torch.cat([rows[image] for image in images]), (3,) * len(images))
    model = tiny_infinity(schedule)
    return Run(model, Settings(cfg=2.0), SeededNoise(7)).generate(text, images, build(specs))


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_fixed_decision_is_the_control_of_the_same_name(last: int) -> None:
    assert torch.equal(run(SkipVAR(model=always(last, 0))).image, run(f"truncate:last={last}").image)
    assert torch.equal(run(SkipVAR(model=always(0, last))).image, run(f"cfg-off:last={last}").image)


def test_the_hybrid_replaces_before_it_drops() -> None:
    both = run("skipvar-hybrid:drop=1,replace=2")
    assert torch.equal(both.image, run("truncate:last=1", "cfg-off:last=3").image)


def test_features_are_read_from_the_two_previews() -> None:
    """After stage K-3 and K-4, on the fifth stage's grid, in [-1, 1]."""
    model = tiny_infinity("long")
    text = TextBatch(features(3, 3, 3).features[:3], (3,))
    run_ = Run(model, Settings(cfg=2.0), SeededNoise(7))
    dense = run_.dense_run(text, (0,))
    grid = model.schedule.grids[4]
    new, old = (model.decode(model.resize(dense.canvases[k], grid)) * 2 - 1 for k in (5, 4))
    expected = skipvar_features(new, old)[0].tolist()
    ((_, report),) = run(SkipVAR(model=always(0, 0)), images=(0,)).reports.items()
    assert [report["skipvar"][name][1][0] for name in FEATURES] == pytest.approx(expected, rel=1e-5)


def test_each_image_of_a_batch_goes_its_own_way() -> None:
    ((_, report),) = run(SkipVAR(model=always(0, 0))).reports.items()
    seen = report["skipvar"]["hf_ratio"][1].tolist()
    middle = sorted(seen)[1]
    skip = Classifier((0.0, 0.0), (1.0, 1.0), ((0.0, 1.0),), (-(middle - 1e-6),), (2, 0))
    model = DecisionModel("infinity", "random", 8, 0.86, skip, always(0, 1).uncond, {})
    together = run(SkipVAR(model=model))
    assert len(together.states) == 2
    for image, ratio in enumerate(seen):
        other = "truncate:last=2" if ratio < middle else "cfg-off:last=1"
        alone = run(other, images=(image,))
        assert torch.allclose(together.canvas[image], alone.canvas[0], atol=1e-5)
    stages = {tuple(group): state.stages_run for group, state in zip(together.reports, together.states, strict=True)}
    assert sorted(stages.values()) == [6, 8]
    told = of_methods(together.reports, (0, 1, 2))["skipvar"].variables
    assert told["hf_ratio"][1].tolist() == pytest.approx(seen, rel=1e-5)  # put back in the order of the images
    assert told["drop"][1].tolist() == [2 if ratio < middle else 0 for ratio in seen]
    assert told["replace"][1].tolist() == [0 if ratio < middle else 1 for ratio in seen]
    assert told["drop_probability"][1].argmax(1).tolist() == told["drop"][1].tolist()


def test_it_runs_together_with_sparsevar() -> None:
    out = run(SkipVAR(model=always(1, 0)), "sparsevar:keep=0.5,last=2")
    assert out.ledger.stages[7].tokens == 0 and 0 < out.ledger.stages[6].tokens < 3 * 49


def test_a_classifier_is_an_argmax_of_standardised_features() -> None:
    three = Classifier((1.0, 2.0), (0.5, 4.0), ((1.0, 0.0), (0.0, 1.0), (-1.0, -1.0)), (0.0, 0.1, 0.2), (1, 2, 3))
    points = torch.tensor([[2.0, 2.0], [1.0, 10.0], [0.0, -6.0]], dtype=torch.float64)
    assert three.scores(points)[0].tolist() == pytest.approx([2.0, 0.1, -1.8])
    assert three.predict(points) == [1, 2, 3]
    assert BY_RATIO.predict(torch.tensor([[0.0, 0.4], [0.0, 0.6]])) == [0, 2]
    with pytest.raises(VarlabError, match="does not fit"):
        Classifier((0.0,), (1.0,), ((1.0,),), (0.0,), (0, 1, 2))


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_are_scikit_learns(classes: int) -> None:
    points = np.random.default_rng(0).random((200, 2))
    labels = (points[:, 0] * (classes - 0.01)).astype(int)
    scaler = StandardScaler().fit(points)
    regression = LogisticRegression(max_iter=1500).fit(scaler.transform(points), labels)
    ours = Classifier(
        tuple(scaler.mean_), tuple(scaler.scale_), tuple(map(tuple, regression.coef_)), tuple(regression.intercept_),
        tuple(regression.classes_.tolist()),
    )  # fmt: skip
    found = ours.probabilities(torch.from_numpy(points), 4)
    assert found[:, :classes] == pytest.approx(regression.predict_proba(scaler.transform(points)), abs=1e-9)
    assert (found[:, classes:] == 0).all()


def test_a_model_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    model = DecisionModel("infinity", "hash", 8, 0.86, BY_RATIO, always(0, 2).uncond, {"n": 300})
    save(tmp_path / "skipvar.json", {0.86: model})
    assert load(tmp_path / "skipvar.json", 0.86) == model
    with pytest.raises(VarlabError, match=r"holds targets 0.86, not 0.84"):
        load(tmp_path / "skipvar.json", 0.84)
    record = json.loads((tmp_path / "skipvar.json").read_text())
    del record["0.86"]["skip"]["coef"]
    (tmp_path / "skipvar.json").write_text(json.dumps(record))
    with pytest.raises(VarlabError, match="no decision model"):
        load(tmp_path / "skipvar.json", 0.86)


@pytest.mark.parametrize(
    ("method", "schedule", "message"),
    [
        ("skipvar", "long", "There is no decision model"), ("skipvar:model=gone.json", "long", "gone.json"),
        (SkipVAR(model=always(0, 0)), "square", "at least 8 stages"),
        (SkipVAR(model=DecisionModel("hart", "w", 14, 0.86, BY_RATIO, BY_RATIO, {})), "long", "fitted on hart"),
        (
            SkipVAR(model=DecisionModel("infinity", "random (seed 3)", 8, 0.86, BY_RATIO, BY_RATIO, {})), "long",
            r"weights random \(seed 3\), not on random, .*varlab calibrate skipvar",
        ),
        ("skipvar-hybrid:drop=3,replace=1", "long", "at most 3"), ("skipvar:targets=1", "long", "target"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_decide_is_refused_before_work(method: str | Accelerator, schedule: str, message: str) -> None:
    with pytest.raises(VarlabError, match=message):
        run(method, schedule=schedule)


def official(folder: Path, points: np.ndarray) -> dict[str, tuple[StandardScaler, LogisticRegression]]:
    """A folder as released: scaler, regression and a tree, pickled by joblib, for both decisions."""
    fitted = {}
    for kind, classes in (("skip", points[:, 0] * 3.99), ("uncond", points[:, 1] * 2.99 + 1)):
        scaler = StandardScaler().fit(points)
        labels = classes.astype(int)
        regression = LogisticRegression(max_iter=1500).fit(scaler.transform(points), labels)
        fitted[kind] = (scaler, regression)
        joblib.dump(scaler, folder / f"{kind}_scaler.pkl")
        joblib.dump(regression, folder / f"{kind}_LR.pkl")
        joblib.dump(DecisionTreeClassifier(max_depth=3).fit(points, labels), folder / f"{kind}_DT.pkl")
    return fitted


def test_the_official_models_are_read_from_the_users_copy(tmp_path: Path) -> None:
    points = np.random.default_rng(0).random((400, 2))
    fitted = official(tmp_path, points)
    model = load_official(tmp_path, 0.84)
    model.check("infinity", 13, "official (file, hash)")  # the pickles name no weights
    for kind, classifier in (("skip", model.skip), ("uncond", model.uncond)):
        scaler, regression = fitted[kind]
        assert classifier.predict(torch.from_numpy(points)) == regression.predict(scaler.transform(points)).tolist()
    with pytest.raises(VarlabError, match="13 stages"):
        run(f"skipvar:model={tmp_path}")  # fitted on the official schedule, which this model does not have
    (tmp_path / "uncond_LR.pkl").unlink()
    with pytest.raises(VarlabError, match="regression for uncond"):
        load_official(tmp_path, 0.84)


@pytest.mark.parametrize("name", ["84", "84_diff_only"])
def test_a_released_folder_of_another_target_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    official(folder, np.random.default_rng(0).random((400, 2)))
    assert load_official(folder, 0.84).target == 0.84
    with pytest.raises(VarlabError, match=r"target \.84, not 0\.88.*target=0\.84"):
        run(f"skipvar:model={folder},target=0.88")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def test_nothing_in_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    joblib.dump(Evil(), tmp_path / "skip_LR.pkl")
    with pytest.raises(VarlabError, match="system"):
        load_official(tmp_path, 0.84)
    assert not (tmp_path / "harmed").exists()
    (tmp_path / "skip_LR.pkl").write_bytes(b"no pickle")
    with pytest.raises(VarlabError, match="read as a decision model"):
        load_official(tmp_path, 0.84)

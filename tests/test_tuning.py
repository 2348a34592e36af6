"""Tuning: chosen on one half of the prompts, reported on the other, resumed, honest where nothing is better."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.minis import make_nano
from varlab.comparison.baselines import baseline_specs
from varlab.errors import VarlabError
from varlab.figures.tuning import front
from varlab.models.base import NextScaleModel
from varlab.outputs import read_facts
from varlab.runs.states import table, verify
from varlab.studies.tuning import halving, space_of, tune
from varlab.studies.tuning.answers import _answers
from varlab.studies.tuning.points import Points, better_half, finalists_of
from varlab.weights.zoo import load

CANDIDATES = [
    "truncate:last=3", "sparsevar:keep=0.3,last=2", "sparsevar:keep=0.7,last=1",  # here no baseline
    "sparsevar:keep=0.7,last=1+cfg-off:last=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        halving, "space_of", lambda _: ([], ["none", "truncate:last=1", "truncate:last=2", "cfg-off:last=2"])
    )
    monkeypatch.setattr(halving, "FIRST", 2)


def test_what_is_chosen_on_one_half_is_reported_on_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_nano(tmp_path / "data")
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    made = tune("nano-infinity", tmp_path / "t", n=16, candidates=CANDIDATES, works=(0.9, 0.3))
    chosen = [pd.read_csv(tmp_path / "t" / f"choose-{i}" / "prompts.csv") for i in range(3)]
    held = pd.read_csv(tmp_path / "t" / "report" / "prompts.csv")
    assert [sorted(rows.prompt.unique()) for rows in chosen] == [[0, 1], [2, 3], [4, 5, 6, 7]]
    assert sorted(held.prompt.unique()) == list(range(8, 16))
    counts = [len(set(rows.method) & set(CANDIDATES)) for rows in chosen]
    assert counts == [4, 3, 3] and made.table.n.eq(8).all()
    single, both, against_singles, cheap, none, _ = made.answers.to_dict("records")
    assert [single["kind"], both["kind"], against_singles["against"]] == ["single", "composition", "singles"]
    assert cheap["candidate"] == "truncate:last=3" and cheap["rival"] == "no baseline does as little work"
    assert pd.isna(none["candidate"]) and none["rival"] == "no candidate does as little work"
    for answer in (single, both, against_singles):
        own = held[held.method == answer["candidate"]].sort_values("prompt").ssim.to_numpy()
        shares = [part.split(" % ") for part in answer["rival"].split(" and ")]
        rival = sum(
            float(share) / 100 * held[held.method == name].sort_values("prompt").ssim.to_numpy()
            for share, name in shares
        )
        assert answer["difference"] == pytest.approx(np.mean(own - rival), abs=0.01)
        assert answer["ssim"] - answer["rival_ssim"] == pytest.approx(answer["difference"])
    assert (made.recommended is None) == (max(single["low"], both["low"]) <= 0)
    assert front(made.table, made.facts).get_xlabel() == "work over dense"
    facts = read_facts(tmp_path / "t" / "tuned.json")
    assert verify(tmp_path / "t").word == "complete"
    shard = next((tmp_path / "t" / "report" / "shards").iterdir())
    (tmp_path / "t" / "kept").write_bytes(shard.read_bytes())
    shard.write_bytes(b"")
    assert str(verify(tmp_path / "t")).startswith(f"damaged: report/shards/{shard.name}")
    (tmp_path / "t" / "kept").replace(shard)
    begun = shutil.copytree(tmp_path / "t", tmp_path / "begun", ignore=shutil.ignore_patterns("tuned.json"))
    assert str(verify(begun)) == "partial: no tuned.json yet"
    assert table([begun]).loc[0, ["kind", "model", "methods"]].tolist() == ["tuning", "nano-infinity", "8 specs"]
    assert (facts["seed"], facts["chosen_on"], facts["candidates"]) == (0, 8, 4) and weights[:8] in facts["weights"]
    monkeypatch.setattr("varlab.sweeps.run.connected", lambda *_: pytest.fail("all of it was there"))
    again = tune("nano-infinity", tmp_path / "t", n=16, candidates=CANDIDATES, works=(0.9, 0.3))
    pd.testing.assert_frame_equal(again.answers, made.answers)


POINTS = {
    "none": (1.0, 1.0), "truncate:last=1": (0.5, 0.9), "a": (0.5, 0.95), "b": (0.7, 0.5), "c": (0.6, 0.9),
    "d": (0.55, 0.2), "a+b": (0.4, 0.2), "c+d": (0.3, 0.1),
}  # fmt: skip


def points() -> Points:
    """Works and means as they are above."""
    works, means = (pd.Series({name: pair[i] for name, pair in POINTS.items()}) for i in (0, 1))
    return Points(works, pd.DataFrame({0: means, 1: means}))


def test_the_worse_half_of_either_kind_goes_and_the_front_decides() -> None:
    specs = ["a", "b", "c", "d", "a+b", "c+d"]
    assert better_half(points(), specs, ()) == ["a", "c", "c+d"]
    assert better_half(points(), specs, (0.4,)) == ["a", "c", "a+b", "c+d"]  # the best at this work stays
    assert finalists_of(points(), ["a", "c", "c+d"], (0.2, 0.6)) == ["a", "c+d"]


def test_what_is_cheaper_than_every_rival_is_said() -> None:
    held = points().values
    (single, both, against_singles) = _answers(0.4, held, points(), ["none", "truncate:last=1"], ["a", "c+d"])
    assert single["candidate"] is None and single["rival"] == "no candidate does as little work"
    assert both["candidate"] == "c+d" and both["rival"] == "no baseline does as little work"
    assert both["ssim"] == pytest.approx(0.1) and np.isnan(both["difference"])
    assert against_singles["rival"] == "no single does as little work"


def test_inputs_are_refused_before_any_work(tmp_path: Path) -> None:
    for given in ({"n": 8}, {"works": (1.5,)}):
        with pytest.raises(VarlabError):
            tune("nano-infinity", tmp_path / "t", **given)  # type: ignore[arg-type]
    with pytest.raises(VarlabError, match="Did you mean sparsevar"):
        tune("nano-infinity", tmp_path / "t", candidates=["sparsvar:keep=0.5"])
    assert not (tmp_path / "t").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "front.csv").write_text("mine")
    with pytest.raises(VarlabError, match="exists"):
        tune("nano-infinity", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["front.csv"]


def test_the_space_holds_what_each_model_can_run() -> None:
    model = load("mini-infinity")
    candidates, baselines = space_of(model)
    for spec in (
        "sparsevar:keep=0.5/0.3,last=2,alpha=none,block=8+cfg-off:last=3",  # keep by stage, guidance off by stage
        "sparsevar:keep=0.7/0.5/1,last=3,alpha=none+truncate:last=1",
        "skipvar:target=0.94+cfg-off:last=3",  # decided image by image
        "freqexit:exits=12x9/10x1",
        "fastvar",
    ):
        assert spec in candidates
    assert len(set(candidates)) == len(candidates)
    assert baselines == baseline_specs(model, model.settings) and not set(candidates) & set(baselines)
    short = space_of(load("nano-infinity"))[0]  # too few stages for decisions
    assert short and not any("skipvar" in spec for spec in short)
    assert not any("cfg-off" in spec for spec in space_of(unguided())[0])


def unguided() -> NextScaleModel:
    model = load("nano-infinity")
    model.settings = replace(model.settings, cfg=1.0)
    return model

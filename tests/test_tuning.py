"""Tuning: chosen on one half of the prompts, reported on the other, resumed, honest where nothing is better."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from varlab.comparison.baselines import baseline_specs
from varlab.errors import VarlabError
from varlab.figures.tuning import front
from varlab.studies.tuning import halving, space_of, tune
from varlab.weights.zoo import load

CANDIDATES = ["sparsevar:keep=0.7,last=1", "sparsevar:keep=0.3,last=2", "random-tokens:keep=0.5,last=1"]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        halving, "space_of", lambda _: ([], ["none", "truncate:last=1", "truncate:last=2", "cfg-off:last=2"])
    )


def test_what_is_chosen_on_one_half_is_reported_on_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tune("nano-infinity", tmp_path / "t", n=16, candidates=CANDIDATES, works=(0.9,))
    chosen = [pd.read_csv(tmp_path / "t" / f"choose-{i}" / "prompts.csv") for i in range(3)]
    held = pd.read_csv(tmp_path / "t" / "report" / "prompts.csv")
    assert [sorted(rows.prompt.unique()) for rows in chosen] == [[0, 1], [2, 3], [4, 5, 6, 7]]
    assert sorted(held.prompt.unique()) == list(range(8, 16))
    counts = [len(set(rows.method) & set(CANDIDATES)) for rows in chosen]
    assert counts == [3, 2, 1] and made.table.n.eq(8).all()
    (answer,) = made.answers.to_dict("records")
    own = held[held.method == answer["candidate"]].sort_values("prompt").ssim.to_numpy()
    shares = [part.split(" % ") for part in answer["rival"].split(" and ")]
    rival = sum(
        float(share) / 100 * held[held.method == name].sort_values("prompt").ssim.to_numpy() for share, name in shares
    )
    assert answer["difference"] == pytest.approx(np.mean(own - rival), abs=0.01)
    assert (made.recommended is None) == (answer["low"] <= 0)
    assert front(made.table, made.facts).get_xlabel() == "work over dense"
    monkeypatch.setattr("varlab.sweeps.run.connected", lambda *_: pytest.fail("all of it was there"))
    again = tune("nano-infinity", tmp_path / "t", n=16, candidates=CANDIDATES, works=(0.9,))
    pd.testing.assert_frame_equal(again.answers, made.answers)


def test_the_worse_half_goes_and_the_front_decides() -> None:
    works = pd.Series({"none": 1.0, "truncate:last=1": 0.5, "a": 0.5, "b": 0.7, "c": 0.6, "d": 0.55})
    means = pd.Series({"none": 1.0, "truncate:last=1": 0.9, "a": 0.95, "b": 0.5, "c": 0.9, "d": 0.2})
    values = pd.DataFrame({0: means, 1: means})
    assert halving._better_half(works, values, ["a", "b", "c", "d"]) == ["a", "c"]
    assert halving._finalists(works, means, ["a", "c"], (0.3, 0.6)) == ["a"]


def test_inputs_are_refused_before_any_work(tmp_path: Path) -> None:
    for given in ({"n": 8}, {"works": (1.5,)}):
        with pytest.raises(VarlabError):
            tune("nano-infinity", tmp_path / "t", **given)  # type: ignore[arg-type]
    with pytest.raises(VarlabError, match="Did you mean sparsevar"):
        tune("nano-infinity", tmp_path / "t", candidates=["sparsvar:keep=0.5"])
    assert not (tmp_path / "t").exists()


def test_the_space_holds_compositions_and_all_baselines() -> None:
    model = load("nano-infinity")
    candidates, baselines = space_of(model)
    assert "sparsevar:keep=0.49,last=2+cfg-off:last=3" in candidates and len(set(candidates)) == len(candidates)
    assert baselines == baseline_specs(model, model.settings) and not set(candidates) & set(baselines)

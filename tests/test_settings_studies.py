"""Studies of settings: resumed whole, refused when they are another's, equal to what ``compare`` measures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import varlab as vl
from tests.minis import nano  # noqa: F401  (a fixture)
from varlab.accelerators.decisions import always, save
from varlab.analysis.settings_table import read_settings_table
from varlab.cli import app
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.scenes.prompt_sets import dealt, digest_of
from varlab.studies.settings import draw, plans
from varlab.studies.settings.command import check_studies
from varlab.studies.settings.plans import Plan

SPECS = ("none", "truncate:last=1", "sparsevar:keep=0.5,last=1", "skipvar:target=0.01")


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minis that ship, and not that of ``nano``."""
    monkeypatch.delenv("VARLAB_DATA", raising=False)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "plan_of", lambda study, job, full: Plan(SPECS, {"keep": [0.5]}))


def test_a_study_is_what_compare_measures(nano: NextScaleModel, tmp_path: Path, short: None) -> None:
    found = draw.draw_study(nano, "methods", tmp_path, n=3, seed=5)
    assert found.specs == list(SPECS[:3])
    assert list(found.facts["left_out"]) == [SPECS[3]]  # no decision model aims at .01
    compared = vl.compare(nano, "scenes", SPECS[1:3], n=3, seed=5, batch=3, frontier=False)
    for spec in SPECS[1:3]:
        expected = compared.prompts[compared.prompts.method == spec].ssim.to_numpy()
        assert np.allclose(found.values("ssim", spec).to_numpy()[0], expected, atol=1e-5)
        assert found.works[spec] == pytest.approx(compared.table.work_ratio[spec], abs=1e-5)
    assert found.table().computed[SPECS[2]] == pytest.approx(0.5, abs=0.02)


def test_no_prompt_of_a_study_was_fitted_on_by_its_decision_model(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, _ = dealt("scenes", 20, 5, 3)
    facts = {"prompt_set": "scenes", "n": 20, "held_out": 5, "seed": 3, "texts": digest_of(seen)}
    one = replace(always(1, 0), target=0.86, facts=facts)
    save(tmp_path / "skipvar.json", {0.86: one, 0.88: replace(one, target=0.88, facts={})})
    specs = [f"skipvar:target={target},model={tmp_path}/skipvar.json" for target in (0.86, 0.88)]
    monkeypatch.setattr(draw, "plan_of", lambda study, job, full: Plan((*SPECS[:3], specs[0])))
    found = draw.draw_study(nano, "methods", tmp_path / "study", n=3)
    assert vl.prompts("scenes", n=3).texts != found.facts["prompts"]  # two of these were fitted on
    assert found.facts["prompts"] == [text for text in vl.prompts("scenes").texts if text not in seen][:3]
    assert found.facts["fitted"] == {"texts": 20}
    monkeypatch.setattr(draw, "plan_of", lambda study, job, full: Plan((*SPECS[:3], *specs)))
    assert draw.draw_study(nano, "methods", tmp_path / "unknown", n=1).facts["fitted"]["texts"] is None
    with pytest.raises(VarlabError, match=r"only \d+ were not fitted on .* Ask for fewer: --n \d+"):
        draw.draw_study(nano, "methods", tmp_path / "many", n=len(vl.prompts("scenes")))
    assert not (tmp_path / "many").exists()


def test_a_study_goes_on_where_it_stopped(nano: NextScaleModel, tmp_path: Path, short: None) -> None:
    draw.draw_study(nano, "methods", tmp_path / "whole", n=2)
    draw.draw_study(nano, "methods", tmp_path / "again", n=2)
    cut = tmp_path / "again" / "methods.csv"
    rows = pd.read_csv(cut)
    rows[rows.spec.isin(SPECS[:2])].to_csv(cut, index=False)
    draw.draw_study(nano, "methods", tmp_path / "again", n=2)
    assert cut.read_bytes() == (tmp_path / "whole" / "methods.csv").read_bytes()


def test_settings_drawn_together_are_those_drawn_alone(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taus = [f"sparsevar:tau=0.9,last={last},block={block}" for last, block in ((2, 0), (3, 0), (2, 1))]
    specs = ("none", "cfg-off:last=2", taus[0], "fastvar", *taus[1:])
    monkeypatch.setattr(draw, "plan_of", lambda study, job, full: Plan(specs))
    for size in (8, 1):
        monkeypatch.setattr(draw, "TOGETHER", size)
        draw.draw_study(nano, "methods", tmp_path / str(size), n=2)
    together, alone = ((tmp_path / str(size) / "methods.csv").read_bytes() for size in (8, 1))
    assert together == alone and len(together.splitlines()) == 1 + 2 * len(specs)


def test_another_study_is_refused_and_a_damaged_one_named(nano: NextScaleModel, tmp_path: Path, short: None) -> None:
    draw.draw_study(nano, "methods", tmp_path, n=2)
    with pytest.raises(VarlabError, match=r"asked for is .* n 2, seed 8"):
        draw.draw_study(nano, "methods", tmp_path, n=2, seed=8)
    path = tmp_path / "methods.csv"
    path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n")
    with pytest.raises(VarlabError, match=r"damaged \(prompts of .* are missing"):
        read_settings_table(tmp_path, "methods")
    assert draw.draw_study(nano, "methods", tmp_path, n=2, seed=8, overwrite=True).facts["seed"] == 8


def test_the_coarse_grid_has_every_value_of_every_axis(shipped: None) -> None:
    nano = vl.load("nano-infinity")
    job, _ = draw.job_of(nano, "scenes", 2, 0, {})
    plan = plans.plan_of("sparsevar", job)
    axes, stages, depth = plan.axes, len(nano.schedule), nano.depth
    assert axes["last"] == list(range(1, stages)) and axes["block"] == list(range(depth))
    assert axes["alpha"] == [2, 3, 4, 5, None] and axes["tau"] == [0.4, 0.5, 0.6, 0.7]
    matched: Any = axes["matched tau"]
    assert sorted(matched) == matched  # fewer tokens kept, a higher threshold
    crossed = {f"sparsevar:tau={t:g},alpha={a or 'none'},last=3" for t in (*matched, *plans.TAUS) for a in plans.ALPHAS}
    pruned = {f"sparsevar:keep=0.27,last={last},block={block}" for last in axes["last"] for block in axes["block"]}
    blind = {f"random-tokens:keep=0.27,last={last}" for last in axes["last"]}
    assert crossed | pruned | blind <= set(plan.specs)
    whole = plans.plan_of("sparsevar", job, full=True)
    assert set(plan.specs) <= set(whole.specs)
    assert len(whole.specs) - len(plan.specs) >= 6 * 5 * (stages - 1) * depth


def test_mistakes_are_told_before_any_work(tmp_path: Path, shipped: None) -> None:
    for words, match in (
        (["nano-infinity", "method"], "methods"),
        (["nano-infinity", "exits"], "no study of infinity models"),
        (["mini-var", "--full"], "--full is for the study sparsevar"),
        (["nano-infinity", "--n", "0"], "n"),
        (["nano-infinit"], "nano-infinity"),
    ):
        result = CliRunner().invoke(app, ["evidence", *words, "--out", str(tmp_path / "new")])
        assert isinstance(result.exception, VarlabError) and match in str(result.exception)
    assert not (tmp_path / "new").exists()
    assert check_studies((), "var", False) == ["exits"]


def test_the_record_says_how_it_was_made(nano: NextScaleModel, tmp_path: Path, short: None) -> None:
    draw.draw_study(nano, "methods", tmp_path, n=2, command="varlab evidence nano-infinity")
    facts = json.loads((tmp_path / "methods.json").read_text())
    assert {"model", "weights", "n", "seed", "device", "precision", "git", "command", "settings"} <= facts.keys()

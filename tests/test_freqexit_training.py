"""FreqExit training on a tiny mini: recipes by name, exact resume, refusals that lose nothing, the ablation table."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

import varlab as vl
from tests.minis import make_mini, refused
from tests.test_class_quality import few_features  # noqa: F401  (a fixture)
from tests.tiny_var_mini import train_tiny_var
from varlab.errors import VarlabError
from varlab.evaluation.class_card import write_class_card
from varlab.outputs import read_facts as facts_of
from varlab.schedules import square
from varlab.studies.exits.ablation import Ablation, ablate
from varlab.training.freqexit import CORRECTED, OFFICIAL
from varlab.training.freqexit.command import plan_of
from varlab.training.freqexit.losses import Balance
from varlab.training.freqexit.pipeline import Plan, export_freqexit, train_freqexit
from varlab.training.freqexit.recipes import BASES, FineTuning, freqexit_recipe
from varlab.training.freqexit.task import FreqExitTask, new_objective
from varlab.training.loop import Loop, Progress
from varlab.weights.embedded import load_mini, read_facts

PLAN = Plan("tiny-var", steps=8, batch=4, pool=30)


def silent(progress: Progress) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("freqexit")
    train_tiny_var(folder / "run", folder / "data")
    make_mini(folder / "data" / "tiny-infinity")
    return folder / "data"


@pytest.fixture(autouse=True)
def place(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("VARLAB_DATA", str(data))
    yield


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "log.csv").open()))


# Recipes


def test_recipes_by_name_and_by_switch() -> None:
    assert freqexit_recipe("official").losses == OFFICIAL and freqexit_recipe("corrected").losses == CORRECTED
    one = freqexit_recipe("official:hf_layout=transposed,fgsr_trainable=true,kd_last=none")
    assert one.losses == replace(OFFICIAL, hf_layout="transposed", fgsr_trainable=True, kd_last=None)
    refused(lambda: freqexit_recipe("oficial"), "FreqExit recipe", "official")
    refused(lambda: freqexit_recipe("corrected:hf_layuot=raw"), "hf_layout")
    refused(lambda: plan_of("tiny-var", "corrected:hf_layout=sideways"), "transposed")
    assert plan_of("tiny-var", "plain", 3, pool=9, learning_rate=2e-3) == Plan(
        "tiny-var", "plain", seed=3, pool=9, learning_rate=2e-3
    )
    for rate in (0.0, -1.0, math.nan, math.inf):
        refused(partial(plan_of, "tiny-var", "plain", learning_rate=rate), "positive and finite")


def test_single_terms_are_what_their_names_say() -> None:
    terms = ("early", "distillation", "frequency", "reconstruction")
    on = {name: {t for t in terms if getattr(base.losses, t)} for name, base in BASES.items()}
    assert on["layerskip"] == {"early"} and on["plain"] == set() and on["corrected"] == set(terms)
    assert all(on[f"only-{t}"] == {t} for t in terms[1:])
    assert not BASES["plain"].exits and BASES["layerskip"].losses.needs_teacher is False


def test_the_rate_follows_the_released_schedule() -> None:
    loop = FineTuning(steps=111, learning_rate=1.0, warmup=10)
    assert loop.rate(0) == pytest.approx(0.1) and loop.rate(10) == loop.rate(15) == 1.0
    assert loop.rate(110) == pytest.approx(0.01) and loop.rate(60) == pytest.approx(1 - 0.99 * 0.45 / 0.95)


def test_running_means_start_at_the_first_value_and_are_kept() -> None:
    balance = Balance()
    values = {"main": 3.0, "early": 3.0, "distillation": 3.0, "frequency": 0.5}
    assert balance.scale(values) == pytest.approx(0.3 * 3 / 0.5, rel=1e-4)
    again = Balance()
    again.load_state_dict(balance.state_dict())
    later = values | {"frequency": 1.0}
    assert again.scale(later) == balance.scale(later) == pytest.approx(0.3 * 3 / 0.55, rel=1e-4)


# Runs


@pytest.mark.parametrize("recipe", sorted(BASES))
def test_every_recipe_trains_and_exports(recipe: str, tmp_path: Path) -> None:
    plan = replace(PLAN, recipe=recipe, steps=4)
    assert train_freqexit(plan, tmp_path, 1, "cpu", silent)
    run = tmp_path / plan.label
    log = pd.read_csv(run / "log.csv") if (run / "log.csv").exists() else None
    assert log is not None and log["step"].tolist() == [4] and (run / "progress.png").stat().st_size > 1000
    export_freqexit(plan, tmp_path, tmp_path / "mini")
    (base, before), (parts, facts) = load_mini(_base()), load_mini(tmp_path / "mini")
    assert facts.extra["freqexit"]["recipe"] == recipe and facts.extra["fine_tuned_from"]["weights"] == before.weights
    assert facts.extra["freqexit"]["losses"] == asdict(freqexit_recipe(recipe).losses)
    trained, given = parts.transformer.get_parameter("head.weight"), base.transformer.get_parameter("head.weight")
    assert (trained - given).abs().max() > 0
    old, new = base.tokenizer.state_dict(), parts.tokenizer.state_dict()
    assert old and all(torch.equal(new[name], old[name]) for name in old)


def _base() -> Path:
    import os

    return Path(os.environ["VARLAB_DATA"]) / "tiny-var"


def test_a_cut_run_ends_as_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_freqexit(PLAN, tmp_path / "whole", 1, "cpu", silent)
    update = Loop._update

    def crashing(self: Loop) -> dict[str, float]:
        if self.step == 6:
            self.save()
            raise RuntimeError("power cut")
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_update", crashing)
        with pytest.raises(RuntimeError, match="power cut"):
            train_freqexit(PLAN, tmp_path / "cut", 1, "cpu", silent)
    assert train_freqexit(PLAN, tmp_path / "cut", 1, "cpu", silent)
    states = [torch.load(tmp_path / which / PLAN.label / "state.pt", weights_only=True) for which in ("whole", "cut")]
    for part in ("module", "average"):
        assert all(torch.equal(states[0][part][key], value) for key, value in states[1][part].items())
    assert states[0]["module"]["objective.balance.means"].isfinite().all()  # the frequency term was on


def test_nan_stops_with_the_last_good_state_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = FreqExitTask.loss

    def broken(self: FreqExitTask, step: int, rank: int) -> tuple[torch.Tensor, dict[str, float]]:
        value, figures = loss(self, step, rank)
        if step == 3:
            Loop.save(loops[0])
        return (value * math.nan if step == 5 else value), figures

    loops: list[Loop] = []
    start = Loop.__init__

    def remember(self: Loop, *arguments: object) -> None:
        start(self, *arguments)  # type: ignore[arg-type]
        loops.append(self)

    monkeypatch.setattr(Loop, "__init__", remember)
    monkeypatch.setattr(FreqExitTask, "loss", broken)
    with pytest.raises(VarlabError, match="not finite at step 5"):
        train_freqexit(PLAN, tmp_path, 1, "cpu", silent)
    kept = torch.load(tmp_path / PLAN.label / "state.pt", weights_only=True)
    assert kept["step"] == 3 and all(
        v.isfinite().all() for k, v in kept["module"].items() if "bias_for" not in k and "means" not in k
    )


def test_what_cannot_be_trained_is_refused_before_any_work(tmp_path: Path) -> None:
    refused(lambda: train_freqexit(replace(PLAN, model="tiny-infinity"), tmp_path, 1, "cpu", silent), "VAR mini")
    refused(lambda: train_freqexit(replace(PLAN, model="var-d16"), tmp_path, 1, "cpu", silent), "VAR mini")
    refused(lambda: train_freqexit(replace(PLAN, recipe="none"), tmp_path, 1, "cpu", silent), "recipe")
    assert not any(tmp_path.iterdir())
    assert train_freqexit(replace(PLAN, steps=2), tmp_path, 1, "cpu", silent)
    refused(lambda: train_freqexit(replace(PLAN, steps=3), tmp_path, 1, "cpu", silent), "another run", "--folder")


def test_the_official_recipe_insists_on_ten_stages() -> None:
    from varlab.models.var import VARConfig, VARTransformer

    short = VARTransformer(VARConfig(4, 32, 2, classes=3, codes=8, code_width=4, sides=(1, 2, 3, 4)))
    refused(lambda: new_objective(BASES["official"], short), "stages 6 to 10", "has 4")
    assert new_objective(BASES["corrected"], short).frequency.stages == (2, 3)
    assert len(square((1, 2, 3, 4), "short")) == 4


@pytest.mark.usefixtures("few_features")
def test_the_card_of_a_class_mini_is_written_from_its_records() -> None:
    path = write_class_card(vl.load("tiny-var"), n=18)
    text, card = path.read_text(), json.loads((path.parent / "card.json").read_text())
    assert card["weights"] == vl.load("tiny-var").weights and card["weights"] in text
    assert [row["source"] for row in card["rows"]] == ["none", "freqexit:exits=2", "reconstructions", "other scenes"]
    assert "| full depth |" in text and "no FID" in text and "a white cross" in text
    for name in ("samples.png", "curves.png", "README.md", "."):
        facts = facts_of(path.parent / name)
        assert facts["weights"] == card["weights"] and facts["versions"]["varlab"] and facts["date"] == card["date"]


# Ablation


@pytest.mark.slow
def test_the_ablation_resumes_and_its_table_says_what_it_compares(tmp_path: Path) -> None:
    small = replace(PLAN, steps=2)
    asked = Ablation(small, ("layerskip", "corrected"), (0,), ("2",), n=90, resamples=10)
    first = replace(asked, recipes=("layerskip",))
    assert ablate(first, tmp_path / "runs", tmp_path / "out", 1, "cpu", silent)
    notes: list[str] = []
    assert ablate(asked, tmp_path / "runs", tmp_path / "out", 1, "cpu", silent, notes.append)
    assert not any("untrained" in note or "layerskip-seed0: 90" in note for note in notes)  # made once
    table = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert table.recipe.tolist() == ["untrained", "corrected", "layerskip"] and set(table.exits) == {2}
    refused(lambda: ablate(replace(asked, n=91), tmp_path / "runs", tmp_path / "out", 1, "cpu", silent), "exists")
    own, rival = (table.set_index("recipe").loc[name] for name in ("corrected", "layerskip"))
    assert own.less_layerskip == pytest.approx(own.scattering_frechet - rival.scattering_frechet, abs=1e-4)
    assert math.isnan(rival.less_layerskip) and own.less_untrained_low <= own.less_untrained_high
    assert set(table.n) == {90} and table.weights.nunique() == 3
    assert read_facts(tmp_path / "runs" / "corrected-seed0" / "mini").extra["freqexit_steps"] == 2
    elsewhere = replace(asked, recipes=("plain",), exits=("3",))  # a folder of its own, as on another machine
    assert ablate(elsewhere, tmp_path / "other", tmp_path / "out", 1, "cpu", silent)
    grown = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert grown.recipe.tolist() == ["untrained", "untrained", "corrected", "layerskip", "plain"]
    assert grown.exits.tolist() == [2, 3, 2, 2, 3] and not math.isnan(grown.less_untrained.iloc[-1])
    former = grown[grown.exits == 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(former, table, check_dtype=False)
    alone = replace(asked, recipes=("corrected",))  # its folder lacks the run that its row is compared with
    assert ablate(alone, tmp_path / "alone", tmp_path / "out", 1, "cpu", silent)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "ablation.csv"), grown)
    held = grown.assign(weights=grown.weights.where(grown.recipe != "plain", "trained elsewhere"))
    held.to_csv(tmp_path / "out" / "ablation.csv", index=False)
    assert ablate(elsewhere, tmp_path / "other", tmp_path / "out", 1, "cpu", silent, notes.append)
    kept = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert kept.weights.tolist() == held.weights.tolist() and "keeps its row of another run" in notes[-1]

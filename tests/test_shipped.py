"""What ships: the minis keep their promises, their cards are about their weights, the notebooks run on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import varlab as vl
from tests.notebook_cells import run_cells
from varlab.measures.statistics import FEWEST
from varlab.reports import list_notebooks, notebook_parameters, run_report
from varlab.scenes import SCENE_VERSION, TEXTURED, VOCABULARY
from varlab.studies.exits.detail import detail_removed, halves
from varlab.studies.exits.quality import exit_quality, scaled_rows
from varlab.studies.kept import kept
from varlab.training.var import class_names
from varlab.weights.embedded import data_folder, mini_folders

LIMITS = {
    "nano-infinity": 12e6,
    "mini-infinity": 30e6,
    "mini-hart": 20e6,
    "mini-infinity-textured": 30e6,
    "mini-hart-textured": 20e6,
    "mini-var": 12e6,
    "mini-var-freqexit": 12e6,
}  # bytes
EXITS = ("05_exit_motivation", "13_freqexit")  # of class-conditional minis, on more images than distances have features
Shown = tuple[tuple[str, str, float], ...]  # of each claim: a word, the verdict, its first number
SHOWN: dict[str, Shown] = {
    "01_residual_spectra": (
        ("residuals concentrate", "does not hold", 0.227),
        ("picture changes", "holds", 0.935),
        ("High frequencies", "holds", 0.407),
    ),
    "02_block_token_mse": (("different regions", "too few", 0.348),),  # chosen on one half, measured on the other
    "03_branch_divergence": (("shrinks", "cannot be told", -0.009), ("minimal", "cannot be told", 0.051)),
    "04_step_redundancy": (("saturates", "holds or cannot be told", 0.913),),  # the interval ends at the threshold
}  # mini-infinity, seed 0
COMPARED: Shown = (("sparsevar", "does not hold", -0.019), ("fastvar", "does not hold", -0.050))  # nano-infinity


@pytest.fixture(params=mini_folders())
def folder(request: pytest.FixtureRequest) -> Path:
    return data_folder() / request.param


def test_a_mini_keeps_its_promises(folder: Path) -> None:
    facts = json.loads((folder / "model.json").read_text())
    assert (folder / "model.safetensors").stat().st_size <= LIMITS[folder.name]
    words = class_names() if facts["family"] == "var" else VOCABULARY
    assert facts["scene_version"] == (TEXTURED if folder.name.endswith("-textured") else SCENE_VERSION)
    assert tuple(facts["vocabulary"]) == words
    model = vl.load(folder.name)
    assert model.weights == f"trained (varlab {folder.name}, {facts['weights']})"
    a, b = vl.sample(model, ["a red star"], seed=1), vl.sample(model, ["a red star"], seed=1)
    assert np.array_equal(a.images[0], b.images[0])


def test_a_card_is_about_these_weights(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    text = (folder / "README.md").read_text()
    assert card["weights"] == vl.load(folder.name).weights and card["weights"] in text
    facts = json.loads((folder / "model.json").read_text())
    logs = [f"training/{part}.csv" for part in ("tokenizer", "transformer", "freqexit") if f"{part}_steps" in facts]
    for path in ("samples.png", "curves.png", *logs):
        assert logs and (folder / path).stat().st_size > 0
    if "scores" not in card:  # of classes: a table of distances
        assert {row["source"] for row in card["rows"]} >= {"none", "reconstructions", "other scenes"}
        return
    for name in ("samples", "reconstructions", "ground truth"):
        scores = card["scores"][name]
        categories = [row["mean"] for key, row in scores.items() if key != "overall"]
        assert np.isclose(scores["overall"]["mean"], np.mean(categories), atol=2e-4)
        assert scores["overall"]["low"] <= scores["overall"]["mean"] <= scores["overall"]["high"]
        assert f"{scores['overall']['mean']:.3f} [" in text


def test_tables_that_ship_are_those_of_the_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other weights or inputs they would be measured: then the notebook's run makes them anew (docs/weights.md)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("varlab.studies.kept.one_writer", lambda _: pytest.fail("it was measured"))
    n, plain, tuned = 96, vl.load("mini-var"), vl.load("mini-var-freqexit")
    for name, count in zip(EXITS, ("removal_n", "n"), strict=True):
        declared = notebook_parameters(list_notebooks()[name])
        assert (declared[count].default, declared["seed"].default) == (n, 0)
    removed = kept(detail_removed, plain, halves(plain), n, 0)
    assert list(removed.table.removed) == ["nothing", *halves(plain)] and set(removed.table.n) == {n}
    quality = kept(exit_quality, {"untrained exit": plain, "FreqExit": tuned}, list(scaled_rows(plain)), n, 0)
    assert quality.facts["weights"] == f"{plain.weights}; {tuned.weights}"
    full = quality.table[quality.table.exits == str(plain.depth)].set_index("weights").class_accuracy
    assert full["untrained exit"] > 0.9 > full["FreqExit"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", EXITS)
def test_the_notebooks_on_exits_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    declared = notebook_parameters(list_notebooks()[name])
    few = {"n": 90 if name.startswith("13") else 3, "removal_n": 90, "rounds": 1, "batch": 2}
    report = run_report(name, {key: value for key, value in few.items() if key in declared}, tmp_path)
    facts = json.loads((report.folder / "facts.json").read_text())
    assert (
        "mini-var" in facts["model"]
        and facts["weights"].startswith("trained")
        and len(facts["verdicts"]) == (6 if name.startswith("13") else 4)
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the shipped mini-infinity that all motivation notebooks open."""
    return tmp_path_factory.mktemp("shipped") / "run"


@pytest.mark.parametrize("name", SHOWN)
def test_the_notebooks_show_what_they_showed(name: str, run_folder: Path, tmp_path: Path) -> None:
    """The least prompts that a verdict takes, on the shipped weights; other prompts may say other things."""
    given = {"n": FEWEST, "run_folder": str(run_folder), "map_prompts": [1], "control_n": 2}
    declared = notebook_parameters(list_notebooks()[name])
    ran = run_cells(name, {key: value for key, value in given.items() if key in declared}, tmp_path)
    assert ran.facts["weights"] == vl.load("mini-infinity").weights and ran.facts["n"] == FEWEST
    for kind in ("png", "pdf"):
        assert len(list(tmp_path.glob(f"*.{kind}"))) == ran.asked > 0
    assert_shown(ran.facts["verdicts"], SHOWN[name])


def assert_shown(verdicts: list[dict[str, Any]], known: Shown) -> None:
    """The claims by a word of each, what is found of them, and that the number known lies in the interval found."""
    assert len(verdicts) == len(known)
    for found, (word, outcome, estimate) in zip(verdicts, known, strict=True):
        assert word in found["claim"] and found["verdict"] in outcome.split(" or "), found
        assert found["numbers"][0]["low"] <= estimate <= found["numbers"][0]["high"], found


def test_a_comparison_shows_what_it_showed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the smallest shipped mini. The tutorial's report goes through the runner, with its kernel and its page."""
    monkeypatch.chdir(Path(__file__).parents[1])
    methods = "sparsevar:keep=0.5,last=2 fastvar-all-scales:ratios=0.5"
    given = {"model": "nano-infinity", "methods": methods, "n": FEWEST, "timed": 3, "seed": 0}
    facts = run_cells("20_compare", given, tmp_path).facts
    assert facts["weights"] == vl.load("nano-infinity").weights and facts["n"] == FEWEST
    assert {".pdf", ".png", ".csv"} <= {path.suffix for path in tmp_path.iterdir()}
    assert_shown(facts["verdicts"], COMPARED)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SHOWN, "20_compare"])
def test_the_reports_of_the_shipped_model_are_made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    report = run_report(name, {"n": FEWEST}, tmp_path / "reports")
    facts = json.loads((report.folder / "facts.json").read_text())
    assert facts["weights"] == vl.load("mini-infinity").weights and facts["verdicts"]
    assert facts["verdicts"][0]["claim"] in report.html.read_text()
    assert {".html", ".ipynb", ".pdf", ".png", ".csv"} <= {path.suffix for path in report.folder.iterdir()}

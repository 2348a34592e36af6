"""What ships: the minis keep their promises, their cards are about their weights, the notebooks run on them."""

import json
from pathlib import Path

import numpy as np
import pytest

import varlab as vl
from varlab.claims import Verdict
from varlab.reports import list_notebooks, notebook_parameters, run_report
from varlab.scenes import VOCABULARY
from varlab.training.var import class_names
from varlab.weights.embedded import SCENE_VERSION, data_folder, mini_folders

LIMITS = {
    "nano-infinity": 12e6,
    "mini-infinity": 30e6,
    "mini-hart": 12e6,
    "mini-var": 12e6,
    "mini-var-freqexit": 12e6,
}  # bytes
EXITS = ("05_exit_motivation", "13_freqexit")  # of class-conditional minis, on more images than distances have features
METHODS = ("10_sparsevar", "11_skipvar", "12_fastvar", "14_sparsevar_calibration")  # see test_method_notebooks.py


@pytest.fixture(params=mini_folders())
def folder(request: pytest.FixtureRequest) -> Path:
    return data_folder() / request.param


def test_a_mini_keeps_its_promises(folder: Path) -> None:
    facts = json.loads((folder / "model.json").read_text())
    assert (folder / "model.safetensors").stat().st_size <= LIMITS[folder.name]
    words = class_names() if facts["family"] == "var" else VOCABULARY
    assert facts["scene_version"] == SCENE_VERSION and tuple(facts["vocabulary"]) == words
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


def test_the_notebooks_run_and_say_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that read one log of a run, and the comparison, on three prompts; what they conclude is not judged here."""
    monkeypatch.chdir(Path(__file__).parents[1])
    given = {"n": 3, "run_folder": str(tmp_path / "run"), "map_prompts": [1], "control_n": 2}
    for name, notebook in list_notebooks().items():
        if name in EXITS + METHODS:
            continue
        declared = notebook_parameters(notebook)
        chosen = {key: value for key, value in given.items() if key in declared}
        report = run_report(notebook, chosen, tmp_path / "reports")
        facts = json.loads((report.folder / "facts.json").read_text())
        assert facts["weights"] == vl.load(declared["model"].default).weights and facts["n"] == 3, name
        verdicts = [Verdict.read(item) for item in facts["verdicts"]]  # raises for an outcome that is none
        assert verdicts and all(item.claim and item.finding for item in verdicts), name
        kinds = {path.suffix for path in report.folder.iterdir()}
        assert {".html", ".ipynb", ".pdf", ".png", ".csv"} <= kinds
    assert (tmp_path / "reports" / "index.html").exists()

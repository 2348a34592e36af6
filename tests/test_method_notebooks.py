"""The notebooks of the methods, from a fitted decision model to the verdict, on a random mini of ten stages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import varlab as vl
from tests.minis import TEN_STAGES, make_mini, refused
from tests.notebook_cells import run_cells
from varlab.accelerators.decisions import load
from varlab.cli import app
from varlab.comparison import baselines
from varlab.errors import VarlabError
from varlab.report_inputs import check_inputs
from varlab.reports import list_notebooks, notebook_parameters, run_report
from varlab.scenes.prompt_sets import dealt

TEXTS = ["a red star", "a blue ring above a star", "a ring", "a blue star", "a red ring above a blue star", "a star"]
ALIKE = ("11_skipvar", "12_fastvar")  # the cells of 10_sparsevar, on other methods
PICTURES = ("side_by_side", "difference", "difference_spectrum", "stage_pictures", "tradeoff")
FEW = "sparsevar:tau=0.6 sparsevar:keep=0.49"  # of the notebook's five
BASELINES = ["none", "truncate:last=1", "truncate:last=2", "cfg-off:last=2"]
FIGURES = {
    "10_sparsevar": {"keep_maps", *PICTURES},
    "11_skipvar": {"decisions", "sensitive_prompts", *PICTURES},
    "12_fastvar": {"keep_maps", *PICTURES},
    "14_sparsevar_calibration": {"readings", "block_edges"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where mini-infinity is a random one with a decision model fitted on it, and a file of prompts that it reads."""
    folder = tmp_path_factory.mktemp("methods")
    mini, texts = folder / "data" / "mini-infinity", folder / "texts.txt"
    make_mini(mini, schedule=TEN_STAGES)
    texts.write_text("\n".join(TEXTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VARLAB_DATA", str(folder / "data"))
        patch.chdir(Path(__file__).parents[1])
        run("calibrate", "skipvar", "mini-infinity", "--n", "4", "--held-out", "2", "--out", mini, texts=texts)
        yield folder


def run(*words: object, texts: Path) -> str:
    done = CliRunner().invoke(app, [*map(str, words), "--prompts", str(texts)])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_decision_models_know_how_good_they_are(place: Path) -> None:
    fitted = load(place / "data" / "mini-infinity" / "skipvar.json", 0.86)
    assert fitted.stages == 10 and fitted.facts["accuracy"][0]["n_held_out"] == 2


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in FIGURES]
)
def test_a_notebook_runs_and_says_what_it_shows(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "baseline_specs", lambda *_: BASELINES)  # the whole grid is drawn elsewhere
    folder = place / name
    few: dict[str, Any] = {} if name == "14_sparsevar_calibration" else {"timed": 2}
    few |= {"methods": FEW} if name == "10_sparsevar" else {}
    ran = run_cells(name, {"prompt_set": str(place / "texts.txt"), "n": 3, **few}, folder)
    facts = ran.facts
    assert facts["weights"].startswith("trained (varlab mini-infinity") and facts["n"] == 3
    assert facts["verdicts"] and all(item["verdict"] for item in facts["verdicts"])
    for kind in ("pdf", "png", "csv"):
        claims = {f"claim_{i}" for i in range(1, 1 + len(facts["verdicts"]))}
        assert {path.stem for path in folder.glob(f"*.{kind}")} == FIGURES[name] | claims
    judged = [item for item in facts["verdicts"] if "the decision (drop) beats one fixed answer" in item["claim"]]
    assert len(judged) == (3 if name == "11_skipvar" else 0)  # of 2 held-out prompts, by target
    assert all("(" in item["finding"] and item["finding"].endswith("n = 2.") for item in judged)


@pytest.mark.slow  # the tutorial and 20_compare go through the runner and its kernel
def test_its_report_has_a_page(place: Path) -> None:
    """The runner, its kernel and its page, on the notebook that asks least; all others are run the same way."""
    name = "14_sparsevar_calibration"
    report = run_report(list_notebooks()[name], {"prompt_set": str(place / "texts.txt"), "n": 3}, place / "reports")
    facts = json.loads((report.folder / "facts.json").read_text())
    assert facts["verdicts"] and facts["verdicts"][0]["claim"] in report.html.read_text()
    assert "Not to be concluded from" in report.html.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_every_report_has_a_page(place: Path, name: str) -> None:
    given = {"prompt_set": str(place / "texts.txt"), "n": 3}
    page = run_report(list_notebooks()[name], given, place / "slow").html.read_text()
    assert ("other hardware" in page) == (name != "14_sparsevar_calibration")


def _file(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(texts))
    return path


def test_a_comparison_says_that_it_shows_what_the_decision_was_fitted_on(place: Path) -> None:
    asked = ("compare", "mini-infinity", "skipvar:target=0.86", "--n", "2", "--batch", "2", "--no-frontier")
    texts = place / "texts.txt"
    seen, unseen = dealt(str(texts), 4, 2, 0)
    assert "2 of these 2 prompts are among the 4" in run(*asked, texts=_file(place / "seen.txt", seen))
    assert "was fitted on" not in run(*asked, texts=_file(place / "unseen.txt", unseen))


def test_a_decision_model_of_other_weights_is_refused(place: Path) -> None:
    texts = str(place / "texts.txt")
    asked = ("compare", "mini-infinity", "skipvar:target=0.86", "--n", "2", "--prompts", texts, "--init", "random")
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, VarlabError) and "varlab calibrate skipvar" in str(done.exception)
    assert "not on random (seed 0)" in str(done.exception)


def test_what_a_notebook_would_fail_on_is_told_before(place: Path) -> None:
    def check(name: str, **given: object) -> None:
        declared = {key: value.default for key, value in notebook_parameters(list_notebooks()[name]).items()}
        check_inputs(declared, {"prompt_set": str(place / "texts.txt"), "n": 3, **given})

    check("11_skipvar")
    refused(lambda: check("11_skipvar", targets=[0.5]), "holds targets 0.84")
    refused(lambda: check("11_skipvar", decision_model="gone.json"), "no decision model gone.json")
    fitted = (place / "data" / "mini-infinity" / "skipvar.json").read_text()
    other = place / "other.json"
    other.write_text(fitted.replace("trained (varlab mini-infinity, ", "trained (varlab mini-infinity, 0"))
    refused(lambda: check("11_skipvar", decision_model=str(other)), "fitted on")
    refused(lambda: check("10_sparsevar", shown="sparsvar"), "Did you mean sparsevar")
    refused(lambda: check("12_fastvar", dropping="fastvar:drop=0"), "fastvar-all-scales")


def test_a_prompt_set_is_split_into_two_that_are_prompt_sets(place: Path) -> None:
    told = run("split", "mini-infinity", "--out", place / "halves", texts=place / "texts.txt")
    assert "3 frequency-sensitive prompts" in told
    features = pd.read_csv(place / "halves" / "features.csv").set_index("prompt").hf_diff
    sensitive, robust = (vl.prompts(str(place / "halves" / f"{name}.txt")).texts for name in ("sensitive", "robust"))
    assert sorted(sensitive + robust) == sorted(TEXTS)
    assert features[sensitive].min() >= features[robust].max()

"""The notebooks of the methods, from a fitted decision model to the verdict, on a random mini of ten stages."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.minis import TEN_STAGES, make_mini
from varlab.accelerators.decisions import load
from varlab.cli import app
from varlab.reports import list_notebooks, run_report

TEXTS = ["a red star", "a blue ring above a star", "a ring", "a blue star", "a red ring above a blue star", "a star"]
METHODS = ("10_sparsevar", "11_skipvar", "12_fastvar", "14_sparsevar_calibration")
FIGURES = {
    "10_sparsevar": {"keep_maps", "side_by_side", "difference", "difference_spectrum", "tradeoff"},
    "11_skipvar": {"decisions", "side_by_side", "difference", "difference_spectrum", "tradeoff"},
    "12_fastvar": {"keep_maps", "side_by_side", "difference", "difference_spectrum", "tradeoff"},
    "14_sparsevar_calibration": {"readings", "block_edges"},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where mini-infinity is a random one, and a file of prompts that it reads."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(Path(__file__).parents[1])
    make_mini(tmp_path / "data" / "mini-infinity", schedule=TEN_STAGES)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    return tmp_path


def test_from_calibration_to_the_reports(place: Path) -> None:
    texts, out = str(place / "texts.txt"), place / "data" / "mini-infinity"
    asked = ["calibrate", "skipvar", "mini-infinity", "--prompts", texts, "--n", "4", "--held-out", "2"]
    done = CliRunner().invoke(app, [*asked, "--out", str(out)])
    assert done.exit_code == 0, done.output
    fitted = load(out / "skipvar.json", 0.86)
    assert fitted.stages == 10 and fitted.facts["accuracy"][0]["n_held_out"] == 2
    for name in METHODS:
        report = run_report(list_notebooks()[name], {"prompt_set": texts, "n": 3}, place / "reports")
        facts = json.loads((report.folder / "facts.json").read_text())
        assert facts["weights"].startswith("trained (varlab mini-infinity") and facts["n"] == 3
        assert facts["verdicts"] and all(item["verdict"] for item in facts["verdicts"])
        assert {path.stem for path in report.folder.glob("*.pdf")} == FIGURES[name]
        assert {path.stem for path in report.folder.glob("*.csv")} == FIGURES[name]
        page = report.html.read_text()
        assert ("other hardware" in page) == (name != "14_sparsevar_calibration")
        assert "to be concluded from this run" in page

"""What README and tutorial show is run as it stands; links lead somewhere; words are few."""

import inspect
import os
import re
import shlex
import subprocess
import tomllib
from glob import glob
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

import varlab as vl
from varlab import comparison, runs
from varlab.cli import app
from varlab.comparison import baselines
from varlab.reports.notebooks import list_notebooks

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/tutorial.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every fenced block that names one."""
    return BLOCK.findall((ROOT / page).read_text())


def run_command(line: str) -> None:
    words = [
        path for word in shlex.split(line, comments=True) for path in (sorted(glob(word)) if "*" in word else [word])
    ]
    assert words[0] == "varlab", line
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, (line, result.output, result.exception)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["none", "truncate:last=1", "truncate:last=2", "cfg-off:last=2"]
    monkeypatch.setattr(baselines, "baseline_specs", lambda *_: few)  # the whole grid is drawn elsewhere
    space: dict[str, object] = {}
    shown = blocks(page)
    assert {language for language, _ in shown} <= {"python", "sh"} and shown
    for language, text in shown:
        if language == "python":
            exec(compile(text, page, "exec"), space)
        for line in text.splitlines() if language == "sh" else ():
            run_command(line)
    plt.close("all")
    reports = list(Path("reports").glob("*/"))
    assert (len(reports) == 1) == (page == "docs/tutorial.md")
    for report in reports:  # a real one through the runner: its page, notebook, figures and tables
        held = {path.suffix for path in report.iterdir()}
        assert {".html", ".ipynb", ".pdf", ".png", ".csv"} <= held and Path("reports/index.html").is_file()


def test_reports_are_called_as_the_command_knows_them() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(r"varlab report (\d\S*)", page.read_text()):
            assert name.strip("`") in list_notebooks(ROOT / "notebooks"), (page, name)


@pytest.mark.parametrize("call", ["sample", "log", "compare", "frontier", "compare_images", "compare_saved"])
def test_a_public_function_names_all_options_that_it_hands_on(call: str) -> None:
    function = getattr(runs, {"log": "log_run"}.get(call, call), None) or getattr(comparison, call)
    words = set(re.findall(r"\w+", getattr(vl, call).__doc__))
    options = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert options and options <= words, options - words


def test_links_lead_to_files() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            made = target == "cli.md"  # by make docs
            assert made or (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_hosted_ci_takes_the_steps_of_the_local_one() -> None:
    hosted = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step["run"].split()[1] for job in hosted.values() for step in job["steps"] if "run" in step]
    local = re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert local and steps == [*local, "docs"]
    (python,) = hosted["test"]["strategy"]["matrix"].values()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert all(SpecifierSet(asked).contains(version) for version in python)


@pytest.mark.parametrize(("user", "told"), [("0", True), ("1000", False)])
def test_make_lab_tells_jupyter_that_root_is_meant(user: str, told: bool, tmp_path: Path) -> None:
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    paths = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    made = subprocess.run(["make", "-n", "lab"], cwd=ROOT, env=os.environ | paths, capture_output=True, text=True)
    (line,) = [line for line in made.stdout.splitlines() if "jupyter lab" in line]
    assert ("--allow-root" in line) == told and line.endswith("notebooks/start/start.ipynb")


def test_the_landing_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 850


@pytest.mark.parametrize("model", ["mini-infinity", "mini-hart"])
def test_the_page_on_tuning_says_what_the_tables_say(model: str) -> None:
    page = (ROOT / "docs" / "tuning.md").read_text()
    answers = pd.read_csv(ROOT / "reports" / "tuning" / model / "answers.csv").dropna(subset="difference")
    assert set(answers.n) == {32} and set(answers.work) == {0.3, 0.45, 0.6}
    for _, row in answers.iterrows():
        low, middle, high = (f"{row[name]:+.4f}".replace("0.", ".", 1) for name in ("low", "difference", "high"))
        assert f"`{row.candidate}` | {row.candidate_work:.3f} | {row.ssim:.3f} |".replace(" 0.", " .") in page
        assert f"{middle} [{low}, {high}]" in page

"""What README and tutorial show is run as it stands; links lead somewhere; words are few."""

import re
import shlex
from glob import glob
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from varlab.cli import app

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
    space: dict[str, object] = {}
    shown = blocks(page)
    assert {language for language, _ in shown} <= {"python", "sh"} and shown
    for language, text in shown:
        if language == "python":
            exec(compile(text, page, "exec"), space)
        for line in text.splitlines() if language == "sh" else ():
            run_command(line)
    plt.close("all")


def test_links_lead_to_files() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            made = target == "cli.md"  # by make docs
            assert made or (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_the_landing_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 850

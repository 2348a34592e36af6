"""What test_cli.py and test_cli_commands.py share."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tests.minis import make_mini
from varlab import cli
from varlab.cli import bench, benchmarks, comparisons, files, folders, methods, options, run, train

GOLDEN = Path(__file__).parent / "goldens" / "infinity_C_small.npz"


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Exit code 2, nothing drawn, and one line on stderr that holds all ``words``."""
        assert self.code == 2, self
        assert self.err.startswith("varlab: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        assert "Traceback" not in self.err + self.out and not self.out.strip()
        for word in words:
            assert word in self.err


Call = Callable[..., Outcome]


def speak_on(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    for room in (options, run, methods, comparisons, benchmarks, train, files, bench, folders):
        if hasattr(room, "console"):
            monkeypatch.setattr(room, "console", console)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own data and checkpoint folders with one mini, and an empty folder to work in."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    make_mini(tmp_path / "data" / "nano-infinity")
    make_mini(tmp_path / "data" / "mini-infinity")  # the reports' own
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    speak_on(monkeypatch, Console(width=80))
    return tmp_path


@pytest.fixture
def varlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["varlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Outcome(int(end.value.code or 0), *capsys.readouterr())

    return call

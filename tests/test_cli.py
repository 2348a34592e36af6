"""The command line: every mistake ends before work, with exit code 2 and one line that names the fix."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.minis import CONFIG, SCHEDULE, TOKENIZER, make_mini, parts
from varlab import cli
from varlab.models import registry
from varlab.models.guidance import Settings
from varlab.models.official import ModelEntry

GOLDEN = Path(__file__).parent / "goldens" / "infinity_C_small.npz"
REPOSITORY = Path(__file__).parents[1]


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


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own data and checkpoint folders with one mini, and an empty folder to work in."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    make_mini(tmp_path / "data" / "nano-infinity")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(cli, "console", Console(width=80))
    return tmp_path


@pytest.fixture
def varlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["varlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Outcome(int(end.value.code or 0), *capsys.readouterr())

    return call


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was started")

    import_module("varlab.api")  # a first import under the patch would keep the forbidden function for good
    for name in names:
        monkeypatch.setattr(name, work)


# Mistakes


MISTAKES = {
    "probe": (["log", "nano-infinity", "--probe", "token-msee"], ["Unknown probe", "Did you mean token-mse?"]),
    "probe option": (["log", "nano-infinity", "--probe", "token-mse:x=1"], ["Unknown option of token-mse 'x'"]),
    "prompt set": (["log", "nano-infinity", "--prompts", "scenes-count"], ["Unknown prompt set", "scenes-counting"]),
    "prompt file": (["log", "nano-infinity", "--prompts", "mine.txt"], ["no prompt file 'mine.txt'", "Known sets"]),
    "no prompts": (["log", "nano-infinity", "--n", "0"], ["at least one prompt"]),
    "accelerator": (["sample", "nano-infinity", "a", "--accelerate", "truncat:last=1"], ["Did you mean truncate?"]),
    "bare option": (["sample", "nano-infinity", "a", "--accelerate", "truncate"], ["Write truncate:last=VALUE."]),
    "empty prompt": (["sample", "nano-infinity", ""], ["Prompt 0 is empty", "for example: a red star"]),
    "blank prompt": (["sample", "nano-infinity", "a star", "  "], ["Prompt 1 is empty"]),
    "notebook": (["report", "01_residual_spectre"], ["Unknown report", "Did you mean 01_residual_spectra"]),
    "parameter": (["report", "01_residual_spectra", "-p", "modle=x"], ["Unknown parameter", "Did you mean model?"]),
    "value": (["report", "01_residual_spectra", "-p", "n=many"], ["Parameter n expects int", "'many'"]),
    "no value": (["report", "01_residual_spectra", "-p", "n16"], ["'n16' is not NAME=VALUE", "-p n=16"]),
    "notebook's model": (["report", "01_residual_spectra", "-p", "model=nano-infinty"], ["Did you mean nano-infinity"]),
    "notebook's n": (["report", "01_residual_spectra", "-p", "n=0"], ["n must be at least 1, not 0"]),
    "notebook's prompts": (["report", "01_residual_spectra", "-p", "prompt_set=scens"], ["Did you mean scenes"]),
    "notebook's cfg": (["report", "01_residual_spectra", "-p", "cfg=nan"], ["cfg must be a finite number"]),
    "seed": (["sample", "nano-infinity", "a", "--seed", "-1"], ["seed must be at least 0, not -1"]),
    "batch": (["log", "nano-infinity", "--batch", "0"], ["batch must be at least 1, not 0"]),
    "scored prompts": (["score", "scenes", "nano-infinity", "--n", "0"], ["n must be at least 1, not 0"]),
    "repeats": (["bench", "--repeats", "0"], ["repeats must be at least 1, not 0"]),
    "out": (["sample", "nano-infinity", "a", "--out", "/proc/x"], ["/proc/x cannot be written in"]),
    "cfg": (["sample", "nano-infinity", "a", "--cfg", "nan"], ["--cfg takes finite numbers"]),
    "steps": (["train", "nano-infinity", "--steps", "0"], ["steps must be at least 1, not 0"]),
    "pool": (["train", "nano-infinity", "--pool", "0"], ["pool must be at least 1, not 0"]),
    "golden": (["parity", GOLDEN, "missing.npz"], ["no golden file missing.npz", "Give the path of a .npz file"]),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_before_any_work(
    varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], words: list[str]
) -> None:
    forbid(
        monkeypatch, "varlab.models.zoo.load", "varlab.reports.run_report", "varlab.parity.check",
        "varlab.training.command.train_command",
    )  # fmt: skip
    varlab(*arguments).refused(*words)
    assert not list((places / "here").iterdir())


def test_unknown_model(varlab: Call, places: Path) -> None:
    varlab("sample", "nano-infinty", "a red star").refused(
        "Unknown model 'nano-infinty'", "Did you mean nano-infinity", f"looked for in {places / 'data'}"
    )
    varlab("log", "infinity-3b").refused("Did you mean", "infinity-2b")
    assert not list((places / "here").iterdir())


def test_official_model_without_weights(varlab: Call, places: Path) -> None:
    varlab("sample", "infinity-125m", "a red star").refused(
        f"infinity_125M_256x256.pth is not in {places / 'checkpoints'}", "--checkpoint PATH or --init random"
    )


def test_pickle_that_could_run_code(varlab: Call, places: Path) -> None:
    bad = places / "bad.pth"
    torch.save({"trainer": {"gpt_fsdp": {}}, "args": argparse.Namespace(depth=4)}, bad)
    varlab("sample", "infinity-125m", "a red star", "--checkpoint", bad, "--tokenizer", bad).refused(
        "was refused", "argparse.Namespace", "If you trust its origin, convert it"
    )
    varlab("sample", "nano-infinity", "a red star", "--checkpoint", bad).refused("no trained mini", "Give the folder")
    varlab("convert", bad, places / "x.safetensors", "--name", "infinity-125m").refused("was refused")
    assert not (places / "x.safetensors").exists()


def test_a_tampered_golden_fails_and_a_whole_one_passes(varlab: Call, places: Path) -> None:
    with np.load(GOLDEN) as file:
        arrays = dict(file)
    arrays["logits_uncond_3"].flat[0] += 0.1
    np.savez(places / "tampered.npz", **arrays)
    whole = varlab("parity", GOLDEN)
    assert whole.code == 0 and "1 of 1 files pass" in whole.out
    both = varlab("parity", GOLDEN, places / "tampered.npz")
    assert both.code == 1 and "FAIL" in both.out and "1 of 2 files pass" in both.out and not both.err


@pytest.mark.parametrize(
    ("arguments", "where", "words"),
    [
        (["log", "nano-infinity", "--n", 1], "varlab.api.log", "varlab: stopped; the same command goes on from here\n"),
        (["sample", "nano-infinity", "a star"], "varlab.api.sample", "varlab: stopped\n"),
    ],
)
def test_ctrl_c_says_whether_the_command_goes_on(
    varlab: Call, monkeypatch: pytest.MonkeyPatch, arguments: list[object], where: str, words: str
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stopped)
    outcome = varlab(*arguments)
    assert outcome.code == 130 and outcome.err == words


# What works


def test_help_does_not_wait_for_heavy_packages() -> None:
    code = """
import sys
from varlab.cli import main
for command in ([], ["log"], ["report"], ["convert"]):
    sys.argv = ["varlab", *command, "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
print("heavy:", {"torch", "numpy", "pandas", "xarray", "zarr", "matplotlib", "IPython", "nbformat"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: varlab") == 4 and done.stdout.endswith("heavy: set()\n")


def test_models_fit_80_columns(varlab: Call, places: Path) -> None:
    (places / "data" / "broken").mkdir()
    (places / "data" / "broken" / "model.json").write_text("{")
    outcome = varlab("models")
    *table, where = outcome.out.splitlines()
    assert outcome.code == 0 and max(map(len, table)) <= 80
    assert table[0].split() == ["name", "parameters", "stages", "tokens", "weights"]
    rows = [line.split() for line in table[1:] if not line.startswith(" ")]
    assert [row[0] for row in rows[:3]] == ["broken", "nano-infinity", "infinity-125m"]
    assert rows[0] == ["broken", "damaged"] and "is not valid JSON" in outcome.out
    assert rows[1][2:] == ["M", "3", "21", "shipped"]
    assert ["infinity-2b", "2.2", "B", "13", "10521", "not", "here"] in rows
    assert f"looked for in {places / 'checkpoints'}" in where and "--init random" in where


def test_sample_writes_pictures_and_log_a_run(varlab: Call, places: Path) -> None:
    drawn = varlab("sample", "nano-infinity", "a red [/star]", "--accelerate", "truncate:last=1", "--seed", 3)
    assert drawn.code == 0 and "a red [/star]" in drawn.out and "accelerator engaged: yes" in drawn.out
    assert [path.name for path in (places / "here" / "samples").iterdir()] == ["nano-infinity-seed3-0000.png"]
    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    logged = varlab("log", "nano-infinity", "--prompts", "mine.txt", "--n", 1, "--probe", "token-mse", "--out", "run")
    assert logged.code == 0 and "1 prompts, weights: trained" in logged.out and "groups: token-mse" in logged.out
    assert (places / "here" / "run" / "log.zarr").exists()


def test_bench_and_score_take_the_load_options(varlab: Call, places: Path) -> None:
    table = places / "new" / "bench.csv"
    timed = varlab("bench", "nano-infinity", "--init", "random", "--repeats", 1, "--batch", 1, "--out", table)
    assert timed.code == 0 and "random (seed 0)" in timed.out and "within +15%" in timed.out
    assert "peak memory" in timed.out and "images bit-equal: yes" in timed.out and table.exists()
    varlab("score", "scenes", "nano-infinity", "--precision", "fp12").refused("Unknown precision 'fp12'")


def test_parity_prints_every_array_when_asked(varlab: Call) -> None:
    short, long = varlab("parity", GOLDEN), varlab("parity", GOLDEN, "--all")
    assert long.code == 0 and long.out.count("\n") > short.out.count("\n")


def test_convert_shows_what_it_reads_and_writes(varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ModelEntry("tiny", CONFIG, TOKENIZER, lambda *_: SCHEDULE, Settings(), "", "tiny.pth", "vae.pth")
    monkeypatch.setattr(registry, "MODELS", registry.Registry([entry, replace(entry, name="other")]))
    screen = StringIO()
    monkeypatch.setattr(cli, "console", Console(file=screen, force_terminal=True, width=120))
    torch.save(parts()[0].state_dict(), places / "tiny.pth")
    assert varlab("convert", places / "tiny.pth", places / "made.safetensors", "--name", "tiny").code == 0
    shown = screen.getvalue()
    assert "read" in shown and "write" in shown and "MB" in shown and "made.safetensors" in shown
    varlab("convert", places / "tiny.pth", places / "made.safetensors", "--name", "tiny").refused("Give another target")

"""The command line: every mistake ends before work, with exit code 2 and one line that names the fix."""

import argparse
import json
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
from varlab.cli import bench, files, folders, methods, options, run, train
from varlab.models.guidance import Settings
from varlab.weights import registry
from varlab.weights.official import ModelEntry

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


def speak_on(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    for room in (options, run, methods, train, files, bench, folders):
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
    "prompt file": (["log", "nano-infinity", "--prompts", "mine.txt"], ["no prompt file 'mine.txt'", "Give the path"]),
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
    "rounds": (["bench", "--rounds", "0"], ["rounds must be at least 1, not 0"]),
    "topic": (["bench", "dens"], ["Unknown benchmark 'dens'", "dense"]),
    "gpu": (["bench", "gpu"], ["needs a CUDA device"]),
    "graphs": (["latency", "nano-infinity", "--graphs"], ["CUDA graphs need a GPU"]),
    "device of an estimate": (["estimate", "nano-infinity", "--device", "nonsense"], ["'nonsense' cannot be used"]),
    "device of a graph": (["latency", "nano-infinity", "--graphs", "--device", "gpu"], ["'gpu' cannot be used"]),
    "pixels of a mini": (["estimate", "nano-infinity", "--pixels", "1M"], ["knows one schedule", "leave pixels"]),
    "strips": (["latency", "nano-infinity", "--strips", "0"], ["at least 1 row", "leave strips out"]),
    "compile elsewhere": (["latency", "var-d16", "--compile"], ["compile is there for Infinity, not for var"]),
    "estimate": (["estimate", "nano-infinty"], ["Unknown model", "nano-infinity"]),
    "out": (["sample", "nano-infinity", "a", "--out", "/proc/x"], ["/proc/x cannot be written in"]),
    "cfg": (["sample", "nano-infinity", "a", "--cfg", "nan"], ["--cfg takes finite numbers"]),
    "notebook's weights": (
        ["report", "01_residual_spectra", "-p", "model=infinity-2b"],
        ["infinity_2b_reg.pth and infinity_vae_d32reg.pth are not in", "Put", "VARLAB_CHECKPOINTS"],
    ),
    "notebook's unreleased model": (
        ["report", "01_residual_spectra", "-p", "model=infinity-1b"],
        ["No weights of infinity-1b were released", "choose a model"],
    ),
    "shapes alone": (["latency", "nano-infinity", "--init", "empty"], ["shapes only", "take checkpoint or random"]),
    "part of a name": (["sample", "nano", "a"], ["Unknown model 'nano'", "Did you mean nano-infinity?"]),
    "logged accelerator": (["log", "nano-infinity", "--accelerate", "truncat:last=1"], ["Did you mean truncate?"]),
    "steps": (["train", "nano-infinity", "--steps", "0"], ["steps must be at least 1, not 0"]),
    "pool": (["train", "nano-infinity", "--pool", "0"], ["pool must be at least 1, not 0"]),
    "calibration": (["calibrate", "skipvr", "nano-infinity"], ["Unknown method to calibrate", "skipvar"]),
    "held out": (["calibrate", "sparsevar", "nano-infinity", "--held-out", "9"], ["--held-out belongs to skipvar"]),
    "targets": (["calibrate", "sparsevar", "nano-infinity", "--targets", "0.9"], ["--targets belongs to skipvar"]),
    "golden": (["parity", GOLDEN, "missing.npz"], ["no golden file missing.npz", "Give the path of a .npz file"]),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_before_any_work(
    varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], words: list[str]
) -> None:
    forbid(
        monkeypatch, "varlab.weights.zoo.load", "varlab.reports.run_report", "varlab.parity.check",
        "varlab.training.command.train_command",
    )  # fmt: skip
    varlab(*arguments).refused(*words)
    assert not list((places / "here").iterdir())


def test_a_report_is_refused_before_its_kernel(varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the run, the vocabulary or the folder can tell; the last report stays as it is."""
    forbid(monkeypatch, "varlab.reports.run_report")
    here = places / "here"
    (here / "known.txt").write_text("a red star\na blue ring\n")
    (here / "unknown.txt").write_text("a red star\na red moon\n")
    (here / "other").mkdir()
    (here / "other" / "thesis.tex").write_text("years of work")
    (here / "damaged").mkdir()
    (here / "damaged" / "run.json").write_text("{")
    assert varlab("log", "mini-infinity", "--prompts", "known.txt", "--out", "run", "--probe", "token-mse").code == 0

    def refused(*words: str, **given: object) -> None:
        options = [option for name, value in given.items() for option in ("-p", f"{name}={value}")]
        varlab("report", "02_block_token_mse", *options).refused(*words)

    refused("does not know the word 'moon'", prompt_set="unknown.txt")
    refused("holds 2 prompts, not 3", "Give n=2", prompt_set="known.txt", n=3)
    refused("map_prompts: 99 is none of the 2 prompts", prompt_set="known.txt", map_prompts=99)
    refused("not empty and holds no run", prompt_set="known.txt", run_folder="other")
    refused("run.json is damaged", prompt_set="known.txt", run_folder="damaged")
    refused("another run (different: seed", run_folder="run", seed=4)
    refused("another run (different: settings", run_folder="run", cfg=7)
    (here / "run" / "log.zarr").rename(here / "run" / "cut.zarr")  # an unfinished run is compared as a whole
    refused("another run (different: probes", prompt_set="known.txt", run_folder="run")
    (here / "run" / "run.json").unlink()
    (here / "run" / "cut.zarr").rename(here / "run" / "log.zarr")
    (here / "run" / "log.zarr" / "zarr.json").write_text("{")
    refused("log.zarr is damaged", prompt_set="known.txt", run_folder="run")


def test_a_report_takes_from_its_run_what_was_not_given(
    varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []
    names: list[str | None] = []

    def run_report(
        notebook: Path, values: dict[str, object], out: Path, name: str | None, **_: object
    ) -> argparse.Namespace:
        seen.append(values)
        names.append(name)
        return argparse.Namespace(html=out / "x.html")

    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    monkeypatch.setattr("varlab.reports.run_report", run_report)
    options = ["--prompts", "mine.txt", "--precision", "bf16", "--tau", "0.5", "--seed", 3, "--probe", "token-mse"]
    assert varlab("log", "mini-infinity", *options, "--out", "run").code == 0
    monkeypatch.setattr("varlab.api.require", lambda *_: pytest.fail("weights were asked for"))
    assert varlab("report", "02_block_token_mse", "-p", "run_folder=run", "-p", "map_prompts=1").code == 0
    assert seen[0] == {"run_folder": "run", "map_prompts": [1], "n": 2, "prompt_set": "mine.txt", "seed": 3}
    assert varlab("report", "02_block_token_mse", "-p", "run_folder=run", "--suffix", "other").code == 0
    assert names == [None, "02_block_token_mse-other"]
    monkeypatch.undo()


def test_a_short_file_is_taken_whole(varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from varlab.api import check_inputs

    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    inputs = {"model": "nano-infinity", "prompt_set": "scenes", "n": 48}
    assert check_inputs(inputs, {"prompt_set": "mine.txt"}) == {"prompt_set": "mine.txt", "n": 2}
    assert check_inputs(inputs | {"n": 1}, {"prompt_set": "mine.txt"}) == {"prompt_set": "mine.txt"}
    varlab("log", "nano-infinity", "--prompts", "mine.txt", "--n", 3).refused("holds 2 prompts, not 3. Give n=2")
    monkeypatch.setattr("varlab.weights.zoo.load", lambda name, *_, **__: argparse.Namespace(name=name))
    taken: list[int] = []

    def log(model: object, prompts: list[str], **_: object) -> argparse.Namespace:
        taken.append(len(prompts))
        facts = {"n": len(prompts), "weights": "none"}
        return argparse.Namespace(attrs=facts, children=(), encoding={"source": "runs/x"})

    monkeypatch.setattr("varlab.api.log", log)
    for given in (["--prompts", "mine.txt"], [], ["--n", 50]):
        assert varlab("log", "nano-infinity", *given).code == 0
    assert taken == [2, 48, 50]


def test_unknown_model(varlab: Call, places: Path) -> None:
    varlab("sample", "nano-infinty", "a red star").refused(
        "Unknown model 'nano-infinty'", "Did you mean nano-infinity", f"looked for in {places / 'data'}"
    )
    varlab("log", "infinity-3b").refused("Did you mean", "infinity-2b")
    assert not list((places / "here").iterdir())


def test_official_model_without_weights(varlab: Call, places: Path) -> None:
    varlab("sample", "infinity-125m", "a red star").refused(
        f"infinity_125M_256x256.pth and infinity_vae_d16.pth are not in {places / 'checkpoints'}",
        "--checkpoint PATH --tokenizer PATH, or --init random",
    )


def test_pickle_that_could_run_code(varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("varlab.models.text.find_spec", lambda name: name)  # transformers counts as installed
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
    assert [row[0] for row in rows[:4]] == ["broken", "mini-infinity", "nano-infinity", "infinity-125m"]
    assert rows[0] == ["broken", "damaged"] and "is not valid JSON" in outcome.out
    assert rows[1][2:] == ["M", "3", "21", "shipped"]
    assert ["infinity-2b", "2.2", "B", "13", "10521", "not", "here"] in rows
    assert f"looked for in {places / 'checkpoints'}" in where and "--init random" in where


def test_sample_writes_pictures_and_log_a_run(varlab: Call, places: Path) -> None:
    drawn = varlab("sample", "nano-infinity", "a red [/star]", "--accelerate", "truncate:last=1", "--seed", 3)
    assert drawn.code == 0 and "a red [/star]" in drawn.out and "accelerator engaged: yes" in drawn.out
    drawn = [path.name for path in (places / "here" / "samples").iterdir()]
    assert len(drawn) == 1 and drawn[0].startswith("nano-infinity-seed3-0000-") and drawn[0].endswith(".png")
    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    logged = varlab("log", "nano-infinity", "--prompts", "mine.txt", "--n", 1, "--probe", "token-mse", "--out", "run")
    assert logged.code == 0 and "1 prompts, weights: trained" in logged.out and "groups: token-mse" in logged.out
    assert (places / "here" / "run" / "log.zarr").exists()
    changed = ["--accelerate", "truncate:last=1", "--negative", "a star", "--probe", "token-mse", "--out", "other"]
    assert varlab("log", "nano-infinity", "--prompts", "mine.txt", *changed).code == 0
    record = json.loads((places / "here" / "other" / "run.json").read_text())
    assert record["accelerators"] == ["truncate:last=1"] and record["negative"] == "a star" and record["n"] == 2


def test_models_says_where_missing_weights_are_expected(varlab: Call, places: Path) -> None:
    shown = varlab("models").out
    assert "needs infinity_2b_reg.pth and infinity_vae_d32reg.pth" in shown and shown.count("  needs ") == 10
    assert f"looked for in {places / 'checkpoints'}" in shown


def test_latency_and_score_take_the_load_options(varlab: Call, places: Path) -> None:
    tables = places / "new" / "latency.json"
    options = ["--init", "random", "--rounds", 1, "--batch", 1, "--out", tables]
    timed = varlab("latency", "nano-infinity", "truncate:last=1", *options)
    assert timed.code == 0 and "random (seed 0)" in timed.out and "transformer" in timed.out and "peak" in timed.out
    (found,) = json.loads(tables.read_text())
    assert {row["method"] for row in found["spans"]} == {"none", "truncate:last=1"} and found["facts"]["n"] == 1
    varlab("score", "scenes", "nano-infinity", "--precision", "fp12").refused("Unknown precision 'fp12'")


def test_parity_prints_every_array_when_asked(varlab: Call) -> None:
    short, long = varlab("parity", GOLDEN), varlab("parity", GOLDEN, "--all")
    assert long.code == 0 and long.out.count("\n") > short.out.count("\n")


def test_convert_shows_what_it_reads_and_writes(varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ModelEntry("tiny", CONFIG, TOKENIZER, lambda *_: SCHEDULE, Settings(), "", "tiny.pth", "vae.pth")
    monkeypatch.setattr(registry, "MODELS", registry.Registry([entry, replace(entry, name="other")]))
    screen = StringIO()
    speak_on(monkeypatch, Console(file=screen, force_terminal=True, width=120))
    torch.save(parts()[0].state_dict(), places / "tiny.pth")
    assert varlab("convert", places / "tiny.pth", places / "made.safetensors", "--name", "tiny").code == 0
    shown = screen.getvalue()
    assert "read" in shown and "write" in shown and "MB" in shown and "made.safetensors" in shown
    varlab("convert", places / "tiny.pth", places / "made.safetensors", "--name", "tiny").refused("Give another target")

"""Commands that work."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.cli_calls import GOLDEN, Call, places, speak_on, varlab  # noqa: F401
from tests.minis import CONFIG, SCHEDULE, TOKENIZER, parts
from varlab.models.guidance import Settings
from varlab.weights import registry
from varlab.weights.official import ModelEntry

REPOSITORY = Path(__file__).parents[1]


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


def test_pictures_wait_for_no_stores_and_comparisons_without_a_folder_for_no_figures() -> None:
    code = """
import sys
import varlab as vl
from varlab.cli import main
from varlab.weights.registry import MODELS, empty
vl.sample(vl.load("nano-infinity"), ["a red star"])
for entry in MODELS.values():
    empty(entry)  # what loading asks the shapes and sizes of
print("of pictures:", {"torch._dynamo", "sympy", "scipy.stats", "dask", "zarr", "matplotlib"} & set(sys.modules))
sys.argv = "varlab compare nano-infinity none truncate:last=1 --n 1 --batch 1 --no-frontier".split()
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("heavy:", {"matplotlib", "seaborn", "scipy.stats", "scipy.fft", "scipy.ndimage", "ipywidgets"} & set(sys.modules))
from varlab.reports.notebooks import find_notebook, read_notebook
read_notebook(find_notebook("01_residual_spectra"))
print("of notebooks:", {"lark"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "of pictures: set()\n" in done.stdout
    assert "truncate:last=1" in done.stdout and done.stdout.endswith("heavy: set()\nof notebooks: set()\n")


def test_models_fit_80_columns(varlab: Call, places: Path) -> None:
    (places / "data" / "broken").mkdir()
    (places / "data" / "broken" / "model.json").write_text("{")
    outcome = varlab("models")
    *table, where = outcome.out.splitlines()
    assert outcome.code == 0 and max(map(len, table)) <= 80
    assert table[0].split() == ["name", "parameters", "stages", "tokens", "weights"]
    rows = [line.split() for line in table[1:] if not line.startswith(" ")]
    assert [row[0] for row in rows[:4]] == ["broken", "mini-infinity", "nano-infinity", "infinity-125m"]
    assert rows[0] == ["broken", "damaged"] and "is not valid JSON" in " ".join(outcome.out.split())
    assert rows[1][2:] == ["M", "3", "21", "shipped"]
    assert ["infinity-2b", "2.2", "B", "13", "10521", "not", "here"] in rows
    assert f"looked for in {places / 'checkpoints'}" in where and "--init random" in where


def test_sample_writes_pictures_and_log_a_run(varlab: Call, places: Path) -> None:
    drawn = varlab("sample", "nano-infinity", "a red [/star]", "--method", "truncate:last=1", "--seed", 3)
    assert drawn.code == 0 and "a red [/star]" in drawn.out and "GFLOP in all; engaged: yes" in drawn.out
    (picture,) = (path.name for path in (places / "here" / "samples").iterdir())
    assert picture.startswith("nano-infinity-seed3-0000-") and picture.endswith(".png")
    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    logged = varlab("log", "nano-infinity", "--prompts", "mine.txt", "--n", 1, "--probe", "token-mse", "--out", "run")
    assert logged.code == 0 and "1 prompt, weights: trained" in logged.out and "groups: token-mse" in logged.out
    assert (places / "here" / "run" / "log.zarr").exists()
    changed = ["--method", "truncate:last=1", "--negative", "a star", "--probe", "token-mse", "--out", "other"]
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
    varlab("convert", places / "tiny.pth", places / "made.safetensors", "--name", "tiny").refused(
        "made.safetensors exists", "--overwrite"
    )

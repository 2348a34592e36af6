"""The command line: every mistake ends before work, with exit code 2 and one line that names the fix."""

import argparse
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli_calls import GOLDEN, Call, places, varlab  # noqa: F401


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was started")

    for module in (
        "varlab.api",
        "varlab.studies.exits.ablation",
        "varlab.studies.tuning.halving",
        "varlab.sweeps.work",
    ):
        import_module(module)  # a first import under the patch would keep the forbidden function for good
    for name in names:
        monkeypatch.setattr(name, work)


# Mistakes


MISTAKES = {
    "probe": (["log", "nano-infinity", "--probe", "token-msee"], ["Unknown probe", "Did you mean token-mse?"]),
    "probe option": (["log", "nano-infinity", "--probe", "token-mse:x=1"], ["Unknown option of token-mse 'x'"]),
    "prompt set": (["log", "nano-infinity", "--prompts", "scenes-count"], ["Unknown prompt set", "scenes-counting"]),
    "prompt file": (["log", "nano-infinity", "--prompts", "mine.txt"], ["no prompt file 'mine.txt'", "Give the path"]),
    "no prompts": (["log", "nano-infinity", "--n", "0"], ["at least one prompt"]),
    "accelerator": (["sample", "nano-infinity", "a", "--method", "truncat:last=1"], ["Did you mean truncate?"]),
    "bare option": (["sample", "nano-infinity", "a", "--method", "truncate"], ["Write truncate:last=VALUE."]),
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
    "threads": (
        ["compare", "nano-infinity", "truncate:last=1", "--threads", "0"],
        ["threads must be at least 1, not 0"],
    ),
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
    "logged accelerator": (["log", "nano-infinity", "--method", "truncat:last=1"], ["Did you mean truncate?"]),
    "steps": (["train", "nano-infinity", "--steps", "0"], ["steps must be at least 1, not 0"]),
    "pool": (["train", "nano-infinity", "--pool", "0"], ["pool must be at least 1, not 0"]),
    "calibration": (["calibrate", "skipvr", "nano-infinity"], ["Unknown method to calibrate", "skipvar"]),
    "held out": (["calibrate", "sparsevar", "nano-infinity", "--held-out", "9"], ["--held-out belongs to skipvar"]),
    "targets": (["calibrate", "sparsevar", "nano-infinity", "--targets", "0.9"], ["--targets belongs to skipvar"]),
    "golden": (["parity", GOLDEN, "missing.npz"], ["no golden file missing.npz", "Give the path of a .npz"]),
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

    refused("'moon'", prompt_set="unknown.txt")
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
    names: list[str] = []

    def run_report(notebook: Path, values: dict[str, object], out: Path, name: str, **_: object) -> argparse.Namespace:
        seen.append(values)
        names.append(name)
        return argparse.Namespace(html=out / "x.html")

    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    monkeypatch.setattr("varlab.reports.run_report", run_report)
    options = ["--prompts", "mine.txt", "--precision", "bf16", "--tau", "0.5", "--seed", 3, "--probe", "token-mse"]
    assert varlab("log", "mini-infinity", *options, "--out", "run").code == 0
    monkeypatch.setattr("varlab.report_inputs.require", lambda *_: pytest.fail("weights were asked for"))
    assert varlab("report", "02_block_token_mse", "-p", "run_folder=run", "-p", "map_prompts=1").code == 0
    assert seen[0] == {"run_folder": "run", "map_prompts": [1], "n": 2, "prompt_set": "mine.txt", "seed": 3}
    assert varlab("report", "02_block_token_mse", "-p", "run_folder=run", "--suffix", "other").code == 0
    assert len(set(names)) == 2 and names[1] == "02_block_token_mse-other"
    monkeypatch.undo()


def test_a_short_file_is_taken_whole(varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from varlab.report_inputs import check_inputs

    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    inputs = {"model": "nano-infinity", "prompt_set": "scenes", "n": 48}
    assert check_inputs(inputs, {"prompt_set": "mine.txt"}) == {"prompt_set": "mine.txt", "n": 2}
    assert check_inputs(inputs | {"n": 1}, {"prompt_set": "mine.txt"}) == {"prompt_set": "mine.txt"}
    varlab("log", "nano-infinity", "--prompts", "mine.txt", "--n", 3).refused("holds 2 prompts, not 3. Give n=2")
    monkeypatch.setattr("varlab.weights.zoo.load", lambda name, *_, **__: argparse.Namespace(name=name))
    monkeypatch.setattr("varlab.weights.zoo.check_captions", lambda *_: None)
    taken: list[int] = []

    def log(model: object, prompts: list[str], **_: object) -> argparse.Namespace:
        taken.append(len(prompts))
        facts = {"n": len(prompts), "weights": "none"}
        return argparse.Namespace(attrs=facts, children=(), encoding={"source": "runs/x", "made": "written"})

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
        "was refused", "argparse.Namespace", "convert it"
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

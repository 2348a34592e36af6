"""Methods and settings that do not fit a model are refused from its name alone: no weights are read."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import varlab as vl
from tests.cli_calls import Call, places, varlab  # noqa: F401
from tests.conftest import text_for, tiny_hart, tiny_infinity, tiny_var
from tests.test_minis import save_var
from varlab.accelerators import build
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.errors import VarlabError
from varlab.models.hart_model import Hart
from varlab.models.infinity_model import Infinity
from varlab.models.var_model import VAR
from varlab.runs.trial import try_methods
from varlab.studies.tuning import tune
from varlab.weights import embedded, zoo
from varlab.weights.places import data_folder

Model = Infinity | Hart | VAR
UNFIT = {  # of a mini of four stages and four blocks
    "truncate:last=20": "leaves no stage of",
    "cfg-off:last=50": "cfg-off: last=50 is more than the",
    "random-tokens:keep=0.5,last=9": "last=9 is more than the",
    "uniform-tokens:keep=0.5,last=9": "last=9 is more than the",
    "sparsevar:block=99": "block 99 is not one of",
    "fastvar-all-scales:ratios=0.5,first=90,final=99": "is not one of the",
    "freqexit:exits=99": "stage 1 is to run 99 blocks",
    "skipvar": "at least 8 stages",
}
COMMANDS = {
    "sample": ("sample", "mini-infinity", "a red star", "--out", "made", "--method"),
    "log": ("log", "mini-infinity", "--n", 1, "--out", "made", "--method"),
    "compare": ("compare", "mini-infinity", "--n", 1, "--out", "made"),
    "generate": ("generate", "scenes", "mini-infinity", "--n", 1, "--out", "made"),
    "score": ("score", "scenes", "mini-infinity", "--n", 1, "--json", "made.json", "--method"),
    "latency": ("latency", "mini-infinity", "--out", "made.json"),
    "report": ("report", "20_compare", "--out", "made", "-p"),
}


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*given: Any) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(embedded, "load_mini", load)
    monkeypatch.setattr(zoo, "check_captions", lambda entry, captions: None)  # the mini knows six words


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_no_weights_for_a_method_that_does_not_fit(
    varlab: Call,
    command: str,
    no_weights: None,
) -> None:
    for spec, words in UNFIT.items():
        given = f"methods={spec}" if command == "report" else spec
        varlab(*COMMANDS[command], given).refused(words)
    assert not Path("made").exists()


OTHERS = {
    "calibrate": (("calibrate", "skipvar", "mini-infinity", "--out", "made"), "at least 8 stages"),
    "calibrate sparsevar": (("calibrate", "sparsevar", "mini-infinity", "--out", "made"), "leaves no stage to score"),
    "split": (("split", "mini-infinity", "--n", 2, "--out", "made"), "at least 8 stages"),
    "a calibration's report": (("report", "14_sparsevar_calibration", "-p", "last=20"), "last=20 is more than the"),
    "a report's batch": (("report", "20_compare", "-p", "batch=0"), "batch must be at least 1"),
    "a report's timing": (("report", "20_compare", "-p", "timed=0"), "timed must be at least 1"),
    "export": (("export", "mini-var", "made.npz", "--method", "truncate:last=99"), "leaves no stage of"),
    "few images": (("score", "frechet", "mini-var", "--n", 87), "over 87 features needs more images than that, not 87"),
    "removals": (("report", "05_exit_motivation", "-p", "removal_n=4"), "needs more images than that, not 4"),
    "a report's distance": (("report", "13_freqexit", "-p", "n=8"), "needs more images than that, not 8"),
    "exits": (("exits", "mini-var", "--exits", "99"), "is to run 99 blocks"),
}


@pytest.mark.parametrize(("arguments", "words"), OTHERS.values(), ids=OTHERS)
def test_other_commands_look_at_the_model_too(
    varlab: Call, arguments: tuple[object, ...], words: str, no_weights: None
) -> None:
    if "mini-var" in arguments:
        save_var(data_folder() / "mini-var")
    varlab(*arguments).refused(words)
    assert not Path("made").exists()


@pytest.mark.parametrize("spec", UNFIT)
def test_a_sweep_and_its_file_are_refused(varlab: Call, spec: str, no_weights: None) -> None:
    plan = {"models": ["mini-infinity"], "specs": ["none", spec], "prompts": [{"set": "mine.txt", "n": 1}]}
    Path("mine.txt").write_text("a red star")
    with pytest.raises(VarlabError, match=UNFIT[spec]):
        vl.sweep(plan, "made")
    assert not Path("made").exists()


def test_a_search_wants_all_its_prompts_at_once(no_weights: None) -> None:
    Path("mine.txt").write_text("a red star\n" * 9)
    with pytest.raises(VarlabError, match="holds 9 prompts, not 16"):
        tune("mini-infinity", "made", prompt_set="mine.txt", n=16)
    assert not Path("made").exists()


@pytest.mark.parametrize("spec", UNFIT)
def test_functions_that_take_a_name_read_no_weights(spec: str, no_weights: None) -> None:
    for call in (
        lambda: vl.sample("mini-infinity", ["a red star"], accelerators=spec),
        lambda: vl.log("mini-infinity", n=1, folder="made", accelerators=[spec]),
        lambda: vl.compare("mini-infinity", specs=[spec], n=1),
    ):
        with pytest.raises(VarlabError, match=UNFIT[spec]):
            call()
    assert not Path("made").exists()


def test_settings_of_functions_are_looked_at_before_weights(no_weights: None) -> None:
    for call in (vl.sample, vl.compare, vl.frontier, vl.log):
        with pytest.raises(VarlabError, match=r"cgf.*cfg"):
            call("mini-infinity", ["a red star"], cgf=3)
        with pytest.raises(VarlabError, match="stages"):
            call("mini-infinity", ["a red star"], cfg=(1.0, 2.0))
        with pytest.raises(VarlabError, match="batch must be at least 1"):
            call("mini-infinity", ["a red star"], batch=0)
    for option in ("timed", "stages_of", "seed"):
        with pytest.raises(VarlabError, match=f"{option} must be at least"):
            vl.compare("mini-infinity", ["a red star"], **{option: -1})


@pytest.mark.parametrize("command", ("sample", "log", "compare", "score"))
def test_guidance_after_a_block_that_does_not_run_is_refused(varlab: Call, command: str, no_weights: None) -> None:
    given = (*COMMANDS[command], "freqexit:exits=2", "--cfg-layers")
    varlab(*given, "0,-1").refused("after block 3", "only 2 blocks run")
    with pytest.raises(VarlabError, match="only 2 blocks run"):
        vl.sample("mini-infinity", ["a red star"], accelerators="freqexit:exits=2", cfg_layers=[-1])
    assert not Path("made").exists()


JOINED = {  # of a mini of four stages and four blocks
    "freqexit:exits=1+sparsevar:keep=0.5,last=2,block=2": "Block 2 is to be read but only 1 blocks run",
    "freqexit:exits=1/4/4+fastvar-all-scales:ratios=0.5/0.5,first=0": "stage 2 restores blocks from stage 1",
    "truncate:last=1+truncate:last=9": "leaves no stage of",
}


@pytest.mark.parametrize("command", ("compare", "latency"))
@pytest.mark.parametrize("spec", JOINED)
def test_methods_that_clash_read_no_weights(varlab: Call, command: str, spec: str, no_weights: None) -> None:
    varlab(*COMMANDS[command], spec).refused(JOINED[spec])
    assert not Path("made").exists()


def test_guidance_after_a_block_that_does_not_run_is_refused_beside_other_methods(
    varlab: Call, no_weights: None
) -> None:
    given = (*COMMANDS["sample"], "freqexit:exits=2", "--method", "truncate:last=1", "--cfg-layers", "0,-1")
    varlab(*given).refused("only 2 blocks run")
    assert not Path("made").exists()


CUTS = ("freqexit:exits=1", "freqexit:exits=1/1/4/4", "freqexit:exits=4/4/1/1", "cfg-off:last=4", "truncate:last=3")
BESIDE = (
    *CUTS, "sparsevar:keep=0.5,last=2,block=2", "sparsevar:tau=0,last=2,block=2", "skipvar-hybrid", "fastvar:ratios=0",
    "fastvar:ratios=0.5,drop=1,first=0", "fastvar-all-scales:ratios=0.5/0.5,first=0", "oracle-tokens:keep=0.5,last=2",
)  # fmt: skip


def outcome(call: Callable[..., object], *given: object) -> str:
    try:
        call(*given)
    except VarlabError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("model", (tiny_infinity(), tiny_hart(), tiny_var()), ids=lambda model: model.family)
def test_what_a_run_refuses_is_refused_before_it_and_nothing_else(model: Model) -> None:
    refused = set()
    for layers, *pair in product(((0,), (-2,)) if model.family == "infinity" else ((0,),), CUTS, BESIDE):
        settings, specs = replace(model.settings, cfg_layers=layers), sorted(set(pair))
        run = Run(model, settings, SeededNoise(7))
        before = outcome(try_methods, model, settings, build(specs))
        assert before == outcome(run.generate, text_for(model, (3,), (0,)), (0,), build(specs)), specs
        refused.add(before)
    assert len(refused) > 3  # some of them, and some are run


def test_guidance_that_the_shallow_stages_do_not_have_is_none_of_theirs() -> None:
    model = tiny_infinity()
    settings = replace(model.settings, cfg_layers=(-1,))
    for methods in (["freqexit:exits=2", "cfg-off:last=4"], ["freqexit:exits=4"]):
        try_methods(model, settings, build(methods))
    try_methods(model, replace(settings, cfg=1.0), build(["freqexit:exits=2"]))


def test_tokens_of_a_stage_that_carries_text_are_not_pruned() -> None:
    model = tiny_hart()
    most = len(model.schedule) - 1
    try_methods(model, model.settings, build([f"random-tokens:keep=0.5,last={most}"]))
    with pytest.raises(VarlabError, match=f"more than the {most} final stages"):
        try_methods(model, model.settings, build([f"random-tokens:keep=0.5,last={most + 1}"]))

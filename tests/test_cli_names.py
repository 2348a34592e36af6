"""What is refused by its name alone: options, classes, files and folders; and what is written where."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.cli_calls import Call, places, varlab  # noqa: F401
from tests.test_cli import forbid
from varlab.errors import VarlabError
from varlab.locks import NO_WAIT, one_writer
from varlab.outputs import read_facts, save_image, save_json
from varlab.reports.parameters import Parameter
from varlab.reports.run import _kernel_manager
from varlab.runs.inputs import check_prompts
from varlab.writing import check_writable, check_writable_file

NEAR = {
    "mistyped": (["sample", "nano-infinity", "a", "--metod", "x"], "Did you mean --method?"),
    "of the API": (["sample", "nano-infinity", "a", "--folder", "x"], "Did you mean --out?"),
    "of the API, whole": (["log", "nano-infinity", "--prompt_set", "x"], "Did you mean --prompts?"),
    "of another tool": (["compare", "nano-infinity", "none", "--batch-size", "2"], "Did you mean --batch?"),
    "switched off": (["compare", "nano-infinity", "none", "--no-frontir"], "Did you mean --no-frontier"),
    "one dash": (["log", "nano-infinity", "-n", "2"], "Did you mean --n?"),
    "of a group": (["runs", "repair", "x", "--nowait"], "Did you mean --no-wait?"),
}


@pytest.mark.parametrize(("arguments", "hint"), NEAR.values(), ids=NEAR)
def test_an_unknown_option_names_those_near_it(varlab: Call, arguments: list[object], hint: str) -> None:
    varlab(*arguments).refused("Unknown option", hint)


def test_a_former_name_still_works_and_is_not_listed(varlab: Call) -> None:
    for form in (["--accelerate", "truncat:last=1"], ["--accelerate=truncat:last=1"]):
        varlab("sample", "nano-infinity", "a star", *form).refused("Unknown method 'truncat'")
    listed = varlab("sample", "--help").out
    assert "--method" in listed and "--accelerate" not in listed


BEFORE = {
    "sample": (["sample", "var-d16", "a cat", "--init", "random"], "'a cat' is no class of this model"),
    "log": (["log", "var-d16", "--prompts", "scenes", "--init", "random"], "is no class of this model"),
    "compare": (["compare", "var-d16", "none", "--prompts", "scenes", "--init", "random"], "is no class of this model"),
    "split": (["split", "var-d16", "--prompts", "scenes", "--init", "random"], "is no class of this model"),
    "calibrate": (["calibrate", "skipvar", "var-d16", "--prompts", "scenes", "--init", "random"], "is no class of"),
    "score": (["score", "scenes", "var-d16", "--init", "random"], "is no class of this model"),
    "other scenes": (["score", "scenes", "nano-infinity", "--scene-version", "2"], "version 1, and version 2 is asked"),
    "no scenes": (
        ["score", "frechet", "mini-var", "--scene-version", "1"],
        "--scene-version is of the scene benchmark",
    ),
    "frechet": (["score", "frechet", "var-d16", "--init", "random"], "The classes of var-d16 are no scenes"),
    "texts": (["score", "frechet", "infinity-125m", "--init", "random"], "infinity-125m reads texts"),
    "export": (["export", "nano-infinity", "x.npz"], "nano-infinity reads texts"),
    "exits": (["exits", "nano-infinity"], "nano-infinity reads texts"),
    "ablate": (["ablate", "--model", "nano-infinity"], "nano-infinity reads texts"),
    "negative class": (["sample", "var-d16", "3", "--negative", "a cat", "--init", "random"], "'a cat' is no class"),
    "negative": (["sample", "hart-0.7b", "a cat", "--negative", "x", "--init", "random"], "the empty text alone"),
    "word": (["sample", "nano-infinity", "a red moon"], "does not know the word 'moon'"),
    "words of another world": (
        ["sample", "nano-infinity", "a wooden star above marble, marble"],
        "does not know the words 'wooden', 'marble' in 'a",
    ),
    "card": (["card", "var-d16", "--per-prompt", "1"], "var-d16 reads classes. Leave it out"),
    "no images": (["card", "nano-infinity", "--per-prompt", "0"], "per_prompt must be at least 1, not 0"),
    "layer": (["sample", "var-d16", "3", "--cfg-layers", "-20", "--init", "random"], "cfg_layers: -20 is neither"),
    "layers": (["sample", "nano-infinity", "a star", "--cfg-layers", "x"], "--cfg-layers takes whole numbers"),
    "stages": (["log", "var-d16", "--cfg", "1,2", "--init", "random"], "cfg has 2 values; the schedule has 10 stages"),
    "recipe": (["train", "freqexi"], "Did you mean freqexit? Known: freqexit, mini-hart"),
    "options of freqexit": (
        ["train", "mini-var", "--seed", "0", "--recipe", "official"],
        "--recipe, --seed: for freqexit alone, not for mini-var",
    ),
    "options of minis": (
        ["train", "freqexit", "--init-from", "mini-var"],
        "--init-from: for minis alone, not for freqexit",
    ),
    "learning rate": (["train", "freqexit", "--learning-rate", "-1"], "learning_rate must be positive and finite"),
    "half a character": (["sample", "nano-infinity", "a star", "--negative", "a \udcff"], "holds half a character"),
}


@pytest.mark.parametrize(("arguments", "words"), BEFORE.values(), ids=BEFORE)
def test_what_a_name_decides_is_told_before_weights(
    varlab: Call, places: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], words: str
) -> None:
    forbid(
        monkeypatch, "varlab.weights.zoo.load", "varlab.weights.zoo.assemble", "varlab.training.command.train_command"
    )
    varlab(*arguments).refused(words)
    assert not list((places / "here").iterdir())


def test_the_api_asks_before_weights_too(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import varlab as vl

    monkeypatch.setattr("varlab.api.load", lambda *_: pytest.fail("weights were read"))
    for call in (vl.sample, vl.log, vl.compare, vl.frontier):
        with pytest.raises(VarlabError, match="'a cat' is no class of this model"):
            call("var-d16", ["a cat"])


def test_a_picture_of_one_prompt_may_be_a_file(varlab: Call, places: Path) -> None:
    here = places / "here"
    assert varlab("sample", "nano-infinity", "a red star", "--out", "pic.png").code == 0
    assert [path.name for path in here.iterdir()] == ["pic.png"] and read_facts(here / "pic.png")[
        "prompt"
    ] == "a red star"
    held = (here / "pic.png").read_bytes()
    varlab("sample", "nano-infinity", "a blue ring", "--out", "pic.png").refused("pic.png exists", "--overwrite")
    assert (here / "pic.png").read_bytes() == held
    assert varlab("sample", "nano-infinity", "a blue ring", "--out", "pic.png", "--overwrite").code == 0
    assert read_facts(here / "pic.png")["prompt"] == "a blue ring"
    varlab("sample", "nano-infinity", "a star", "a ring", "--out", "more.png").refused("more.png is named as a file")
    varlab("sample", "nano-infinity", "a star", "--out", "one.jpg").refused("one.jpg is named as a file")


def test_an_equal_picture_is_left_and_said(varlab: Call, places: Path) -> None:
    first = varlab("sample", "nano-infinity", "a red star")
    (picture,) = (places / "here" / "samples").iterdir()
    held, when = picture.read_bytes(), picture.stat().st_mtime_ns
    assert "was there" not in first.out
    assert "was there, the same: left as it is" in varlab("sample", "nano-infinity", "a red star").out
    assert (picture.read_bytes(), picture.stat().st_mtime_ns) == (held, when)
    varlab("sample", "nano-infinity", "a red star", "--overwrite")
    assert picture.stat().st_mtime_ns > when


def test_layers_of_guidance_change_the_picture(varlab: Call, places: Path) -> None:
    for form in ([], ["--cfg-layers", "0"], ["--cfg-layers", "0,-1"]):
        assert varlab("sample", "nano-infinity", "a red star", *form).code == 0
    made = sorted((places / "here" / "samples").iterdir())
    assert sorted(read_facts(path)["settings"]["cfg_layers"] for path in made) == [[0], [0, -1]]


def test_a_method_that_was_not_asked_for_is_not_spoken_of(varlab: Call) -> None:
    assert "engaged" not in varlab("sample", "nano-infinity", "a red star").out


def test_a_folder_of_pictures_says_where_to_look(varlab: Call, places: Path) -> None:
    varlab("sample", "nano-infinity", "a red star")
    (picture,) = (places / "here" / "samples").iterdir()
    varlab("show", "samples").refused(
        "samples holds pictures, each of which says itself", f"varlab show samples/{picture.name}"
    )


def test_parity_gives_no_advice_to_unpickle(varlab: Call, places: Path) -> None:
    (places / "here" / "notes.md").write_text("# mine")
    outcome = varlab("parity", "notes.md")
    outcome.refused("notes.md is no .npz file")
    assert "pickle" not in outcome.err


def test_places_are_of_their_kind(tmp_path: Path) -> None:
    for name in ("a.png", "a.CSV", "b/a.json"):
        with pytest.raises(VarlabError, match="named as a file"):
            check_writable(tmp_path / name)
    (tmp_path / "old.png").mkdir()
    check_writable(tmp_path / "old.png")
    check_writable(tmp_path / "v1.2")
    with pytest.raises(VarlabError, match=r"ends in \.csv"):
        check_writable_file(tmp_path / "table.json", ".csv")
    assert not (tmp_path / "b").exists() and not (tmp_path / "v1.2").exists() and not (tmp_path / "table.json").exists()


def test_a_table_is_not_lost_under_its_own_facts(varlab: Call, places: Path) -> None:
    varlab("exits", "mini-var", "--out", "table.json").refused("table.json would hold CSV")


def test_half_a_character_loses_no_file(tmp_path: Path) -> None:
    """As in a file name that is no UTF-8; prompts and inputs of reports that hold one are refused."""
    facts = {"prompt_set": "b\udcff.txt", "prompt": "a star 🟢"}
    save_image(tmp_path / "a.png", Image.new("RGB", (4, 4)), facts)
    save_json(tmp_path / "a.json", facts)
    assert read_facts(tmp_path / "a.png") == read_facts(tmp_path / "a.json") == facts
    assert json.loads((tmp_path / "a.json").read_bytes()) == facts
    with pytest.raises(VarlabError, match="half a character"):
        check_prompts(["a star \ud83d"])
    with pytest.raises(VarlabError, match="prompt_set expects"):
        Parameter("prompt_set", "str", "scenes").coerce("b\udcff.txt")


def test_a_finished_run_is_not_said_to_be_written_again(varlab: Call, places: Path) -> None:
    (places / "here" / "mine.txt").write_text("a red star\na blue ring\n")
    command = ["log", "nano-infinity", "--prompts", "mine.txt", "--probe", "token-mse", "--out", "run"]
    assert varlab(*command).out.endswith("written to run\n")
    assert varlab(*command).out.endswith("run was there, finished; nothing was drawn\n")
    (places / "here" / "run" / "images" / "000001.png").unlink()
    assert varlab(*command).out.endswith("run was there, finished; 1 lost image drawn again\n")


def test_no_wait_reaches_what_a_notebook_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _kernel_manager(tmp_path, False)().kernel_spec.env[NO_WAIT] == "1"
    assert NO_WAIT not in _kernel_manager(tmp_path, True)().kernel_spec.env
    monkeypatch.setenv(NO_WAIT, "1")
    refused = pytest.raises(VarlabError, match="is being written by")
    with one_writer(tmp_path / "run"), refused, one_writer(tmp_path / "run"):
        pass


def test_reports_that_make_runs_are_named_after_their_inputs() -> None:
    """Under a name given by hand, another n would be refused."""
    lines = (Path(__file__).parents[1] / "Makefile").read_text().splitlines()
    reports = [line for line in lines if "varlab report" in line]
    assert reports and not any("--suffix" in line for line in reports)
    batch = yaml.safe_load((Path(__file__).parents[1] / "notebooks" / "reports.yaml").read_text())
    assert batch and all(isinstance(one, str) or set(one) == {"report", "parameters"} for one in batch)

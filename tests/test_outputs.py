"""Files say how they were made and take nobody's place unasked."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import varlab as vl
from varlab.cli import app
from varlab.errors import VarlabError
from varlab.outputs import read_facts, refuse_existing, save_image, save_json, save_table
from varlab.reports.parameters import Parameter
from varlab.reports.run import report_name

PROMPT = 'a "red" star\n上に青い輪 🟢 $5'


def run(*arguments: str) -> str:
    """What a command prints; its own errors are raised."""
    found = CliRunner().invoke(app, list(arguments))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def test_pictures_of_other_settings_have_other_names(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "s")]
    variants: list[list[str]] = [[], ["--method", "truncate:last=2"], ["--cfg", "2"], ["--tau", "0.5"]]
    for extra in [*variants, ["--top-k", "1"], ["--negative", "a blue ring"]]:
        run("sample", "nano-infinity", "a red star", *out, *extra)
    run("sample", "nano-infinity", "a blue ring", *out)
    assert len(pictures(tmp_path / "s")) == 7
    before = [path.read_bytes() for path in pictures(tmp_path / "s")]
    run("sample", "nano-infinity", "a red star", *out)  # the very same takes its own place
    assert len(pictures(tmp_path / "s")) == 7
    images = [Image.open(path).tobytes() for path in pictures(tmp_path / "s")]
    assert len(set(images)) == len(images) == len(before)


def test_a_picture_says_how_it_was_made(tmp_path: Path) -> None:
    run("sample", "nano-infinity", "a red star", "a blue ring", "--out", str(tmp_path), "--cfg", "2", "--seed", "3",
        "--method", "truncate:last=1")  # fmt: skip
    second = pictures(tmp_path)[1]
    facts = json.loads(run("show", str(second), "--json"))
    model = vl.load("nano-infinity")
    assert facts["prompt"] == "a blue ring" and facts["image"] == 1 and facts["seed"] == 3
    assert facts["accelerators"] == ["truncate:last=1"] and facts["settings"]["cfg"] == 2
    assert facts["weights"] == model.weights and facts["precision"] == "fp32" and facts["model"] == "nano-infinity"
    assert facts["versions"]["varlab"] and facts["git"] and facts["date"] and facts["device"]
    text = run("show", str(second))
    assert "prompt: a blue ring" in text and "seed: 3" in text and "truncate:last=1" in text


def test_any_letters_and_line_breaks_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert save_image(path, Image.new("RGB", (4, 4)), {"prompt": PROMPT})
    assert read_facts(path) == {"prompt": PROMPT}
    assert json.loads(run("show", str(path), "--json"))["prompt"] == PROMPT


def test_another_picture_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert save_image(path, Image.new("RGB", (4, 4)), {"seed": 1, "date": "yesterday"})
    held = path.read_bytes()
    assert not save_image(path, Image.new("RGB", (4, 4)), {"seed": 1, "date": "today"})
    assert path.read_bytes() == held
    for picture, facts in ((Image.new("RGB", (4, 4), "red"), {"seed": 1}), (Image.new("RGB", (4, 4)), {"seed": 2})):
        with pytest.raises(VarlabError, match="overwrite"):
            save_image(path, picture, facts)
        assert path.read_bytes() == held
    save_image(path, Image.new("RGB", (4, 4)), {"seed": 2}, overwrite=True)
    assert read_facts(path) == {"seed": 2}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = save_json(tmp_path / "a.json", {"facts": {"n": 1}})

    class Broken:
        def __str__(self) -> str:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        save_json(path, {"n": Broken()})
    assert read_facts(path) == {"n": 1} and list(tmp_path.iterdir()) == [path]


def test_tables_say_it_beside(tmp_path: Path) -> None:
    lone = save_table(tmp_path / "lone.csv", pd.DataFrame({"a": [1]}))
    save_json(tmp_path / "lone.json", {"seed": 4})
    several = save_table(tmp_path / "f" / "one.csv", pd.DataFrame({"a": [1]}))
    save_json(tmp_path / "f" / "facts.json", {"seed": 5})
    assert read_facts(lone)["seed"] == 4 and read_facts(several)["seed"] == read_facts(tmp_path / "f")["seed"] == 5
    with pytest.raises(VarlabError, match="does not say"):
        read_facts(save_table(tmp_path / "g" / "bare.csv", pd.DataFrame({"a": [1]})))
    with pytest.raises(VarlabError, match="There is no"):
        read_facts(tmp_path / "nothing.png")


def test_a_run_folder_and_its_pictures_say_it(tmp_path: Path) -> None:
    model = vl.load("nano-infinity")
    vl.log(model, ["a red star", "a blue ring"], seed=2, folder=tmp_path / "run", probes=[], tau=0.5)
    facts = read_facts(tmp_path / "run" / "images" / "000001.png")
    assert facts["prompt"] == "a blue ring" and facts["seed"] == 2 and facts["settings"]["tau"] == 0.5
    assert read_facts(tmp_path / "run")["prompts"] == ["a red star", "a blue ring"]


def test_a_comparison_keeps_its_folder(tmp_path: Path) -> None:
    model = vl.load("nano-infinity")
    first, second = (
        vl.compare(model, "scenes", ["truncate:last=1"], n=1, batch=1, seed=seed, frontier=False) for seed in (0, 1)
    )
    place = first.save(tmp_path / "c")
    first.save(place)  # itself again
    held = (place / "comparison.csv").read_bytes()
    with pytest.raises(VarlabError, match="overwrite"):
        second.save(place)
    assert (place / "comparison.csv").read_bytes() == held
    second.save(place, overwrite=True)
    assert read_facts(place)["seed"] == read_facts(place / "prompts.csv")["seed"] == 1
    assert read_facts(place / "images" / "01" / "0000.png")["accelerators"] == ["truncate:last=1"]


@pytest.mark.parametrize(
    "command",
    [
        ["score", "scenes", "nano-infinity", "--json", "{}/there.json"],
        ["export", "mini-var", "{}/there.npz"],
        ["exits", "mini-var", "--out", "{}/there.csv"],
        ["latency", "nano-infinity", "--out", "{}/there.json"],
        ["savings", "--out", "{}"],
        ["compare", "nano-infinity", "truncate:last=1", "--no-frontier", "--out", "{}"],
        ["calibrate", "sparsevar", "nano-infinity", "--out", "{}"],
        ["split", "nano-infinity", "--out", "{}"],
        ["card", "nano-infinity"],
    ],
)
def test_no_command_replaces_a_file_unasked(command: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    """Refused before a model is loaded, and nothing is touched."""
    monkeypatch.setattr("varlab.weights.zoo.load", None)
    for name in ("there.json", "there.npz", "there.csv", "sparsevar-shares.csv", "robust.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(VarlabError, match="overwrite"):
        run(*(word.format(tmp_path) for word in command))
    assert all(path.read_text() == "mine" for path in tmp_path.iterdir())


def test_samples_are_exported_as_asked_and_say_so(tmp_path: Path) -> None:
    for name, extra in (("a", []), ("b", ["--cfg", "3", "--top-k", "1"])):
        run("export", "mini-var", str(tmp_path / f"{name}.npz"), "--n", "2", *extra)
    assert (tmp_path / "a.npz").read_bytes() != (tmp_path / "b.npz").read_bytes()
    facts = read_facts(tmp_path / "b.npz")
    assert facts["settings"]["cfg"] == 3 and facts["settings"]["top_k"] == 1 and facts["n"] == 2
    assert read_facts(tmp_path / "a.npz")["settings"]["top_k"] != 1


def test_reports_of_other_inputs_have_other_names() -> None:
    declared = {
        "model": Parameter("model", "str", "mini-infinity"),
        "n": Parameter("n", "int", 32),
        "methods": Parameter("methods", "str", "none"),
    }
    assert report_name("20", declared, {"model": "mini-infinity", "n": 32}) == "20"
    assert report_name("20", declared, {"model": "mini-hart", "n": 8}) == "20-mini-hart-n-8"
    alike = [report_name("20", declared, {"methods": text}) for text in ("a:b=1", "a=b:1", "a b 1", "x" * 300)]
    assert len(set(alike)) == 4 and all(name.startswith("20-methods-") and len(name) < 100 for name in alike)
    assert report_name("20", declared, {"methods": "a:b=1"}) == alike[0]


def test_refusal_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(VarlabError, match=str(tmp_path / "a")):
        refuse_existing(tmp_path / "b", tmp_path / "a")
    refuse_existing(tmp_path / "a", overwrite=True)

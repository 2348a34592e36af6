"""Every command that writes: what is there stays, and what was written says how it was made."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.test_outputs import run
from varlab.comparison import compare
from varlab.errors import VarlabError
from varlab.outputs import read_facts, save_json
from varlab.scenes import summarise
from varlab.timing.benchmarks import gpu, suite
from varlab.timing.latency import latency
from varlab.weights.zoo import load

THERE = {
    "ablate": (["ablate", "--out", "{}", "--folder", "{}/runs"], "ablation.csv"),
    "growth": (["bench", "growth", "--out", "{}"], "bench/growth.csv"),
    "growth's figure": (["bench", "growth", "--out", "{}"], "bench/growth.png"),
    "every topic": (["bench", "--out", "{}"], "bench/probes.csv"),
    "card": (["card", "mini-var"], "mini-var/README.md"),
    "card's picture": (["card", "mini-var"], "mini-var/samples.png"),
    "train": (["train", "nano-infinity", "--out", "{}/mini"], "mini/model.json"),
    "train, a folder of something else": (["train", "nano-infinity", "--out", "{}/mini"], "mini/thesis.tex"),
    "freqexit": (["train", "freqexit", "--out", "{}/mini"], "mini/model.safetensors"),
    "convert": (["convert", "x.pth", "{}/x.safetensors", "--name", "var-d16"], "x.safetensors"),
    "split": (["split", "nano-infinity", "--out", "{}"], "robust.json"),
    "calibrate": (["calibrate", "skipvar", "nano-infinity", "--out", "{}"], "skipvar-accuracy.json"),
}


@pytest.mark.parametrize(("command", "name"), THERE.values(), ids=THERE)
def test_what_is_there_stays_unless_overwrite_is_given(
    command: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("varlab.evaluation.card.write_card", None)
    monkeypatch.setattr("varlab.timing.benchmarks.suite.measure", None)
    monkeypatch.setattr("varlab.training.command.train_command", None)
    monkeypatch.setattr("varlab.training.freqexit.command.freqexit_command", None)
    monkeypatch.setattr("varlab.studies.exits.ablation.train_freqexit", None)
    if command[0] == "card":
        monkeypatch.setattr("varlab.weights.embedded.data_folder", lambda: tmp_path)
        (tmp_path / "mini-var").mkdir()
        (tmp_path / "mini-var" / "model.json").write_text("mine")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(VarlabError, match=r"exists\. Give another place, or --overwrite"):
        run(*(word.format(tmp_path) for word in command))
    assert sorted(tmp_path.rglob("*")) == before and path.read_text() == "mine"


def test_every_command_is_in_the_table_of_files() -> None:
    from typer.main import get_command

    from varlab.cli import app

    page = (Path(__file__).parents[1] / "docs" / "files.md").read_text()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    own = [
        f"{name} {inner}".strip() for name, command in commands.items() for inner in getattr(command, "commands", [""])
    ]
    assert [name for name in own if not re.search(rf"`{name}[ `]", page)] == []


def measured(n: int) -> suite.Measured:
    axes = ["pixels"] * 2 + ["batch"] * 2
    points = pd.DataFrame({"axis": axes, "value": list("abcd"), "seconds": 1.0, "account": 1.0})
    points["seconds_growth"] = points["account_growth"] = [1.0, float(n)] * 2
    return suite.Measured("growth", points, "", {"precision": "fp32", "device": "cpu", "threads": 1, "n": n})


def test_a_benchmark_loses_no_measurement_and_its_table_says_which(tmp_path: Path) -> None:
    for n in (3, 5):
        suite.refuse_former(["growth"], tmp_path)
        suite.save(measured(n), tmp_path)
    history = [json.loads(line) for line in (tmp_path / "growth.jsonl").read_text().splitlines()]
    assert [entry["rows"][1]["seconds_growth"] for entry in history] == [3.0, 5.0]
    for name in ("growth.csv", "growth.jsonl", "growth.png"):
        assert read_facts(tmp_path / name)["n"] == 5
    assert not list(tmp_path.glob(".draft*"))


def test_a_benchmark_on_a_gpu_has_files_of_its_own(tmp_path: Path) -> None:
    dates = ("2026-11-29T10:00:00+00:00", "2026-11-29T10:00:01+00:00")
    kept = [gpu.save(gpu.GpuBench(facts={"device": "cuda (X)", "date": date}), tmp_path) for date in dates]
    assert len({path.name for path in kept}) == 2 and len(list(tmp_path.glob("*.csv"))) == 2
    assert read_facts(kept[0].with_suffix(".csv"))["date"] == dates[0]


def test_a_table_beside_a_card_is_not_of_the_card(tmp_path: Path) -> None:
    save_json(tmp_path / "card.json", {"weights": "trained", "scores": {}})
    for name in ("README.md", "skipvar-measured.csv"):
        (tmp_path / name).write_text("x")
    assert read_facts(tmp_path) == read_facts(tmp_path / "README.md") == {"weights": "trained"}
    with pytest.raises(VarlabError, match="does not say"):
        read_facts(tmp_path / "skipvar-measured.csv")


# Intervals


def scored(categories: list[str]) -> pd.DataFrame:
    rows = {"entry": range(len(categories)), "category": categories, "prompt": "x", "correct": True}
    return summarise(pd.DataFrame(rows))


def test_one_entry_tells_no_interval() -> None:
    assert scored(["a"])[["low", "high"]].isna().all(axis=None)
    mixed = scored(["a", "a", "b"])
    assert mixed.low.isna().tolist() == [False, True, True] and mixed["mean"].tolist() == [1, 1, 1]
    assert not scored(["a", "a", "b", "b"])[["low", "high"]].isna().any(axis=None)


def test_one_timed_batch_tells_no_spread() -> None:
    found = compare(load("nano-infinity"), ["a red star"], ["truncate:last=1"], frontier=False)
    speed, fidelity = found.speed(), found.fidelity()
    assert " to " not in "".join(speed["ms/image"]) and "[" not in "".join(speed["speed-up"])
    assert "[" not in "".join(fidelity["SSIM"]) and found.table.seconds_q25.isna().all()
    once = latency(load("nano-infinity"), ["a red star"], rounds=1)
    assert once.spans.iqr.isna().all() and "±" not in once.shown().to_string()
    twice = latency(load("nano-infinity"), ["a red star"], rounds=2)
    assert np.isfinite(twice.spans.iqr).all() and "±" in twice.shown().to_string()


def test_commands_say_that_one_tells_no_interval(capsys: Any) -> None:
    for command, what in (
        (["compare", "nano-infinity", "none", "--no-frontier", "--n", "1"], "One timed batch tells no interval"),
        (["score", "scenes", "nano-infinity", "--n", "1", "--per-prompt", "1"], "of a category tells no interval"),
        (["latency", "nano-infinity", "--rounds", "1", "--batch", "1"], "One round tells no interval"),
    ):
        said = run(*command) + capsys.readouterr().out
        assert what in " ".join(said.split()) and not re.search(r"\bnan\b", said)

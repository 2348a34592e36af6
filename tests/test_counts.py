"""A number of prompts or images that is too large for one call is refused before any of them is built."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import varlab as vl
from tests.cli_calls import Call, varlab  # noqa: F401
from tests.minis import refused
from varlab.scenes import prompt_sets
from varlab.scenes.prompt_sets import _interleaved

MANY = "1000000"
MODEL = "nano-infinity"
COMMANDS = (
    f"log {MODEL} --out OUT --n {MANY}",
    f"compare {MODEL} truncate:last=1 --out OUT --n {MANY}",
    f"score scenes {MODEL} --n {MANY}",
    f"score scenes {MODEL} --per-prompt {MANY}",
    f"score frechet mini-var --n {MANY}",
    f"score fid mini-var --n {MANY}",
    f"generate scenes {MODEL} none --out OUT --n {MANY}",
    f"generate fid mini-var none --out OUT --per-prompt {MANY}",
    f"tune {MODEL} --out OUT --n {MANY}",
    f"calibrate sparsevar {MODEL} --out OUT --n {MANY}",
    f"calibrate skipvar mini-infinity --out OUT --held-out {MANY}",
    f"evidence {MODEL} methods --out OUT --n {MANY}",
    f"split {MODEL} --out OUT --n {MANY}",
    f"export mini-var OUT.npz --n {MANY}",
    f"ablate --out OUT --folder OUT --n {MANY}",
    f"report 01_residual_spectra --out OUT -p n={MANY}",
    f"report 01_residual_spectra --out OUT -p control_n={MANY}",
    f"report 05_exit_motivation --out OUT -p removal_n={MANY}",
    "sweep OUT.yaml --out OUT",
)


def few(*given: Any) -> Iterator[prompt_sets.Prompt]:
    """A whole set, and then a failure in place of more."""
    yield from islice(_interleaved(*given), 553)
    raise AssertionError("more prompts are built")


@pytest.mark.parametrize("command", COMMANDS)
def test_many_prompts_are_refused_at_once(
    command: str, varlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "OUT.yaml").write_text(f"models: [{MODEL}]\nspecs: [none]\nprompts: [{{set: scenes, n: {MANY}}}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prompt_sets, "_interleaved", few)
    varlab(*command.split()).refused("100,000", MANY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["OUT.yaml"]


@pytest.mark.parametrize("command", ["score scenes MODEL", "generate scenes MODEL none --out OUT", "card MODEL"])
def test_many_images_of_each_prompt_are_as_many(
    command: str, varlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    varlab(*command.replace("MODEL", MODEL).split(), "--per-prompt", "1000").refused("100,000", "553000")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n", [0, -1, True, 2.5, "5"])
def test_a_number_of_prompts_is_a_whole_one(n: object) -> None:
    refused(lambda: vl.prompts("scenes", n=n), "at least one prompt", str(n))  # type: ignore[arg-type]


def test_a_benchmark_gives_no_more_prompts_than_it_has(varlab: Call, tmp_path: Path) -> None:
    """Its scores would be said to be of more of them than were drawn."""
    varlab("score", "scenes", MODEL, "--n", "600").refused("553 prompts, not 600")
    varlab("generate", "geneval", MODEL, "none", "--out", str(tmp_path / "o"), "--n", "600").refused("553 prompts")
    assert not list(tmp_path.iterdir())

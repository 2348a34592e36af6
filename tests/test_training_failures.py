"""Training that fails loses nothing and says what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.failing import failing
from tests.minis import refused
from tests.test_training import LOOP, TINY, finished  # noqa: F401  (a fixture)
from varlab.errors import VarlabError
from varlab.schedules import square
from varlab.training import command
from varlab.training import loop as loops
from varlab.training.export import export
from varlab.training.launch import launch
from varlab.training.loop import Loop
from varlab.training.pipeline import begin_from, train
from varlab.training.recipes import NANO_INFINITY, recipe
from varlab.weights.embedded import load_mini


def test_another_architecture_is_refused_with_what_differs(
    finished: Path,
    tmp_path: Path,
) -> None:
    mini, run = tmp_path / "mini", tmp_path / "run"
    export(TINY, finished, mini)
    refused(lambda: begin_from(NANO_INFINITY, run, mini), "another architecture", "transformer.depth 2, not 8")
    wider = replace(TINY, schedule=square((1, 3, 4), "other"))
    message = refused(lambda: begin_from(wider, run, mini), "schedule ((1, 1), (2, 2), (4, 4)), not ((1, 1), (3, 3)")
    assert "transformer" not in message and "image_size" not in message
    begin_from(TINY, run, mini)
    refused(lambda: begin_from(TINY, finished, mini), "a run from nothing", "another --folder")
    facts = json.loads((mini / "model.json").read_text())
    (mini / "model.json").write_text(json.dumps(facts | {"scene_version": "0"}))
    refused(lambda: begin_from(TINY, tmp_path / "other", mini), "version 0", "version 1")


def test_other_weights_than_those_begun_from_are_refused(finished: Path, tmp_path: Path) -> None:
    mini, run = tmp_path / "mini", tmp_path / "run"
    export(TINY, finished, mini)
    begin_from(TINY, run, mini)
    assert train(TINY.with_sizes(steps=1), run)
    export(TINY.with_sizes(steps=1), run, mini)
    refused(lambda: begin_from(TINY, run, mini), "continues from other weights", "another --folder")


def test_a_run_of_other_settings_is_refused(finished: Path) -> None:
    with pytest.raises(VarlabError, match="other settings"):
        train(TINY.with_sizes(steps=7), finished)
    with pytest.raises(VarlabError, match="another scene pool"):
        train(TINY.with_sizes(pool=25), finished)


class Exploding:
    """A task whose loss, or gradient alone, is not finite at step 3."""

    def __init__(self, gradient: bool = False) -> None:
        self.module, self.gradient = torch.nn.Linear(2, 1), gradient

    def loss(self, step: int, rank: int) -> tuple[torch.Tensor, dict[str, float]]:
        value = self.module(torch.ones(1, 2)).square().mean()
        if step == 3 and self.gradient:
            return value + (self.module.weight * 0).sum().abs().sqrt(), {}  # sqrt has no finite slope at zero
        return (value * float("nan") if step == 3 else value), {}


@pytest.mark.parametrize("gradient", [False, True])
def test_what_is_not_finite_keeps_the_last_good_state(tmp_path: Path, gradient: bool) -> None:
    with pytest.raises(VarlabError, match=f"{'gradient' if gradient else 'loss'}.* step 3"):
        Loop(Exploding(gradient), LOOP, tmp_path).run()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 3
    assert all(value.isfinite().all() for value in state["module"].values())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_keeps_the_former_checkpoint(tmp_path: Path) -> None:
    """The draft is written to a device without room, where torch fails in its own way."""
    loop = Loop(Exploding(), LOOP, tmp_path)
    loop.save()
    before = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt.part").symlink_to("/dev/full")
    with pytest.raises(VarlabError, match="former checkpoint is kept"):
        loop.save()
    assert (tmp_path / "state.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_worker_that_refuses_says_why() -> None:
    refused(lambda: launch(2, failing), "no room in any of 2 workers")


def test_a_run_that_is_stopped_leaves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to stop at once, it does after ten updates; what was meant to be shipped is not written over."""
    seldom = replace(LOOP, checkpoint_seconds=600)  # each adds a row of samples
    longer = replace(TINY, tokenizer_loop=seldom, loop=seldom).with_sizes(steps=20)
    monkeypatch.setattr(command, "find_recipe", lambda name: longer)
    monkeypatch.setattr(loops._Stop, "asked", True)
    told = command.train_command("tiny", tmp_path / "run", 1, "cpu", None, None, None, tmp_path / "out")
    assert "stopped" in told and "the same command goes on" in told and not (tmp_path / "out").exists()
    assert load_mini(tmp_path / "run" / "tiny")[1].extra["transformer_steps"] == 10


def test_unknown_recipe_lists_near_names() -> None:
    with pytest.raises(VarlabError, match="nano-infinity"):
        recipe("nano-infinty")

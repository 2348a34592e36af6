"""What a run shows: its pace, the former run's loss beside its own, and samples at every checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.test_training import TINY
from varlab.training.command import Reporter, reporter, train_command
from varlab.training.loop import Progress
from varlab.training.recipes import MINI_VAR, RECIPES
from varlab.training.strip import prompts_of


def test_the_former_loss_is_that_of_as_many_samples(capsys: pytest.CaptureFixture[str]) -> None:
    samples = [100.0 * i for i in range(1, 101)]
    shown = Reporter({"transformer": 20}, {"transformer": (samples, [1000 - s / 10 for s in samples])})
    shown("transformer", Progress(250, 900, {"loss": 2.0}, 60.0, 120.0, 1.5))
    assert "250/900  loss 2  (former 500)  30.0 samples/s  2 min left" in capsys.readouterr().out
    shown("transformer", Progress(900, 900, {"loss": 2.0}, 60.0, 0.0, 1.5))  # further than the former run came
    assert "(former" not in capsys.readouterr().out


def test_a_recipe_without_a_shipped_run_has_no_former_loss(tmp_path: Path) -> None:
    assert reporter(TINY, 2, tmp_path).former == reporter(TINY, 2, None).former == {}
    assert reporter(TINY, 2, None).batches == {"tokenizer": 8, "transformer": 8}


def test_training_shows_its_pace_and_draws_at_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice the same recipe: the second run stands beside the shipped first one."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, loop=replace(TINY.loop, checkpoint_seconds=300)))
    run, shipped = tmp_path / "run", tmp_path / "data" / "tiny"
    train_command("tiny", run, 1, "cpu", None, None, None, shipped)
    out = capsys.readouterr().out
    assert "samples/s" in out and "(former" not in out
    strip, row = Image.open(run / "samples.png"), Image.open(run / "samples" / "0000006.png")
    assert strip.size == row.size == (4 * 16, 16) and np.asarray(strip).any()
    train_command("tiny", tmp_path / "again", 1, "cpu", None, None, None, None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("transformer 3/6")]
    loss = pd.read_csv(shipped / "training" / "transformer.csv").loss[2]
    assert len(lines) == 1 and f"(former {loss:.4g})" in lines[0]


def test_four_prompts_of_either_kind() -> None:
    assert len(prompts_of(TINY)) == 4
    assert len(set(prompts_of(MINI_VAR))) == 4 and set(prompts_of(MINI_VAR)) <= set(MINI_VAR.classes)

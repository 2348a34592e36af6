"""What test_zoo.py and test_zoo_files.py share."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.minis import CONFIG, SCHEDULE, TOKENIZER
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.guidance import Settings
from varlab.models.hart_model import Hart
from varlab.models.infinity_model import Infinity
from varlab.models.var_model import VAR
from varlab.weights import registry
from varlab.weights.official import ModelEntry
from varlab.weights.writing import hash_tensors


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own data and checkpoint folders, so that nothing of this computer matters."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setattr("varlab.models.text.find_spec", lambda name: name)  # transformers counts as installed
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ModelEntry("tiny", CONFIG, TOKENIZER, lambda *_: SCHEDULE, Settings(), "", "tiny.pth", "vae.pth")
    twin = replace(entry, name="tiny-512", file="tiny_512.pth")
    unreleased = replace(entry, name="tiny-unreleased", file="")
    monkeypatch.setattr(registry, "MODELS", registry.Registry([entry, twin, unreleased]))


def draw(model: Infinity | Hart | VAR) -> torch.Tensor:
    assert isinstance(model, Infinity)
    return Run(model, model.settings, SeededNoise(0)).generate(["a red star", "a blue ring above a star"], [0, 1]).image


def weights_hash(module: nn.Module) -> str:
    return hash_tensors(module.state_dict())

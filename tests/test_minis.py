"""Minis of HART and VAR: saved, loaded and drawn from like Infinity's."""

from pathlib import Path

import pytest
import torch

from tests.minis import WORDS, refused
from varlab import schedules
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.captions import CaptionEncoder
from varlab.models.guidance import Settings
from varlab.models.hart import HartConfig
from varlab.models.hart_captions import pad
from varlab.models.hart_settings import HartSettings
from varlab.models.infinity import TextBatch
from varlab.models.tokenizers.hybrid import HybridConfig
from varlab.models.tokenizers.vqvae import VQConfig
from varlab.models.var import VARConfig
from varlab.weights import zoo
from varlab.weights.embedded import Parts, save_mini
from varlab.weights.families import build

SIDES = (1, 2, 4)


def save_hart(folder: Path) -> None:
    config = HartConfig(2, 64, 2, 32, 8, text_length=12, text_width=64, stages=3, diffusion_width=32, diffusion_depth=1)
    images = HybridConfig(32, 8, 32, (1, 1, 1), blocks=1)
    parts = Parts(build(config), build(images), CaptionEncoder(WORDS, 64))
    save_mini(folder, parts, schedules.square(SIDES, "test"), HartSettings(top_k=0), {})


def save_var(folder: Path) -> None:
    config = VARConfig(2, 64, 2, classes=2, codes=32, code_width=8, sides=SIDES)
    images = VQConfig(32, 8, 32, (1, 1, 1), blocks=1, norm_groups=8, stages=3)
    parts = Parts(build(config), build(images), None)
    save_mini(folder, parts, schedules.square(SIDES, "test"), Settings(1.5), {}, ("red star", "blue ring"))


@pytest.mark.parametrize(
    ("save", "prompt", "wrong"), [(save_hart, "a red star", "a red stat"), (save_var, "red star", "red stat")]
)
def test_a_mini_of_another_family_draws(
    save, prompt: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path))
    save(tmp_path / "mini")
    model = zoo.load("mini")
    zoo.check_captions(zoo.find("mini"), [prompt])
    refused(lambda: zoo.check_captions(zoo.find("mini"), [wrong]), "star")
    refused(lambda: model.check_text([wrong]), "star")
    first, again = (Run(m, m.settings, SeededNoise(0)).generate([prompt], [0]).image for m in (model, zoo.load("mini")))
    assert first.shape == (1, 3, 16, 16) and torch.equal(first, again)
    assert "trained (varlab mini" in model.weights and "random" in zoo.load("mini", "random").weights


def test_padding_keeps_the_words_and_masks_the_rest() -> None:
    features = torch.arange(6.0).view(3, 2)
    text = pad(TextBatch(features, (1, 2)), 4)
    assert text.mask.tolist() == [[True, False, False, False], [True, True, False, False]]
    assert torch.equal(text.features[text.mask], features) and not text.features[~text.mask].any()

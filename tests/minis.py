"""A tiny mini with random weights, in memory and in a folder, and what tests of refusals share."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

import varlab as vl
from varlab import schedules
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.captions import CaptionEncoder
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.scenes import VOCABULARY
from varlab.weights.embedded import Parts, save_mini

CONFIG = InfinityConfig(4, 96, 4, 8, chunks=2, text_width=128, text_length=32)
TOKENIZER = BSQConfig(8, stride=4, channels=16, multipliers=(1, 1, 2), norm_groups=8)
SCHEDULE = schedules.Schedule(((1, 1), (2, 2), (4, 4)), (8, 8), "test")
TEN_STAGES = schedules.square((1, 2, 2, 3, 3, 4, 4, 5, 6, 8), "ten")  # enough for methods that decide late
NANO_STAGES = schedules.square((1, 2, 3, 4, 6, 8), "nano")
WORDS = ("a", "red", "star", "above", "blue", "ring")
SETTINGS = Settings(cfg=(3.0, 2.5, 2.0), tau=0.9, top_k=0, top_p=0.95)


def parts(seed: int = 5, words: tuple[str, ...] = WORDS) -> tuple[InfinityTransformer, BSQTokenizer, CaptionEncoder]:
    torch.manual_seed(seed)
    return InfinityTransformer(CONFIG), BSQTokenizer(TOKENIZER), CaptionEncoder(words, width=128)


def make_mini(
    folder: Path, seed: int = 5, schedule: schedules.Schedule = SCHEDULE, words: tuple[str, ...] = WORDS
) -> str:
    """The hash of its weights."""
    weights, files = _made(seed, schedule, words)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return weights


def make_nano(data: Path) -> str:
    """A random mini of nano-infinity's name, stages and words, at a fraction of its work; the hash of its weights."""
    return make_mini(data / "nano-infinity", schedule=NANO_STAGES, words=VOCABULARY)


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NextScaleModel]:
    """Meanwhile the name nano-infinity means the random mini that ``make_nano`` makes."""
    place = tmp_path_factory.mktemp("data")
    make_nano(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VARLAB_DATA", str(place))
        yield vl.load("nano-infinity")


@cache
def _made(seed: int, schedule: schedules.Schedule, words: tuple[str, ...]) -> tuple[str, dict[str, bytes]]:
    settings = SETTINGS if schedule is SCHEDULE else replace(SETTINGS, cfg=2.0)
    with TemporaryDirectory() as folder:
        weights = save_mini(folder, Parts(*parts(seed, words)), schedule, settings, {"samples": 1000, "seed": seed})
        return weights, {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def make_encoder(folder: Path) -> None:
    """The names that a folder of a text encoder holds, for tests that replace the library."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")


def refused(action: Callable[[], object], *words: str) -> str:
    """The message of the VarlabError that ``action`` must raise; it holds all ``words``."""
    with pytest.raises(VarlabError) as caught:
        action()
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)

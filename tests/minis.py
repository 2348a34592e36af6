"""A tiny mini with random weights, in memory and in a folder, and what tests of refusals share."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from varlab import schedules
from varlab.errors import VarlabError
from varlab.models.captions import CaptionEncoder
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.weights.embedded import Parts, save_mini

CONFIG = InfinityConfig(4, 96, 4, 8, chunks=2, text_width=128, text_length=32)
TOKENIZER = BSQConfig(8, stride=4, channels=16, multipliers=(1, 1, 2), norm_groups=8)
SCHEDULE = schedules.Schedule(((1, 1), (2, 2), (4, 4)), (8, 8), "test")
TEN_STAGES = schedules.square((1, 2, 2, 3, 3, 4, 4, 5, 6, 8), "ten")  # enough for methods that decide late
WORDS = ("a", "red", "star", "above", "blue", "ring")
SETTINGS = Settings(cfg=(3.0, 2.5, 2.0), tau=0.9, top_k=0, top_p=0.95)


def parts(seed: int = 5) -> tuple[InfinityTransformer, BSQTokenizer, CaptionEncoder]:
    torch.manual_seed(seed)
    return InfinityTransformer(CONFIG), BSQTokenizer(TOKENIZER), CaptionEncoder(WORDS, width=128)


def make_mini(folder: Path, seed: int = 5, schedule: schedules.Schedule = SCHEDULE) -> str:
    """The hash of its weights."""
    weights, files = _made(seed, schedule)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return weights


@cache
def _made(seed: int, schedule: schedules.Schedule) -> tuple[str, dict[str, bytes]]:
    settings = SETTINGS if schedule is SCHEDULE else replace(SETTINGS, cfg=2.0)
    with TemporaryDirectory() as folder:
        weights = save_mini(folder, Parts(*parts(seed)), schedule, settings, {"samples": 1000, "seed": seed})
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
        assert word in str(caught.value)
    return str(caught.value)

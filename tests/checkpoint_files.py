"""What test_checkpoints.py and test_checkpoint_refusals.py share."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.minis import TOKENIZER
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.weights.choosing import choose
from varlab.weights.fitting import load_into
from varlab.weights.reading import read

CONFIG = InfinityConfig(4, 96, 4, 8, chunks=2, text_width=128, text_length=16)


@pytest.fixture(scope="module")
def transformer() -> InfinityTransformer:
    torch.manual_seed(1)
    return InfinityTransformer(CONFIG)


@pytest.fixture(scope="module")
def tokenizer() -> BSQTokenizer:
    torch.manual_seed(2)
    return BSQTokenizer(TOKENIZER)


def fill(module: nn.Module, path: Path, precision: str = "fp32", ema: bool = False) -> nn.Module:
    """A module with what a file holds of it."""
    chosen = choose(read(path), module.state_dict(), ema)
    load_into(module, chosen.tensors, chosen.label, precision)
    return module


def empty(config: InfinityConfig | BSQConfig) -> nn.Module:
    with torch.device("meta"):
        return InfinityTransformer(config) if isinstance(config, InfinityConfig) else BSQTokenizer(config)


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)

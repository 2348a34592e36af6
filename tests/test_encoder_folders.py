"""A text encoder that is a file, lacks a file or is damaged: one message that names it, before any weights are read."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.minis import make_encoder, refused
from varlab.models import text as texts
from varlab.models.qwen import QwenText
from varlab.models.text import FlanT5

ENCODERS: tuple[Callable[[str], FlanT5 | QwenText], ...] = (FlanT5, QwenText)


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check needs transformers to be there, not to work."""
    monkeypatch.setattr(texts, "find_spec", lambda name: name)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_files_and_folders_that_hold_no_encoder_are_named(
    encoder: Callable[[str], FlanT5 | QwenText], tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    refused(encoder(str(file)).require, str(file), "is a file", "folder")
    folder = tmp_path / "t5"
    folder.mkdir()
    refused(encoder(str(folder)).require, "config.json", "tokenizer", "weights")
    (folder / "config.json").write_text("{")
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer" not in refused(encoder(str(folder)).require, "lacks weights")
    (folder / "model.safetensors").write_bytes(b"damaged")
    refused(encoder(str(folder)).require, "config.json", "not valid JSON")


class Broken:
    """Both classes of a library that meets a damaged file, with an error of its own that says nothing."""

    @staticmethod
    def from_pretrained(source: str, **options: object) -> None:
        raise RuntimeError


def test_damaged_weights_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_encoder(tmp_path)
    library = types.SimpleNamespace(AutoTokenizer=Broken, T5EncoderModel=Broken)
    monkeypatch.setitem(sys.modules, "transformers", library)  # type: ignore[arg-type]
    encoder = FlanT5(str(tmp_path))
    encoder.require()
    refused(encoder.parts, str(tmp_path), "could not be loaded (RuntimeError)")

"""HART's text encoder: the official steps on a stand-in and on a tiny random Qwen2, the system prompt, features."""

import hashlib
import sys
import types
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import HART_TEXT, HART_TEXT_WIDTH, hart_features, tiny_hart
from tests.minis import make_encoder, refused
from varlab import runs
from varlab.models import qwen
from varlab.models import text as texts
from varlab.models.hart import HartText
from varlab.models.infinity import TextBatch
from varlab.models.qwen import QwenText, read_system_prompt
from varlab.runs import inputs

WIDTH, LENGTH, PAD = 8, 6, 0
SYSTEM = "Say what is to be seen.\nUser Prompt:\n"


class StubTokenizer:
    """One token a word, 0 as padding, on either side."""

    pad_token_id = PAD

    def __init__(self, side: str) -> None:
        self.side = side

    def __call__(self, prompt: str, **options: Any) -> dict[str, Any]:
        ids = [1 + len(word) for word in prompt.split()]
        if "max_length" not in options:
            return {"input_ids": ids}
        assert options["padding"] == "max_length" and options["truncation"] and options["return_tensors"] == "pt"
        ids = ids[: options["max_length"]]
        room = [PAD] * (options["max_length"] - len(ids))
        return {"input_ids": torch.tensor([room + ids if self.side == "left" else ids + room])}


class StubModel(nn.Module):
    """Features that tell everything the model was given: token, position, mask and how many tokens came before."""

    config = types.SimpleNamespace(hidden_size=WIDTH)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, use_cache: bool
    ) -> Any:
        assert not use_cache and input_ids.shape == attention_mask.shape == position_ids.shape
        told = torch.stack([input_ids, position_ids, attention_mask], -1).to(torch.bfloat16)
        return types.SimpleNamespace(last_hidden_state=nn.functional.pad(told, (0, WIDTH - 3)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a system prompt, known by the hash of the test's own."""
    monkeypatch.setattr(qwen, "SYSTEM_PROMPT_SHA256", hashlib.sha256(SYSTEM.encode()).hexdigest())
    monkeypatch.setattr(texts, "find_spec", lambda name: name)
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "constants.py").write_text(f'"""Official."""\nother = "x"\nllm_system_prompt = {SYSTEM!r}\n')
    make_encoder(tmp_path / "qwen")
    return tmp_path / "qwen"


def stub(monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    module: Any = types.ModuleType("transformers")
    module.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda *_, **__: StubTokenizer(side))
    module.AutoModel = types.SimpleNamespace(from_pretrained=lambda *_, **__: StubModel())
    monkeypatch.setitem(sys.modules, "transformers", module)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_official_steps(folder: Path, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    """System prompt before, its tokens cut off after; padding kept as rows and told by the mask; plain positions."""
    stub(monkeypatch, side)
    text = QwenText(str(folder), LENGTH, WIDTH)(["a red star", "one"])
    before = len(SYSTEM.split())
    real = [[1 + len(word) for word in prompt.split()] for prompt in ("a red star", "one")]
    for row, ids in enumerate(real):
        room = [PAD] * (LENGTH - len(ids))
        tokens = room + ids if side == "left" else ids + room
        assert text.features[row, :, 0].tolist() == tokens
        assert text.features[row, :, 1].tolist() == list(range(before, before + LENGTH))
        assert text.mask[row].tolist() == [token != PAD for token in tokens] == text.features[row, :, 2].bool().tolist()
    assert text.features.dtype == torch.float32 and text.features.shape == (2, LENGTH, WIDTH)
    assert text.positions[0].tolist() == ([-1, -1, -1, 0, 1, 2] if side == "left" else [0, 1, 2, 2, 2, 2])


def test_a_long_prompt_is_cut_with_a_warning_that_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, "right")
    encoder = QwenText(str(folder), LENGTH, WIDTH)
    with pytest.warns(UserWarning, match=r"first 6 of 9 tokens of this prompt.*word word"):
        text = encoder(["word " * 9])
    assert text.mask.all() and text.features[0, :, 0].tolist() == [5.0] * LENGTH
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(["word " * LENGTH])


def test_a_real_qwen2_gives_the_same_features_in_any_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.Qwen2Config(
        vocab_size=40, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    transformers.Qwen2Model(config).save_pretrained(folder)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: StubTokenizer("right"))
    encoder = QwenText(str(folder), LENGTH, WIDTH)
    both = encoder(["a red star", "one two"])
    assert torch.equal(both.features[1:], encoder(["one two"]).features)
    ids = [1 + len(word) for word in (SYSTEM + "a red star").split()]
    direct = encoder.parts()[1](input_ids=torch.tensor([ids])).last_hidden_state[0, -3:]
    torch.testing.assert_close(both.features[0, :3], direct, atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in encoder.parts()[1].parameters())
    refused(lambda: QwenText(str(folder), LENGTH, 2 * WIDTH)(["a"]), "8 channels for 16", qwen.HUB)


def test_the_system_prompt_is_known_by_its_hash(folder: Path, tmp_path: Path) -> None:
    assert read_system_prompt(folder / "constants.py") == SYSTEM
    plain = tmp_path / "prompt.txt"
    plain.write_text(SYSTEM)
    assert QwenText(str(tmp_path), system_prompt=plain).prefix() == SYSTEM
    plain.write_text(SYSTEM + " ")
    refused(lambda: read_system_prompt(plain), "prompt.txt", "unchanged", "sha256")
    refused(lambda: read_system_prompt(tmp_path / "none.py"), "cannot be read")
    assert len(qwen.SYSTEM_PROMPT_SHA256) == 64


def test_the_official_hash_is_the_documented_one() -> None:
    assert qwen.SYSTEM_PROMPT_SHA256 == "424f7aa7b1119f8ed1e329140e5941dfe308183bea0af59041dad5527a9b8f20"


def test_what_is_missing_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    QwenText(str(folder)).require()
    refused(QwenText(str(tmp_path / "none")).require, "does not exist", qwen.HUB, "features")
    (folder / "constants.py").unlink()
    refused(QwenText(str(folder)).require, "hart/utils/constants.py", "text='features'")
    copied = tmp_path / "checkpoints" / "hart-0.7b-1024px"
    copied.mkdir(parents=True)
    (copied / "constants.py").write_text(f"llm_system_prompt = {SYSTEM!r}")
    QwenText(folders=(tmp_path, copied)).require()
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    refused(QwenText(str(folder)).require, "Qwen2", "pip install -e .[text]")
    refused(lambda: QwenText("x", precision="f16"), "fp16")


def test_an_unreadable_encoder_is_named(folder: Path) -> None:
    pytest.importorskip("transformers")
    refused(lambda: QwenText(str(folder))(["a"]), "could not be loaded", "text='random'")


# Features in place of prompts


def test_features_are_a_hart_text_or_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = tiny_hart(), hart_features(3, 6)
    whole = runs.sample(model, given)
    for image, other in zip(runs.sample(model, given, batch=1).images, whole.images, strict=True):
        assert np.abs(np.asarray(image, int) - np.asarray(other, int)).max() <= 1  # the last bit, by processor
    arrays = [part.numpy() for part in given.features]
    masked = HartText(given.features, torch.ones_like(given.mask))
    assert runs.sample(model, arrays).images[0].tobytes() == runs.sample(model, masked).images[0].tobytes()
    assert runs.sample(model, arrays).images[0].tobytes() != whole.images[0].tobytes()  # its mask has only 3 real rows
    labels = [inputs.prompt_label(part) for part in given.split()]
    assert labels[0].startswith("features ") and labels[0] != labels[1]
    assert labels[0] != inputs.prompt_label(HartText(given.features[:1], masked.mask[:1]))


def test_features_of_a_wrong_shape_are_refused() -> None:
    model, right = tiny_hart(), np.zeros((HART_TEXT, HART_TEXT_WIDTH))
    for wrong in (np.zeros((HART_TEXT + 1, HART_TEXT_WIDTH)), np.zeros((HART_TEXT, 3))):
        refused(partial(runs.sample, model, [wrong]), str(wrong.shape), f"({HART_TEXT}, {HART_TEXT_WIDTH})")
    refused(lambda: runs.sample(model, [right, np.zeros((2, HART_TEXT_WIDTH))]), f"(2, {HART_TEXT_WIDTH})")
    refused(lambda: runs.sample(model, ["a red star"]), "without a text encoder", "arrays [6, 24]")
    refused(lambda: model.check_text(TextBatch(torch.zeros(4, HART_TEXT_WIDTH), (4,))), "(4, 24)")
    refused(lambda: HartText.join([hart_features(1), HartText(torch.zeros(1, 2, 3), torch.ones(1, 2))]), "one shape")

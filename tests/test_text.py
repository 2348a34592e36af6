"""Text encoders: Flan-T5's ragged rows on a tiny random encoder, random features."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.minis import make_encoder
from varlab.errors import VarlabError
from varlab.models import text as texts
from varlab.models.text import FlanT5, RandomText, choose, random_text

WIDTH = 32


class StubTokenizer:
    """One token a word, 1 at the end, 0 as padding: what the T5 tokenizer does, without its vocabulary."""

    def __call__(
        self, prompts: Sequence[str], max_length: int = 0, truncation: bool = False, **options: Any
    ) -> dict[str, Any]:
        rows = [[2 + len(word) for word in prompt.split()] + [1] for prompt in prompts]
        if truncation:
            rows = [row if len(row) <= max_length else [*row[: max_length - 1], 1] for row in rows]
        if options.get("return_tensors") != "pt":
            return {"input_ids": rows}
        assert options["padding"] == "longest"
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.fixture
def encoder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> FlanT5:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.T5Config(
        vocab_size=40, d_model=WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    transformers.T5EncoderModel(config).save_pretrained(tmp_path)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: StubTokenizer())
    return FlanT5(str(tmp_path))


def test_rows_are_the_real_tokens_of_each_prompt(encoder: FlanT5) -> None:
    prompts = ["a red star", "one two three four five six"]
    both = encoder(prompts)
    assert both.lengths == (4, 7)  # words and the end token
    assert both.features.shape == (11, WIDTH) and both.features.dtype == torch.float32
    for prompt, rows in zip(prompts, both.features.split(both.lengths), strict=True):
        torch.testing.assert_close(rows, encoder([prompt]).features, atol=1e-5, rtol=1e-4)
    assert encoder([""]).lengths == (1,)


def test_weights_are_those_of_the_folder_and_frozen(encoder: FlanT5) -> None:
    tokenizer, module = encoder.parts()
    assert isinstance(tokenizer, StubTokenizer) and not module.training
    assert not any(p.requires_grad for p in module.parameters())
    direct = module(input_ids=torch.tensor([[5, 1]])).last_hidden_state[0]
    torch.testing.assert_close(encoder(["abc"]).features, direct, atol=1e-6, rtol=1e-5)
    half = FlanT5(encoder.source, precision="bf16")
    assert half(["abc"]).features.dtype == torch.float32
    assert next(half.parts()[1].parameters()).dtype == torch.bfloat16
    torch.testing.assert_close(half(["abc"]).features, direct, atol=0.1, rtol=0.1)


def test_a_long_prompt_is_cut_with_a_warning_that_names_it(encoder: FlanT5) -> None:
    long = "word " * 600
    with pytest.warns(UserWarning, match=r"512 tokens.*word word"):
        assert encoder(["short", long]).lengths == (2, 512)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encoder(["word " * 511]).lengths == (512,)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(VarlabError, match=r"could not be loaded.*text='random'"):
        FlanT5(str(tmp_path))(["a"])
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(VarlabError, match=r"pip install -e \.\[text\]"):
        FlanT5("anywhere")(["a"])
    with pytest.raises(VarlabError, match="Did you mean fp16"):
        FlanT5("anywhere", precision="f16")


@pytest.mark.parametrize("prompts", ["a red star", [], [3]])
def test_prompts_must_be_a_list_of_strings(prompts: Any) -> None:
    with pytest.raises(VarlabError, match="list of prompts"):
        random_text(prompts, 8)
    with pytest.raises(VarlabError, match="list of prompts"):
        FlanT5("anywhere")(prompts)


def test_a_missing_library_or_folder_is_told_without_loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(texts, "find_spec", lambda name: name)
    FlanT5("google/flan-t5-xl").require()
    make_encoder(tmp_path)
    FlanT5(str(tmp_path)).require()
    with pytest.raises(VarlabError, match="does not exist"):
        FlanT5(str(tmp_path / "t5")).require()
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    with pytest.raises(VarlabError, match=r"pip install -e \.\[text\]"):
        FlanT5("google/flan-t5-xl").require()


def test_random_text_depends_on_prompt_and_seed_alone() -> None:
    batch = random_text(["a", "b"], 64, rows=50)
    assert batch.lengths == (50, 50) and batch.features.shape == (100, 64)
    assert torch.equal(batch.features[50:], random_text(["b"], 64, rows=50).features)
    assert not torch.equal(batch.features[:50], batch.features[50:])
    assert not torch.equal(batch.features, random_text(["a", "b"], 64, rows=50, seed=1).features)
    assert abs(float(batch.features.mean())) < 0.05 and abs(float(batch.features.std()) - 1) < 0.05
    with pytest.raises(VarlabError, match="at least one row"):
        random_text(["a"], 8, rows=0)


def test_choice_by_name() -> None:
    drawn = choose(None, 8, "random", "cpu", "fp32", 4)
    assert isinstance(drawn, RandomText) and "seed 4" in drawn.label
    assert torch.equal(drawn(["x"]).features, random_text(["x"], 8, seed=4).features)
    flan = choose(None, 8, "flan-t5-xl", "cpu", "bf16", 0)
    assert isinstance(flan, FlanT5) and flan.label == "google/flan-t5-xl (bf16)"
    other = choose("/some/folder", 8, "random", "cpu", "fp32", 0)
    assert isinstance(other, FlanT5) and other.source == "/some/folder"
    assert choose(drawn, 8, "flan-t5-xl", "cpu", "fp32", 0) is drawn

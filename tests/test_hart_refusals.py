"""HART's folders and features that do not fit: each refused by a sentence that names what is off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import HART_TEXT, HART_TEXT_WIDTH, hart_features, tiny_hart
from tests.hart_folder import ENTRY, config_of, load_features, write
from tests.minis import refused
from varlab.models.hart_model import Hart
from varlab.runs import sample
from varlab.weights.hart_files import load_hart


def damage(folder: Path, key: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Path:
    path = folder / "llm" / "ema_model.bin"
    tensors = torch.load(path)
    changed = change(tensors.pop(key))
    torch.save(tensors if changed is None else tensors | {key: changed}, path)
    return folder


NO_NUMBERS: list[dict[str, Any]] = [
    {"patch_nums": "1_b"}, {"patch_nums": []}, {"patch_nums": 7}, {"patch_nums": [1, 0]}, {"mlp_ratio": "four"},
    {"mlp_ratio": None}, {"context_token": None}, {"context_token": -3}, {"num_sampling_steps": 1001}, {"num_heads": 0},
]  # fmt: skip


@pytest.mark.parametrize("changes", NO_NUMBERS, ids=str)
def test_numbers_that_are_none_are_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    (name,) = changes
    refused(lambda: load_features(write(tmp_path / "hart", tiny_hart(), **changes)), name, "number", "config.json")


def test_the_plain_weights_are_taken_where_the_averaged_are_missing_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "hart", tiny_hart())
    (folder / "tokenizer" / "pytorch_model.bin").rename(folder / "aside.bin")
    told = refused(lambda: load_features(folder), "missing", "tokenizer/model.safetensors or pytorch_model.bin")
    assert "averaged=False" not in told
    (folder / "aside.bin").rename(folder / "tokenizer" / "pytorch_model.bin")
    (folder / "llm" / "ema_model.bin").unlink()
    with pytest.warns(UserWarning, match="model.safetensors.*ema_model.bin"):
        taken = load_features(folder)
    assert torch.equal(taken.transformer.head.bias, tiny_hart().transformer.head.bias + 1)
    assert "(model.safetensors " in taken.weights


ODD: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a batch": (np.zeros((1, HART_TEXT, HART_TEXT_WIDTH)), ("list of arrays [T, width]",)),
    "not a number": (np.full((HART_TEXT, HART_TEXT_WIDTH), np.nan), ("NaN or infinities",)),
    "complex": (np.zeros((HART_TEXT, HART_TEXT_WIDTH), complex), ("real numbers", "complex128")),
    "words": (np.full((HART_TEXT, HART_TEXT_WIDTH), "a"), ("real numbers", "<U1")),
}


@pytest.mark.parametrize("name", ODD)
def test_features_that_do_not_fit_are_refused(name: str) -> None:
    array, words = ODD[name]
    refused(lambda: sample(tiny_hart(), [array]), *words)


def test_features_that_are_no_numbers_are_refused_whole() -> None:
    text = hart_features(3)
    text.features[0, 1, 2] = float("inf")
    refused(lambda: sample(tiny_hart(), text), "NaN or infinities")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model = tiny_hart()

    def load(name: str, **changes: Any) -> Callable[[], Hart]:
        return lambda: load_features(write(tmp_path / name, model, **changes))

    refused(load("deep", depth=7), "contradicts", "depth 7 for 4")
    refused(load("norm", attn_l2_norm=True), "contradicts", "attn_l2_norm True for False")
    refused(load("aln", disable_aln=False), "contradicts", "disable_aln False for True")
    refused(load("gpt", mlp_type="gpt2"), "mlp_type 'gpt2'", "llama")
    refused(load("cross", use_cross_attn=True), "use_cross_attn")
    refused(load("pooling", sep_aln_pooling_mode="sum"), "sep_aln_pooling_mode 'sum'", "'max' or 'avg'")
    refused(load("ddim", num_sampling_steps="ddim8"), "num_sampling_steps", "'ddim8'")
    refused(load("heads", num_heads=7), "width 96 over 7 heads")
    refused(load("eps", norm_eps=1e-5), "norm_eps 1e-05", "only 1e-06")
    refused(
        load("text", context_token=9), "contradicts", f"a context_token of 9 make 47 positions for {HART_TEXT + 38}"
    )
    refused(load("typed", depth="4"), "depth '4' for 4")
    unit = tiny_hart(unit_attention=True, learned_levels=True)
    refused(lambda: load_features(write(tmp_path / "unit", unit, num_heads=4)), "contradicts", "num_heads 4 for 2")
    sides = [1, 2, 3, 3, 4]  # as many tokens
    refused(
        lambda: load_features(write(tmp_path / "levels", unit, patch_nums=sides)), "contradicts", "5 patch_nums for 4"
    )
    unsaid = write(tmp_path / "unsaid", model)
    words = config_of(model)
    del words["context_token"]
    (unsaid / "llm" / "config.json").write_text(json.dumps(words))
    refused(lambda: load_features(unsaid), "a context_token of 300", f"338 positions for {HART_TEXT + 38}")
    lacking = write(tmp_path / "lacking", model)
    stated = json.loads((lacking / "llm" / "config.json").read_text())
    del stated["num_heads"]
    (lacking / "llm" / "config.json").write_text(json.dumps(stated))
    refused(lambda: load_features(lacking), "lacks num_heads")
    (lacking / "llm" / "config.json").write_text("{")
    refused(lambda: load_features(lacking), "not valid JSON")
    (lacking / "llm" / "config.json").unlink()
    refused(lambda: load_features(lacking), "config.json")
    gone = damage(write(tmp_path / "gone", model), "blocks.1.ffn.up_proj.weight", lambda _: None)
    refused(lambda: load_features(gone), "1 missing (blocks.1.ffn.up_proj.weight)", "part of HART")
    other = damage(write(tmp_path / "other", model), "decoder_norm.weight", lambda t: t[:5])
    refused(lambda: load_features(other), "decoder_norm.weight 5 for 96")
    foreign = damage(write(tmp_path / "foreign", model), "context_embed.weight", lambda _: None)
    refused(lambda: load_features(foreign), "lack context_embed.weight", "no HART")
    refused(lambda: load_hart(ENTRY, checkpoint=tmp_path / "nowhere" / "else" / "hart"), "does not exist")

"""HART's official folder: read strictly, with the variant taken from the keys."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import hart_features, tiny_hart
from tests.hart_folder import ENTRY, load_features, write
from tests.minis import refused
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models import qwen
from varlab.models import text as texts
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings
from varlab.weights import zoo
from varlab.weights.catalogue import catalogue
from varlab.weights.convert import convert
from varlab.weights.hart_files import RandomHartText, load_hart
from varlab.weights.registry import MODELS

VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "block": {"modulation": "block", "pooling": "mean", "unit_attention": True},
    "shared": {"modulation": "shared", "learned_levels": True, "context_norm": False, "mlp_ratio": 3.0},
}


def image(model: Hart) -> torch.Tensor:
    return Run(model, HartSettings(cfg=2.0), SeededNoise(1)).generate(hart_features(3), (0,)).image


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_gives_back_the_model(tmp_path: Path, variant: str) -> None:
    model = tiny_hart(**VARIANTS[variant])
    loaded = load_features(write(tmp_path / "hart", model))
    assert loaded.transformer.config == model.transformer.config
    assert replace(loaded.tokenizer.config, mix=0.5) == model.tokenizer.config
    assert loaded.schedule.grids == model.schedule.grids and loaded.text is None
    assert loaded.weights.startswith("checkpoint (ema_model.bin ") and "pytorch_model.bin" in loaded.weights
    assert torch.equal(image(loaded), image(model))


def test_plain_weights_and_parts_apart(tmp_path: Path) -> None:
    model = tiny_hart()
    folder = write(tmp_path / "hart", model)
    plain = load_features(folder / "llm", averaged=False)
    assert torch.equal(plain.transformer.head.bias, model.transformer.head.bias + 1)
    moved = (folder / "tokenizer").rename(tmp_path / "images")
    refused(lambda: load_hart(ENTRY, checkpoint=folder), "missing", "tokenizer/model.safetensors or pytorch_model.bin")
    assert torch.equal(image(load_features(folder, tokenizer=moved)), image(model))


def test_bf16_keeps_the_blocks_half_and_runs(tmp_path: Path) -> None:
    model = tiny_hart(modulation="block")
    loaded = load_features(write(tmp_path / "hart", model), precision="bf16")
    assert loaded.precision == "bf16" and loaded.transformer.head.weight.dtype == torch.float32
    types = {name: tensor.dtype for name, tensor in loaded.tokenizer.named_parameters()}
    assert types["decoder.up.1.upsample.conv.weight"] == types["post_quant_conv.weight"] == torch.bfloat16
    exact = ("encoder.conv_in.weight", "quant_conv.weight", "quantize.embedding.weight", "decoder.norm_out.weight")
    assert {types[name] for name in exact} == {torch.float32}
    whole = image(model)

    def apart(other: Hart) -> float:
        return float((image(other) - whole).abs().mean())

    # Labels near even odds fall the other way: .002 was seen here, .05 with other seeds.
    assert apart(loaded) < 0.06 < 0.1 < apart(tiny_hart(modulation="block", seed=10))
    head = load_features(tmp_path / "hart", precision="bf16-diffusion")
    assert head.precision == "bf16-diffusion" and head.weights == loaded.weights  # the same files
    assert head.weights.content == loaded.weights.content  # type: ignore[attr-defined]


def test_the_registry_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "hart-0.7b-1024px", tiny_hart())
    assert "hart-0.7b" in MODELS
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path))
    found, named = zoo.load("hart-0.7b", text="features"), zoo.load("hart-0.7b", checkpoint=folder, text="random")
    assert found.name == named.name == "hart-0.7b" and "random text" in named.weights
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path / "none"))
    refused(lambda: zoo.load("hart-0.7b"), "missing", "llm/", "init='random'")
    refused(lambda: zoo.load("hart-0.7b", "empty", ratio=1.5), "one schedule")
    monkeypatch.setattr(texts, "find_spec", lambda name: name)
    refused(
        lambda: zoo.load("hart-0.7b", "random", text="flan-t5-xl", precision="bf16"),
        "flan-t5-xl",
        "Hugging Face id",
        "text='features'",
    )
    empty = zoo.load("hart-0.7b", "empty")
    assert empty.schedule.tokens == 9451 and empty.kv_capacity == 9750


def test_models_and_errors_name_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder is not found; the paths that the list shows are those that the error asks for."""
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path))
    place = tmp_path / "hart-0.7b-1024px"
    for folder in (None, "llm", "tokenizer"):
        if folder:
            (place / folder).mkdir(parents=True)
        row = next(row for row in catalogue() if row.name == "hart-0.7b")
        assert row.weights == "not here"
        refused(partial(zoo.load, "hart-0.7b"), *row.expected.split(", "))
    for folder in ("llm", "tokenizer"):
        (place / folder).rmdir()
    place.rmdir()
    write(place, tiny_hart())
    assert next(row for row in catalogue() if row.name == "hart-0.7b").weights == "found"


def test_a_hub_id_is_fetched_and_what_the_hub_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_hart()
    folder, asked = write(tmp_path / "hart", model), []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if name != "owner/hart":
            raise ConnectionError("no network")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    loaded = zoo.load("hart-0.7b", checkpoint="owner/hart", text="features")
    assert isinstance(loaded, Hart) and torch.equal(image(loaded), image(model))
    assert asked == [("owner/hart", ["llm/*", "tokenizer/*"])]
    refused(lambda: load_features(Path("owner/other")), "owner/other", "huggingface.co", "ConnectionError")
    asked.clear()
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    refused(lambda: load_hart(ENTRY, checkpoint="owner/hart"), "Qwen2", "pip install -e .[text]")
    assert not asked


def test_the_system_prompt_may_lie_in_the_given_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "hart", tiny_hart())
    (folder / "constants.py").write_text("prompt = 'of the test'")
    monkeypatch.setattr(texts, "find_spec", lambda name: name)
    monkeypatch.setattr(qwen, "SYSTEM_PROMPT_SHA256", hashlib.sha256(b"of the test").hexdigest())
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path / "none"))
    for given in (folder, folder / "llm"):
        encoder = load_hart(ENTRY, checkpoint=given).text
        assert isinstance(encoder, qwen.QwenText) and encoder.prefix() == "of the test"
    (folder / "constants.py").unlink()
    refused(lambda: load_hart(ENTRY, checkpoint=folder), "hart/utils/constants.py", "text='features'")


def test_converted_parts_load_as_the_original(tmp_path: Path) -> None:
    model = tiny_hart(modulation="block")
    source, made = write(tmp_path / "hart", model), tmp_path / "made"
    convert(source / "llm", made / "llm" / "ema_model.safetensors", "hart-0.7b")
    convert(source / "tokenizer" / "pytorch_model.bin", made / "tokenizer" / "model.safetensors", "hart-0.7b")
    (made / "llm" / "config.json").write_bytes((source / "llm" / "config.json").read_bytes())
    half = [load_features(folder, precision="bf16") for folder in (source, made)]
    for part in ("transformer", "tokenizer"):
        first, second = (getattr(each, part).state_dict() for each in half)
        assert all(torch.equal(first[key], second[key]) for key in first) and first.keys() == second.keys()
    assert (made / "llm" / "ema_model.safetensors").stat().st_size < (source / "llm" / "ema_model.bin").stat().st_size
    (source / "llm" / "config.json").unlink()
    refused(lambda: convert(source / "llm", tmp_path / "x.safetensors", "hart-0.7b"), "config.json is missing")
    refused(lambda: convert(source, tmp_path / "x.safetensors", "hart-0.7b"), "folders llm, tokenizer do")
    wrong = lambda: convert(source / "tokenizer", tmp_path / "x.safetensors", "var-d16")  # noqa: E731
    refused(wrong)


def test_a_tokenizer_says_how_it_mixes(tmp_path: Path) -> None:
    model = tiny_hart()
    folder = write(tmp_path / "hart", model)
    stated = folder / "tokenizer" / "config.json"
    stated.write_text(json.dumps({"quant_resi": -0.25, "using_znorm": False}))
    loaded = load_features(folder)
    assert loaded.tokenizer.quantize.mix == 0.25 and not torch.equal(image(loaded), image(model))
    stated.write_text(json.dumps({"vocab_size": 7, "z_channels": 4}))
    refused(lambda: load_features(folder), "contradicts", "vocab_size 7 for 48", "one release")
    stated.write_text(json.dumps({"quant_resi": "half"}))
    refused(lambda: load_features(folder), "quant_resi must be a number, not 'half'")
    stated.write_text(json.dumps({"using_znorm": True}))
    refused(lambda: load_features(folder), "using_znorm is not supported")
    refused(lambda: convert(folder / "tokenizer", tmp_path / "x.safetensors", "hart-0.7b"), "using_znorm")


def test_random_text_belongs_to_a_prompt() -> None:
    encoder = RandomHartText(4, 8)
    both = encoder(["a", "b"])
    assert torch.equal(both.features[1], encoder(["b"]).features[0]) and both.mask.all()

"""Weights kept in bf16 with arithmetic in fp32: the same numbers as fp32, chosen where bf16 is slow."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import varlab as vl
from varlab.cli import app
from varlab.engine.kv import KVStore
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.widened import widen
from varlab.weights import precision
from varlab.weights.convert import convert
from varlab.weights.registry import find


def command(*words):
    return CliRunner().invoke(app, words)


PROMPTS = {"nano-infinity": "a red star", "mini-hart": "a red star", "mini-var": "3"}


@pytest.mark.parametrize("name", PROMPTS)
def test_widening_is_exact(name, monkeypatch):
    """The weights that ship are bf16: a model that keeps them so draws to the bit what one that holds them in fp32
    draws, where keys and values are not rounded either."""
    monkeypatch.setattr(NextScaleModel, "kept_type", None)
    widened = vl.load(name, precision="bf16-weights")
    assert widened.precision == "bf16-weights"
    first, second = (vl.sample(m, [PROMPTS[name]], seed=3).images[0] for m in (vl.load(name), widened))
    assert first.tobytes() == second.tobytes()


def test_keys_and_values_are_kept_in_bf16():
    kept, whole = (vl.load("nano-infinity", precision=p) for p in ("bf16-weights", "fp32"))
    own, other = (vl.sample(model, ["a red star"], seed=3, probes=["token-mse"]) for model in (kept, whole))
    assert kept.kept_type == torch.bfloat16 and own.log.attrs["precision"] == "bf16-weights"
    first, second = (torch.tensor(run.log["token-mse"]["mse"].values[..., :1]) for run in (own, other))
    assert torch.allclose(first, second, rtol=0.05, equal_nan=True)
    store, k = KVStore(1, 4, torch.bfloat16), torch.full((1, 1, 2, 1), 1 / 3)
    keys, values, _ = store.append(0, k, 2 * k, None)
    assert store.keys[0].dtype == torch.bfloat16 and keys.dtype == torch.float32  # type: ignore[union-attr]
    assert torch.equal(keys, k.bfloat16().float()) and torch.equal(values, (2 * k).bfloat16().float())


@pytest.mark.parametrize(
    "name, init, gain, expected",
    [
        ("infinity-2b", "random", 0.25, "bf16-weights"),
        ("infinity-2b", "random", 4.0, "bf16"),
        ("infinity-2b", "checkpoint", 0.25, "fp32"),
        ("infinity-125m", "random", 4.0, "fp32"),
    ],
)
def test_large_random_weights_are_kept_small(name, init, gain, expected, monkeypatch):
    monkeypatch.setattr(precision, "gain", lambda device, kind: gain)
    assert precision.chosen(find(name), None, init, "cpu")[0] == expected


@pytest.mark.parametrize("gain, expected", [(0.25, "fp32"), (4.0, "bf16")])
def test_a_gpu_that_multiplies_bf16_slowly_computes_in_fp32(gain, expected, monkeypatch):
    """Nothing is widened there: such a model would be refused."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(precision, "gain", lambda device, kind: gain)
    assert precision.chosen(find("infinity-2b"), None, "random", "cuda:0")[0] == expected


@pytest.mark.parametrize("gain, expected", [(0.25, "fp32"), (4.0, "bf16")])
def test_auto_says_what_it_chose_and_why(gain, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "gain", lambda device, kind: gain)
    result = command("sample", "nano-infinity", "a red star", "--precision", "auto", "--out", str(tmp_path / "s"))
    assert result.exit_code == 0 and f"precision {expected}: cpu multiplies bf16 {gain:.2g} times" in result.output
    assert vl.load("nano-infinity", precision="auto").precision == expected


def test_a_widened_layer_computes_where_it_is_moved_to():
    layer = nn.Linear(4, 3).bfloat16().requires_grad_(False)
    widen(layer)
    assert layer.weight.device.type == "cpu"
    assert layer.to("meta").weight.is_meta  # a device that any machine has


def test_layers_share_one_buffer_as_large_as_the_largest():
    torch.manual_seed(0)
    layers = [nn.Linear(*shape).bfloat16().requires_grad_(False) for shape in ((4, 3), (3, 8), (8, 4))]
    whole = [layer.weight.float() for layer in layers]
    widen(nn.ModuleList(layers))
    for layer, weight in [*zip(layers, whole, strict=True)] * 2:
        assert torch.equal(layer.weight, weight) and layer.weight.dtype == torch.float32
    assert {layer.weight.untyped_storage().nbytes() for layer in layers} == {4 * 32}
    assert len({layer.weight.data_ptr() for layer in layers}) == 1


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(VarlabError, match="bf16-weights"):
        vl.load("nano-infinity", precision="bf16-weight")
    with pytest.raises(VarlabError, match="Known: bf16, fp32"):
        convert("nowhere.pth", tmp_path / "w.safetensors", "infinity-125m", precision="bf16-weights")
    assert not list(tmp_path.iterdir())

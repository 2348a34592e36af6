"""bf16 weights laid out for the processor give the same bits, whatever the rows and however the input lies."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import varlab as vl
from varlab.errors import VarlabError
from varlab.models.packed import PackedLinear, biased, can_pack, pack, typed
from varlab.runs import sample
from varlab.timing.benchmarks.models import random_infinity
from varlab.weights import precision

pytestmark = pytest.mark.skipif(not can_pack(), reason="this processor has no bf16 layout")


@pytest.mark.parametrize(("rows", "width", "out"), [(1, 192, 576), (2, 64, 64), (33, 200, 300), (512, 128, 512)])
@torch.inference_mode()
def test_a_product_has_the_bits_of_the_plain_layer(rows: int, width: int, out: int) -> None:
    torch.manual_seed(rows)
    plain, bias = nn.Linear(width, out).bfloat16(), torch.randn(out).bfloat16()
    laid_out, x = PackedLinear(plain), torch.randn(2, rows, width)
    half = typed(laid_out, x)
    assert half.dtype == torch.bfloat16 and torch.equal(laid_out(half), plain(half))
    turned = half.transpose(0, 1)
    assert torch.equal(laid_out(turned), plain(turned.contiguous()))  # torch rounds twice where an input is strided
    assert torch.equal(biased(laid_out, x, bias), biased(plain, x, bias))
    assert torch.equal(laid_out.weight, plain.weight)


@pytest.mark.parametrize("name", ["nano-infinity", "mini-hart", "mini-var"])
def test_a_model_draws_the_same_bits_and_says_the_same_of_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, said = ["a red ring"] if name == "mini-var" else ["a red star"], []
    pictures = []
    for faster in (False, True):
        monkeypatch.setattr("varlab.weights.zoo.packs_faster", lambda *_, faster=faster: faster)
        model = vl.load(name, precision="bf16")
        layers = [layer for layer in model.transformer.modules() if isinstance(layer, PackedLinear)]
        assert bool(layers) is faster and model.precision == "bf16"
        pictures.append(sample(model, prompts).images[0].tobytes())
        said.append(repr(model))
    assert pictures[0] == pictures[1] and said[0] == said[1]


def test_only_bf16_is_laid_out_and_the_state_stays_that_of_plain_layers() -> None:
    model = random_infinity(1, 128, "0.06M", "bf16")
    before = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    kept = [layer for layer in model.transformer.modules() if type(layer) is nn.Linear]
    full, held = sum(layer.weight.dtype == torch.float32 for layer in kept), size(model.transformer)
    pack(model.transformer)
    after = model.transformer.state_dict()
    assert sum(type(layer) is nn.Linear for layer in model.transformer.modules()) == full < len(kept)
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert size(model.transformer) == held
    with pytest.raises(VarlabError, match="load the model in fp32"):
        model.transformer.load_state_dict(before)


MOVES = {
    "to": lambda layer: layer.to(torch.float32), "half": lambda layer: layer.half(),
    "bfloat16": lambda layer: layer.bfloat16(), "share_memory": lambda layer: layer.share_memory(),
    "meta": lambda layer: layer.to("meta"),
}  # fmt: skip


@pytest.mark.parametrize("move", list(MOVES))
def test_a_packed_layer_that_is_moved_or_changes_its_type_is_a_plain_one(move: str) -> None:
    plain = nn.Linear(24, 8).bfloat16().requires_grad_(False)
    model = nn.ModuleDict({"layer": nn.Linear(24, 8).bfloat16()})
    model["layer"].load_state_dict(plain.state_dict())
    pack(model)
    held = model["layer"]
    assert type(held) is PackedLinear
    MOVES[move](model)
    expected = MOVES[move](copy.deepcopy(plain))
    assert held is model["layer"] and type(held) is nn.Linear and repr(held) == repr(plain)
    for own, other in zip(held.parameters(), expected.parameters(), strict=True):
        assert own.dtype == other.dtype and own.device == other.device and own.shape == other.shape
        assert own.is_meta or torch.equal(own, other)
    assert list(held.state_dict()) == list(plain.state_dict())
    held.load_state_dict(expected.state_dict(), assign=True)  # a plain layer takes other weights


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_copy_of_a_packed_layer_is_packed_where_that_can_be_done(
    way: str, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(layer: nn.Module) -> nn.Module:
        if way == "torch.save":
            torch.save(layer, file := io.BytesIO())
            file.seek(0)
            return torch.load(file, weights_only=False)
        return copy.deepcopy(layer) if way == "deepcopy" else pickle.loads(pickle.dumps(layer))

    laid_out, x = PackedLinear(nn.Linear(24, 8, bias=bias).bfloat16()), torch.randn(3, 24).bfloat16()
    again = copied(laid_out)
    assert type(again) is PackedLinear and again is not laid_out and torch.equal(again(x), laid_out(x))
    monkeypatch.setattr("varlab.models.packed.can_pack", lambda: False)  # read on a machine without the layout
    elsewhere = copied(laid_out)
    assert type(elsewhere) is nn.Linear and torch.equal(elsewhere(x), laid_out(x))


def test_a_model_with_packed_weights_draws_the_same_after_it_was_copied_and_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = []
    for faster in (False, True):
        monkeypatch.setattr("varlab.weights.zoo.packs_faster", lambda *_, faster=faster: faster)
        model = vl.load("nano-infinity", precision="bf16")
        copied = copy.deepcopy(model)
        model.transformer.float()
        assert (copied.precision, model.precision) == ("bf16", "fp32")
        pictures.append([sample(each, ["a red star"]).images[0].tobytes() for each in (copied, model)])
    assert pictures[0] == pictures[1]


def size(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())


def test_packing_is_chosen_by_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {PackedLinear: 2.0, nn.Linear: 1.0}

    def fastest(call: object, device: object) -> float:
        (layer,) = [cell.cell_contents for cell in call.__closure__ if isinstance(cell.cell_contents, nn.Module)]  # type: ignore[attr-defined]
        return seconds[type(layer)]

    monkeypatch.setattr(precision, "fastest", fastest)
    for own, chosen in ((2.0, False), (0.5, True)):
        seconds[PackedLinear] = own
        precision.packs_faster.cache_clear()
        assert precision.packs_faster("cpu", 64) is chosen
    precision.packs_faster.cache_clear()
    assert precision.packs_faster("cuda", 64) is False

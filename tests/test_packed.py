"""bf16 weights laid out for the processor give the same bits, whatever the rows and however the input lies."""

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

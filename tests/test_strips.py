"""The decoder in strips: the same image but for rounding, in less memory, and said to be so."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import tiny_hart, tiny_infinity, tiny_var
from tests.minis import refused
from varlab.machine import DTYPES
from varlab.models.tokenizers import maps
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.models.tokenizers.strips import in_strips
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.weights import memory
from varlab.weights.fitting import dtype_of
from varlab.weights.initialise import randomise
from varlab.weights.memory import account
from varlab.weights.registry import find
from varlab.weights.zoo import load

MODELS: dict[str, Callable[[], Any]] = {"infinity": tiny_infinity, "hart": tiny_hart, "var": tiny_var}


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is open: ``peak`` of those that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = dict[int, int](), 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.live:
                self.live[key] = tensor.untyped_storage().nbytes()
                weakref.finalize(tensor.untyped_storage(), self.live.pop, key)
                self.peak = max(self.peak, sum(self.live.values()))
        return out


def canvas_of(model: Any) -> Tensor:
    shape = model.new_canvas(2).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_strips_give_the_whole_image(family: str, rows: int) -> None:
    """Of rows that do and do not divide the maps, and of more than there are."""
    model = MODELS[family]()
    canvas = canvas_of(model)
    whole = model.decode(canvas)
    strips = in_strips(model, rows).decode(canvas)
    assert not whole.isnan().any() and whole.std() > 0.01
    assert torch.allclose(strips, whole, atol=1e-5)
    assert model.execution == f"eager, decoded in strips of {rows} rows"


@pytest.mark.parametrize("family", list(MODELS))
def test_large_maps_are_normed_in_pieces_and_give_the_same_image(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[family]()
    canvas = canvas_of(model)
    whole = model.decode(canvas)
    monkeypatch.setattr(maps, "LARGE", 0)
    monkeypatch.setattr(maps, "PIECE", 300)  # one row or a few
    assert torch.allclose(model.decode(canvas), whole, atol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_a_norm_in_pieces_is_that_of_fp64(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And writes over a map only where it may."""
    monkeypatch.setattr(maps, "LARGE", 0)
    norm = torch.nn.GroupNorm(4, 8, eps=1e-6).requires_grad_(False)
    x = torch.randn(2, 8, 1024, 256, generator=torch.Generator().manual_seed(0)).mul_(3).add_(50)
    x = x.contiguous(memory_format=torch.channels_last)
    exact = torch.nn.functional.silu(torch.nn.functional.group_norm(x.double(), 4, eps=1e-6))
    given = x.clone()
    found = maps.activated(norm, given, own)
    assert (found.double() - exact).abs().max() < 1e-4
    assert (found.data_ptr() == given.data_ptr()) == own and (own or torch.equal(given, x))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_norm_on_a_gpu_leaves_a_map_as_it_is_laid_out(kind: torch.dtype) -> None:
    """By shapes, on a CUDA device that need not be here; but for rounding the values are those of fp64."""
    norm = torch.nn.GroupNorm(4, 8, eps=1e-6).requires_grad_(False)
    norm.weight.copy_(torch.arange(1.0, 9.0))
    norm.bias.copy_(torch.arange(8.0) - 4)
    x = torch.randn(2, 8, 32, 24, generator=torch.Generator().manual_seed(0)).mul_(3).add_(50).to(kind)
    x = x.contiguous(memory_format=torch.channels_last)
    exact = torch.nn.functional.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)
    found = maps.normed_as_laid_out(norm, x)
    assert found.dtype == kind and found.is_contiguous(memory_format=torch.channels_last)
    rounding = 2.0**-8 if kind == torch.bfloat16 else 2.0**-17  # of the result; of 50 over a deviation of 3, in fp32
    assert ((found.double() - exact).abs() <= rounding * (exact.abs() + 8)).all()
    with FakeTensorMode():
        far = torch.nn.GroupNorm(4, 8, device="meta").requires_grad_(False)
        far.weight, far.bias = (torch.nn.Parameter(torch.empty(8, device="cuda"), False) for _ in range(2))
        there = torch.empty(2, 8, 32, 24, dtype=kind, device="cuda").to(memory_format=torch.channels_last)
        made = maps.activated(far, there)
        assert made.device.type == "cuda" and made.dtype == kind
        assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("family", list(MODELS))
def test_training_a_decoder_writes_over_no_large_map(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose gradients are those of small ones, and of the image that is drawn."""
    decoder = MODELS[family]().tokenizer.decoder.requires_grad_(True)
    channels = decoder.conv_in.conv.in_channels if family == "infinity" else decoder.conv_in.in_channels
    latent = torch.randn(1, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for largest in (maps.LARGE, 0):
        monkeypatch.setattr(maps, "LARGE", largest)
        monkeypatch.setattr(maps, "PIECE", 300)
        loss = decoder(latent).square().mean()
        found.append([loss.detach(), *torch.autograd.grad(loss, list(decoder.parameters()))])
    assert all(torch.equal(small, large) for small, large in zip(*found, strict=True))
    with torch.inference_mode():  # in pieces, which nobody trains
        assert torch.allclose(decoder(latent).square().mean(), found[0][0], rtol=1e-4)


@pytest.mark.parametrize("family", ["hart", "var"])
def test_a_decoder_in_bf16_computes_in_bf16_and_gives_nearly_the_same_image(family: str) -> None:
    model = MODELS[family]()
    canvas, types = canvas_of(model), set[torch.dtype]()
    whole = model.decode(canvas)
    for name, parameter in model.tokenizer.named_parameters():
        parameter.data = parameter.data.to(dtype_of(name, parameter.dtype, "bf16"))
    for layer in model.tokenizer.decoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, out: types.add(out.dtype))
    half = model.decode(canvas)
    assert types == {torch.bfloat16} and half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.1 * (whole.max() - whole.min())


def large(precision: str) -> BSQTokenizer:
    with torch.device("meta"):
        tokenizer = BSQTokenizer(BSQConfig(8, stride=8, channels=32, multipliers=(1, 2, 2, 2), blocks=1))
    randomise(tokenizer, 0, precision)
    return channels_last(tokenizer.eval().requires_grad_(False))


@torch.inference_mode()
def decoded(tokenizer: BSQTokenizer, rows: int | None) -> tuple[Tensor, int]:
    """An image of 128 x 128 pixels and the bytes of tensors at the peak."""
    dtype = tokenizer.get_parameter("decoder.conv_in.conv.weight").dtype
    canvas = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    tokenizer.strips = rows
    with Held() as held:
        image = tokenizer.decode(canvas.contiguous(memory_format=torch.channels_last))
    return image.float(), held.peak


def test_strips_hold_half_and_round_no_worse() -> None:
    exact, _ = decoded(large("fp32"), None)
    (whole, before), (strips, after) = (decoded(large("bf16"), rows) for rows in (None, 8))
    assert after < 0.55 * before
    errors = [float((image - exact).square().mean().sqrt()) for image in (whole, strips)]
    assert 0 < errors[1] < 1.1 * errors[0]


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("multipliers", [(1, 2, 2, 2), (1, 1, 2, 2)])
@pytest.mark.parametrize("kind", ["bsq", "vq", "hybrid"])
def test_the_account_of_a_whole_decoder_is_what_its_tensors_take(
    kind: str, multipliers: tuple[int, ...], precision: str
) -> None:
    """Of maps that are normed whole, as on a GPU."""
    made: Any = {
        "bsq": lambda: BSQTokenizer(BSQConfig(8, stride=8, channels=32, multipliers=multipliers, blocks=1)),
        "vq": lambda: VQTokenizer(VQConfig(width=8, channels=32, multipliers=multipliers, blocks=1)),
        "hybrid": lambda: HybridTokenizer(HybridConfig(latents=8, channels=32, multipliers=multipliers, blocks=1)),
    }[kind]
    with torch.device("meta"):
        tokenizer = made()
    randomise(tokenizer, 0, precision)
    channels_last(tokenizer.eval().requires_grad_(False))
    dtype = DTYPES[precision]
    with Held() as held:
        tokenizer.decode(torch.zeros(1, 8, 16, 16, dtype=dtype))
    counted = memory._decoding(None, tokenizer.config, _final(16), dtype.itemsize, None)
    assert 0.7 < held.peak / counted < 1.05


def test_the_account_knows_of_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = large("bf16")
    counted = memory._decoding(None, tokenizer.config, _final(16), 2, 8)
    assert 0.7 < decoded(tokenizer, 8)[1] / counted < 1.1
    assert counted < 0.6 * memory._decoding(None, tokenizer.config, _final(16), 2, None)
    entry = find("infinity-125m")
    both = [account(entry, entry.schedule(None, 1.0), "bf16", strips=rows) for rows in (None, 32)]
    assert both[1].decoding < 0.6 * both[0].decoding and both[1].total < both[0].total
    monkeypatch.setattr(memory, "available", lambda *_: both[0].total + memory.RESERVE - 1)
    refused(lambda: load("infinity-125m", "random", precision="bf16"), "strips 32")
    refused(lambda: load("nano-infinity", strips=0), "at least 1 row, not 0", "leave strips out")


def _final(side: int) -> Any:
    from varlab import schedules

    return schedules.square((1, side), "two")


@pytest.mark.parametrize("tiny", [tiny_infinity, tiny_hart])
def test_another_schedule_decodes_in_the_same_strips_and_says_so(tiny: Any) -> None:
    model = in_strips(tiny(), 4)
    assert model.execution != "eager" and model.with_(schedule=model.schedule).execution == model.execution

"""The decoder in strips: the same image but for rounding, in less memory, and said to be so."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import tiny_hart, tiny_infinity, tiny_var
from tests.minis import refused
from varlab.models import memory
from varlab.models.initialise import randomise
from varlab.models.memory import account
from varlab.models.registry import find
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer, channels_last
from varlab.models.tokenizers.strips import in_strips
from varlab.models.zoo import load

MODELS = {"infinity": tiny_infinity, "hart": tiny_hart, "var": tiny_var}


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


def large(precision: str) -> BSQTokenizer:
    with torch.device("meta"):
        tokenizer = BSQTokenizer(BSQConfig(8, stride=8, channels=32, multipliers=(1, 2, 2, 2), blocks=1))
    randomise(tokenizer, 0, precision)
    return channels_last(tokenizer.eval().requires_grad_(False))


@torch.inference_mode()
def decoded(tokenizer: BSQTokenizer, rows: int | None) -> tuple[Tensor, int]:
    """An image of 128 x 128 pixels and the bytes of tensors at the peak."""
    dtype = tokenizer.decoder.conv_in.conv.weight.dtype
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


def test_the_account_knows_of_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = large("bf16")
    counted = memory._decoding(None, tokenizer.config, _final(16), 2, 8)
    assert 0.7 < decoded(tokenizer, 8)[1] / counted < 1.1
    assert counted < 0.6 * memory._decoding(None, tokenizer.config, _final(16), 2, None)
    entry = find("infinity-125m")
    both = [account(entry, entry.schedule(None, 1.0), "bf16", strips=rows) for rows in (None, 32)]
    assert both[1].decoding < 0.6 * both[0].decoding and both[1].total < both[0].total
    monkeypatch.setattr(memory, "available", lambda device="cpu": both[0].total + memory.RESERVE - 1)
    refused(lambda: load("infinity-125m", "random", precision="bf16"), "strips 32")
    refused(lambda: load("nano-infinity", strips=0), "at least 1 row, not 0", "leave strips out")


def _final(side: int) -> Any:
    from varlab import schedules

    return schedules.square((1, side), "two")


@pytest.mark.parametrize("tiny", [tiny_infinity, tiny_hart])
def test_another_schedule_decodes_in_the_same_strips_and_says_so(tiny: Any) -> None:
    model = in_strips(tiny(), 4)
    assert model.execution != "eager" and model.with_schedule(model.schedule).execution == model.execution

"""Apple's GPU, which no machine of the tests need have: only what torch would say of it is put in its place."""

import pytest
import torch

from varlab import machine
from varlab.errors import VarlabError
from varlab.machine import half, named_gaps, usable
from varlab.runs.clock import Clock
from varlab.weights import memory, precision
from varlab.weights.options import LoadOptions
from varlab.weights.registry import find

MPS = torch.device("mps")
MISSING = "The operator 'aten::_linalg_x.out' is not currently implemented for the MPS device."
DOUBLE = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."


def test_the_name_is_taken_where_torch_has_the_device() -> None:
    if torch.backends.mps.is_available():
        assert usable("mps") == MPS
    else:
        with pytest.raises(VarlabError, match=r"device 'mps' cannot be used: this .* has none\. Take cpu"):
            LoadOptions(device="mps").check(find("nano-infinity"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotImplementedError(MISSING), "torch has no aten::_linalg_x.out on mps: take cpu"),
        (TypeError(DOUBLE), "float64"),
    ],
)
def test_an_operation_that_is_missing_is_named(error: Exception, said: str) -> None:
    with pytest.raises(VarlabError, match=said), named_gaps(MPS):
        raise error
    with pytest.raises(type(error)), named_gaps(torch.device("cpu")):
        raise error
    with pytest.raises(TypeError, match="of ours"), named_gaps(MPS):
        raise TypeError("a mistake of ours")


def test_auto_computes_in_fp16_and_bf16_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gain", lambda device, kind: {"fp16": 2.0}[kind])
    assert half(MPS) == "fp16" and precision.chosen(find("infinity-2b"), "auto", "random", "mps")[0] == "fp16"
    monkeypatch.setattr("varlab.weights.options.usable", torch.device)
    with pytest.raises(VarlabError, match="take fp16 or fp32"):
        LoadOptions(device="mps", precision="bf16-weights").check(find("nano-infinity"))


def test_memory_is_the_share_that_the_system_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 << 30)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 2 << 30)
    assert memory.available("mps") == 10 << 30


def test_times_are_taken_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append(1))
    clock = Clock(MPS)
    clock.mark("start", 0)
    clock.mark("text", 0)
    assert len(waits) == 2 and len(clock.spent()) == 1 and machine.now(MPS) > 0

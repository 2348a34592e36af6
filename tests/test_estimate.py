"""What a run will hold and take is told before it, and refused where it does not fit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.conftest import tiny_infinity
from tests.minis import refused
from varlab import machine
from varlab.comparison import compare
from varlab.machine import Rates
from varlab.models.text import RandomText
from varlab.timing import estimate as estimates
from varlab.timing.latency import latency
from varlab.weights import memory
from varlab.weights.memory import GIB, account
from varlab.weights.registry import find
from varlab.weights.zoo import load


def test_memory_is_counted_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    two = account(find("infinity-2b"), find("infinity-2b").schedule(None, 1.0), "bf16")
    assert two.weights == pytest.approx(
        2.2e9 * 2 + 0.34e9, rel=0.05
    )  # the tokenizer's norms and the text's parts stay fp32
    assert two.keys_values == 2 * 2 * 6425 * 2048 * 32 * 2
    hart = find("hart-0.7b")
    both = [account(hart, hart.schedule(None, 1.0), without_encoder=without) for without in (False, True)]
    assert both[0].total - both[1].total == both[0].text_encoder == 1_544_000_000 * 4
    monkeypatch.setattr(memory, "available", lambda *_: 10 * GIB)
    refused(lambda: load("hart-0.7b"), "missing", "ema_model.bin")  # what is not here is said before what does not fit
    refused(lambda: load("hart-0.7b", text="features", checkpoint="/nowhere"), "/nowhere does not exist")
    monkeypatch.setattr(memory, "available", lambda *_: 18 * GIB)
    refused(lambda: load("infinity-8b", "random", precision="bf16"), "needs 25.4 GiB", "18.0 GiB left", "pixels 0.06M")
    monkeypatch.setattr(memory, "available", lambda *_: 8 * GIB)
    refused(lambda: load("infinity-2b", "random", precision="bf16"), "needs 9.0 GiB", "pixels 0.60M")
    model = tiny_infinity()
    monkeypatch.setattr(memory, "available", lambda *_: memory.RESERVE + 900_000)
    message = refused(lambda: memory.refuse_batch(model, 64), "A batch of 64", "largest batch")
    fits = int(message.split()[-1].rstrip("."))
    memory.refuse_batch(model, fits)
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    refused(lambda: latency(model, ["a"] * 64), "A batch of 64")
    refused(lambda: compare(model, ["a star"] * 64, [], n=64, batch=64, frontier=False), "A batch of 64")


def test_an_estimate_adds_the_blocks_that_it_did_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "_seconds", lambda model, batch, probes: 1.0 + 0.25 * model.depth)
    made = estimates.estimate("nano-infinity")
    assert made.seconds == pytest.approx(1.0 + 0.25 * find("nano-infinity").transformer.depth)
    assert made.peak > made.memory.total and "fits in the" in made.line()
    assert estimates.shallow(find("infinity-2b"), 2).transformer.depth == 2
    assert estimates.estimate("nano-infinity", batch=12).seconds == pytest.approx(3 * made.seconds)


def test_an_estimate_of_what_does_not_fit_names_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "_seconds", lambda model, batch, probes: 1.0)
    monkeypatch.setattr(estimates, "available", lambda device: memory.RESERVE + 2 * GIB)
    line = estimates.estimate("nano-infinity", batch=4_000_000).line()
    fits = int(line.split("a batch of ")[1].rstrip("."))
    assert "does NOT fit" in line and estimates.estimate("nano-infinity", batch=fits).fits
    assert not estimates.estimate("nano-infinity", batch=fits + 1).fits


@pytest.mark.parametrize("family", ["infinity", "hart", "var"])
def test_an_estimate_of_a_long_schedule_grows_as_the_operations_do(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass takes 1 s and 2 s a block, attention none: a schedule of so many times the products takes that much."""
    name = {"infinity": "nano-infinity", "hart": "mini-hart", "var": "mini-var"}[family]
    entry = find(name)
    whole = entry.schedule(None, 1.0)
    monkeypatch.setattr(estimates, "LONG", 10)
    monkeypatch.setattr(estimates, "MIDDLE", 20)
    drawn, models = estimates.short(whole), []
    assert len(drawn) == 2 and drawn.lengths[0] == 1 and drawn.tokens < whole.tokens

    def passed(model: Any, batch: int, probes: tuple[str, ...]) -> float:
        assert model.schedule.grids == drawn.grids and not model.decode(model.new_canvas(1)).any()
        models.append(model)
        return 1.0 + 2.0 * model.depth

    monkeypatch.setattr(estimates, "_seconds", passed)
    monkeypatch.setattr(estimates, "decode_seconds", lambda *given: 5.0)
    monkeypatch.setattr(estimates, "rates", lambda *given, **named: Rates(1.0, float("inf"), 1.0))
    made = estimates.estimate(name)
    text = models[0].prefix(0)
    products = (whole.tokens + text) / (drawn.tokens + text)
    seconds = 5 + whole.tokens / drawn.tokens + entry.transformer.depth * 2 * products
    assert made.seconds == pytest.approx(seconds) and [model.depth for model in models] == [1, 1, 2]


def test_decoding_is_estimated_by_its_operations() -> None:
    model = tiny_infinity("long")
    whole, plain = (
        _with_clock(partial(estimates.decode_seconds, model, model.schedule, 1, previews)) for previews in (True, False)
    )
    cost = [model.decode_cost(grid).total for grid in ((8, 8), (2, 2))]
    assert plain == pytest.approx(cost[0] / cost[1])
    assert whole == pytest.approx(9 * cost[0] / cost[1])  # eight previews of 32 pixels a side, all that there are


def _with_clock(call: Callable[[], float]) -> float:
    """What a call finds where every measured interval is one second."""
    ticks = iter(range(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "now", lambda device: float(next(ticks)))
        return call()


def test_a_device_that_torch_does_not_know_is_refused() -> None:
    refused(lambda: estimates.estimate("nano-infinity", device="nonsense"), "device 'nonsense' cannot be used")
    refused(lambda: machine.usable("cuda"), "device 'cuda' cannot be used")

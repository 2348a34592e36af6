"""Ways to execute a run: kept keys, layers that write over their input, graphs, compiled sublayers; what it holds."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import features, text_for, tiny_hart, tiny_infinity
from tests.minis import refused
from varlab.accelerators.baselines import Truncate
from varlab.engine import compiled as compiling
from varlab.engine import graphs
from varlab.engine.execution import Execution
from varlab.engine.graphs import Graphs, tensors
from varlab.engine.kv import KVStore
from varlab.engine.loop import Run
from varlab.engine.memory import keep_freed_pages
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site
from varlab.engine.state import State
from varlab.machine import peak_mib, reset_peak
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings
from varlab.models.infinity_model import Infinity
from varlab.models.layers import gelu_, rotate
from varlab.timing.benchmarks import gpu
from varlab.timing.benchmarks.execution import logits_difference
from varlab.timing.benchmarks.models import random_infinity
from varlab.timing.latency import latency


def engine(model: Infinity | Hart, **options: object) -> torch.Tensor:
    run = Run(model, model.settings, SeededNoise(7), **options)  # type: ignore[arg-type]
    return run.generate(text_for(model, (3, 5), (0, 1)), (0, 1)).canvas


@pytest.mark.parametrize("family", ["infinity", "hart"])
def test_keeping_the_last_keys_changes_nothing(family: str) -> None:
    """HART's last stage in three passes, which read the keys of the earlier ones."""
    model = tiny_infinity() if family == "infinity" else tiny_hart(settings=HartSettings(cfg=2.0, top_k=20, passes=3))
    assert torch.equal(engine(model), engine(model, store_keys=True))


def test_gelu_and_rotation_are_the_plain_ones() -> None:
    x = torch.linspace(-9, 9, 300_001)
    assert torch.allclose(gelu_(x.clone()), F.gelu(x.double(), approximate="tanh").float(), atol=2e-6)
    half = x.bfloat16()
    plain = F.gelu(half.float(), approximate="tanh")
    assert torch.allclose(gelu_(half.clone()).float(), plain, rtol=2**-8, atol=1e-6)
    large = torch.randn(3, 1 << 16).bfloat16()  # whose values are looked up
    assert torch.equal(gelu_(large.clone()), torch.stack([gelu_(row.clone()) for row in large]))
    pairs, angle = torch.randn(2, 5, 3, 8), torch.rand(5, 4) * 6
    table = torch.stack([angle.cos(), angle.sin()], -1)
    a, b = pairs[..., 0::2], pairs[..., 1::2]
    cosine, sine = table[:, None].unbind(-1)
    plain = torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(-2)
    assert torch.allclose(rotate(pairs.clone().requires_grad_(), table), plain, atol=1e-6)
    assert torch.allclose(rotate(pairs.clone(), table), plain, atol=1e-6)


def test_a_store_forgets_and_counts_from_outside() -> None:
    store, tokens = KVStore(1, 6), torch.zeros(2, 1, 3, 4)
    store.append(0, tokens, tokens, None)
    store.append(0, tokens, tokens, None)
    store.rewind([3])
    store.skip(0, 3)
    assert store.held == store.lengths == [6]
    keys, _, bias = store.append(0, tokens + 1, tokens, torch.ones(2, 3), store=False)
    assert keys.shape[2] == 9 and keys[0, 0, 6:].eq(1).all() and store.held == [6] and store.lengths == [9]
    assert bias is not None and bias[0, 0, 0].tolist() == [0.0] * 6 + [1.0] * 3
    store.clear()
    assert store.held == [0] and store.keys[0] is not None


def graphed(model: Any, **more: Any) -> Callable[[], Any]:
    """A run of two images on CUDA graphs of its own."""
    run = Run(model, model.settings, SeededNoise(0), execution=Graphs())
    return lambda: run.generate(features(3, 5), (0, 1), **more)


def test_options_that_do_not_apply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_infinity()
    refused(lambda: latency(model, ["a"], graphs=True), "GPU", "leave graphs out")
    refused(graphed(model), "GPU")
    refused(lambda: compiling.Compiled(tiny_hart()), "compile", "hart")

    def none() -> str:
        raise RuntimeError

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    refused(lambda: compiling.Compiled(model), "needs a C++ compiler", "install g++")
    refused(lambda: gpu.gpu_bench(), "needs a CUDA device")


def test_graphs_refuse_a_text_among_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "require_gpu", lambda device: None)
    model = tiny_hart()
    refused(graphed(model), "carries the text of tiny-hart", "leave graphs")
    refused(graphed(tiny_infinity(), accelerators=[Truncate(last=1)]), "graphs or the methods")
    graphs.refuse_graphs(tiny_infinity())


def test_graphs_are_for_the_dense_run_alone() -> None:
    refused(lambda: latency(tiny_infinity(), ["a"], ["truncate:last=1"], graphs=True), "graphs or the methods")


def test_a_graph_finds_every_tensor_of_a_conditioning() -> None:
    model = tiny_infinity()
    conditioning = model.prepare(features(3, 5), True)
    found = tensors(conditioning)
    assert len(found) == 4 + 4 * 6 + 4 * 2  # pooled, shared, tokens, mask; six modulations and K, V a block


def test_replayed_stages_are_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in for CUDA graphs: the recorded call again on the recorded tensors, its book-keeping undone."""
    model, recorded = tiny_infinity(), Graphs()
    running: list[Run] = []

    def capture(call: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        def quietly() -> torch.Tensor:
            kv, ledger = recorded.kv, running[0].ledger
            assert kv is not None
            held, counted = list(kv.held), copy.deepcopy(ledger.stages)
            states[0].attended.clear()
            out = call()
            kv.rewind(held)
            ledger.stages[:] = counted
            return out

        leaving = call()

        def replay() -> None:
            leaving.copy_(quietly())

        return replay, leaving

    states: list[State] = []
    advance = Run._advance

    def watched(self: Run, state: State, *rest: Any) -> None:
        states.append(state)
        advance(self, state, *rest)

    monkeypatch.setattr(Run, "_advance", watched)
    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "refuse_graphs", lambda model, probes: None)
    for seed in (1, 2, 3):
        noise, text = SeededNoise(seed), features(3, 5, seed=seed)
        running.append(Run(model, model.settings, noise, execution=recorded))
        replayed = running[-1].generate(text, (0, 1))
        eager = Run(model, model.settings, noise).generate(text, (0, 1))
        assert torch.equal(replayed.image, eager.image)
        assert replayed.ledger.table().equals(eager.ledger.table())
    assert set(recorded.stages) == {0, 1, 2}
    changed = replace(model.settings, cfg=7.0)
    refused(
        lambda: Run(model, changed, SeededNoise(0), execution=recorded).generate(features(3, 5), (0, 1)),
        "other settings",
    )
    refused(lambda: running[-1].generate(features(3), (0,)), "recorded for 4 rows, not 2")


@pytest.mark.slow
def test_compiled_sublayers_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_infinity(2, 256, "0.06M")
    text = model.read_prompts(["a"])
    hidden: dict[str, torch.Tensor] = {}
    run = Run(model, model.settings, SeededNoise(0))
    for name, execution in (("eager", Execution()), ("compiled", compiling.Compiled(model))):
        state = run.begin(text, (0,))
        site = Site(run.stage(state, 1), 0, "ffn")
        x = torch.randn(2, 16, 256, generator=torch.Generator().manual_seed(0))
        hidden[name] = execution.sublayer(model, site, x, state, None, lambda q, k, v: q)
    assert torch.allclose(hidden["eager"], hidden["compiled"], atol=1e-4)
    assert 0 < logits_difference(model, compiling.Compiled(model), ["a"]) < 1e-4
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    torch._dynamo.reset()
    execution = compiling.Compiled(model)
    torch._dynamo.config.recompile_limit = 1
    refused(
        lambda: Run(model, model.settings, SeededNoise(0), execution=execution).generate(["a"], (0,)),
        "more than 64 shapes",
    )


def test_equal_executions_are_not_apart() -> None:
    model = random_infinity(1, 128, "0.06M")
    assert logits_difference(model, Execution(), ["a"]) == 0
    assert (
        0 < logits_difference(model, Execution(), ["a"], passes=2, twin=random_infinity(1, 128, "0.06M", "bf16")) < 0.1
    )


def test_a_peak_is_that_of_its_own_run() -> None:
    """Pages that the process keeps after a large run are not the next one's."""
    keep_freed_pages()
    cpu = torch.device("cpu")
    for _ in range(2):
        torch.ones(100_000_000, dtype=torch.uint8).sum()
    forgot = reset_peak(cpu)
    if not forgot:
        pytest.skip("this system cannot forget an earlier peak")
    before = peak_mib(cpu, forgot)
    torch.ones(5_000_000, dtype=torch.uint8).sum()
    assert peak_mib(cpu, forgot) - before < 50


def test_keys_and_values_make_room_for_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, held = tiny_infinity(), list[int]()
    decode = model.decode
    states: list[State] = []
    finish = Run.finish

    def watched(self: Run, samples: tuple[int, ...], finished: list[State]) -> Any:
        states[:] = finished
        return finish(self, samples, finished)

    monkeypatch.setattr(Run, "finish", watched)

    def decoded(canvas: torch.Tensor) -> torch.Tensor:
        held.append(states[0].kv.bytes)
        return decode(canvas)

    monkeypatch.setattr(model, "decode", decoded)
    for keep in (False, True):
        Run(model, model.settings, SeededNoise(0), store_keys=keep).generate(features(3), (0,))
    assert held[0] == 0 < held[1]

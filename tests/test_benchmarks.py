"""The yardstick of the engine, its options, and what is predicted and refused before a run."""

import copy
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import features, text_for, tiny_hart, tiny_infinity, tiny_var
from tests.minis import refused
from varlab import estimate as estimates
from varlab import machine
from varlab.benchmarks import dense, gpu, suite
from varlab.benchmarks.dense import TARGETS, _table
from varlab.benchmarks.growth import account_seconds
from varlab.benchmarks.models import random_infinity
from varlab.benchmarks.probe_cost import interleaved
from varlab.benchmarks.reference import reference
from varlab.comparison import methods_of
from varlab.engine import compiled as compiling
from varlab.engine import graphs
from varlab.engine.graphs import GraphedRun, tensors
from varlab.engine.kv import KVStore
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.state import State
from varlab.errors import VarlabError
from varlab.latency import SPANS, Latency, latency, launch_bound_share, one_pass
from varlab.machine import Rates
from varlab.models import memory
from varlab.models.hart_files import RandomHartText
from varlab.models.hart_model import Hart, HartSettings
from varlab.models.infinity_model import Infinity
from varlab.models.layers import gelu_, rotate
from varlab.models.memory import GIB, account
from varlab.models.registry import find
from varlab.models.text import RandomText
from varlab.models.zoo import load
from varlab.probes.log import fewer_bits
from varlab.runs import work_shares


def engine(model: Infinity | Hart, **options: object) -> torch.Tensor:
    run = Run(model, model.settings, SeededNoise(7), **options)  # type: ignore[arg-type]
    return run.generate(text_for(model, (3, 5), (0, 1)), (0, 1)).canvas


@pytest.mark.parametrize("schedule", ["square", "odd-tall"])
@pytest.mark.parametrize("patchify", [False, True])
def test_the_reference_samples_what_the_engine_samples(schedule: str, patchify: bool) -> None:
    model = tiny_infinity(schedule, patchify)
    assert torch.equal(reference(model, features(3, 5), (0, 1), SeededNoise(7)), engine(model))
    assert not torch.equal(reference(model, features(3, 5), (0, 1), SeededNoise(8)), engine(model))


def test_the_reference_under_autocast_agrees_but_for_rounding() -> None:
    model = random_infinity(1, 128, "0.06M", "bf16")
    text = model.read_prompts(["a"])
    ours = Run(model, model.settings, SeededNoise(7)).generate(text, (0,)).canvas
    theirs = reference(model, text, (0,), SeededNoise(7), autocast=True)
    other = Run(model, model.settings, SeededNoise(8)).generate(text, (0,)).canvas

    def apart(canvas: torch.Tensor) -> float:
        return float((ours - canvas).square().mean() / ours.square().mean())

    assert apart(theirs) < 0.06 < 0.2 < apart(other)  # bits near even odds fall the other way; .02 was seen


@pytest.mark.parametrize("family", ["infinity", "hart"])
def test_keeping_the_last_keys_changes_nothing(family: str) -> None:
    """HART's last stage in three passes, which read the keys of the earlier ones."""
    model = tiny_infinity() if family == "infinity" else tiny_hart(settings=HartSettings(cfg=2.0, top_k=20, passes=3))
    assert torch.equal(engine(model), engine(model, keep_keys=True))


def test_gelu_and_rotation_are_the_plain_ones() -> None:
    x = torch.linspace(-9, 9, 300_001)
    assert torch.allclose(gelu_(x.clone()), F.gelu(x.double(), approximate="tanh").float(), atol=2e-6)
    half = x.bfloat16()
    plain = F.gelu(half.float(), approximate="tanh")
    assert torch.allclose(gelu_(half.clone()).float(), plain, rtol=2**-8, atol=1e-6)
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
    keys, _, bias = store.append(0, tokens + 1, tokens, torch.ones(2, 3), keep=False)
    assert keys.shape[2] == 9 and keys[0, 0, 6:].eq(1).all() and store.held == [6] and store.lengths == [9]
    assert bias is not None and bias[0, 0, 0].tolist() == [0.0] * 6 + [1.0] * 3
    store.clear()
    assert store.held == [0] and store.keys[0] is not None


def test_spans_tile_a_run() -> None:
    model = tiny_infinity()
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    made = one_pass(model, ["a", "b"], "none", 0)
    assert {span for span, _ in made.spans} == set(SPANS)
    assert 0.9 * made.seconds < sum(made.spans.values()) <= made.seconds
    found = latency(model, ["a"], ["truncate:last=1"], rounds=2)
    whole = found.spans[(found.spans.stage == 0) & (found.spans.span == "all")].set_index("method")
    assert whole.ratio["none"] == 1 and set(whole.n) == {2}
    assert found.shown().columns.tolist() == ["span", "none", "truncate:last=1"]
    assert found.stages.share_of_limit[found.stages.method == "none"].gt(0).all()
    assert pd.isna(launch_bound_share(found.stages))


def test_all_families_have_a_latency() -> None:
    hart, var = tiny_hart(), tiny_var()
    hart.text = RandomHartText(6, hart.transformer.config.text_width)
    for model, text in ((hart, "a"), (var, 3)):
        found = latency(model, [text], rounds=1)
        assert found.stages.byte_limit.gt(0).all() and found.spans["median"].ge(0).all()


def test_options_that_do_not_apply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_infinity()
    refused(lambda: latency(model, ["a"], graphs=True), "CUDA graphs need a GPU", "leave graphs out")
    refused(lambda: GraphedRun(model, model.settings, SeededNoise(0)), "CUDA graphs need a GPU")
    refused(lambda: compiling.compiled(tiny_hart()), "compile is there for Infinity, not for hart")

    def none() -> str:
        raise RuntimeError

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    refused(lambda: compiling.compiled(model), "needs a C++ compiler", "install g++")
    refused(lambda: gpu.gpu_bench(), "needs a CUDA device")


def test_graphs_refuse_a_text_among_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "require_gpu", lambda device: None)
    model = tiny_hart()
    refused(lambda: GraphedRun(model, model.settings, SeededNoise(0)), "carries the text of tiny-hart", "leave graphs")
    GraphedRun(tiny_infinity(), tiny_infinity().settings, SeededNoise(0))


def test_a_graph_finds_every_tensor_of_a_conditioning() -> None:
    model = tiny_infinity()
    conditioning = model.prepare(features(3, 5), True)
    found = tensors(conditioning)
    assert len(found) == 4 + 4 * 6 + 4 * 2  # pooled, shared, tokens, mask; six modulations and K, V a block


def test_replayed_stages_are_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in for CUDA graphs: the recorded call again on the recorded tensors, its book-keeping undone."""
    model, recorded = tiny_infinity(), graphs.Graphs()
    running: list[GraphedRun] = []

    def capture(call: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        def quietly() -> torch.Tensor:
            kv, ledger = running[-1].graphs.kv, running[0].ledger
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
    monkeypatch.setattr(graphs, "refuse_graphs", lambda run: None)
    for seed in (1, 2, 3):
        noise, text = SeededNoise(seed), features(3, 5, seed=seed)
        running.append(GraphedRun(model, model.settings, noise, graphs=recorded))
        replayed = running[-1].generate(text, (0, 1))
        eager = Run(model, model.settings, noise).generate(text, (0, 1))
        assert torch.equal(replayed.image, eager.image)
        assert replayed.ledger.table().equals(eager.ledger.table())
    assert set(recorded.stages) == {0, 1, 2}
    refused(lambda: running[-1].generate(features(3), (0,)), "recorded for 4 rows, not 2")


@pytest.mark.slow
def test_compiled_branches_give_the_same_numbers() -> None:
    model = random_infinity(2, 256, "0.06M")
    text = model.read_prompts(["a"])
    hidden: dict[str, torch.Tensor] = {}
    for name, which in (("eager", model), ("compiled", compiling.compiled(model))):
        conditioning = which.prepare(text, True)
        x = torch.randn(2, 16, 256, generator=torch.Generator().manual_seed(0))
        hidden[name] = which.branch(0, "ffn", x, conditioning, None, lambda q, k, v: q)
    assert torch.allclose(hidden["eager"], hidden["compiled"], atol=1e-4)


def test_memory_is_counted_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    two = account(find("infinity-2b"), find("infinity-2b").schedule(None, 1.0), "bf16")
    assert two.weights == pytest.approx(
        2.2e9 * 2 + 0.34e9, rel=0.05
    )  # the tokenizer's norms and the text's parts stay fp32
    assert two.keys_values == 2 * 2 * 6425 * 2048 * 32 * 2
    hart = find("hart-0.7b")
    both = [account(hart, hart.schedule(None, 1.0), without_encoder=without) for without in (False, True)]
    assert both[0].total - both[1].total == both[0].text_encoder == 1_544_000_000 * 4
    monkeypatch.setattr(memory, "available", lambda device="cpu": 10 * GIB)
    refused(lambda: load("hart-0.7b"), "needs 13.9 GiB", "10.0 GiB left")
    refused(lambda: load("hart-0.7b", text="features", checkpoint="/nowhere"), "no folder")
    monkeypatch.setattr(memory, "available", lambda device="cpu": 18 * GIB)
    refused(lambda: load("infinity-8b", "random", precision="bf16"), "needs 25.9 GiB", "18.0 GiB left", "pixels 0.06M")
    monkeypatch.setattr(memory, "available", lambda device="cpu": 8 * GIB)
    refused(lambda: load("infinity-2b", "random", precision="bf16"), "needs 10.6 GiB", "pixels 0.25M")
    model = tiny_infinity()
    monkeypatch.setattr(memory, "available", lambda device="cpu": memory.RESERVE + 300_000)
    config, images = model.transformer.config, model.tokenizer.config
    message = refused(
        lambda: memory.refuse_batch(config, images, model.schedule, "fp32", "cpu", 64), "A batch of 64", "largest batch"
    )
    fits = int(message.split()[-1].rstrip("."))
    memory.refuse_batch(config, images, model.schedule, "fp32", "cpu", fits)


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
        _with_clock(lambda previews=previews: estimates.decode_seconds(model, model.schedule, 1, previews))
        for previews in (True, False)
    )
    cost = [model.decode_cost(grid).total for grid in ((8, 8), (2, 2))]
    assert plain == pytest.approx(cost[0] / cost[1])
    assert whole == pytest.approx(9 * cost[0] / cost[1])  # eight previews of at least eight latents a side


def _with_clock(call: Callable[[], float]) -> float:
    """What a call finds where every measured interval is one second."""
    ticks = iter(range(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "now", lambda device: float(next(ticks)))
        return call()


def test_a_device_that_torch_does_not_know_is_refused() -> None:
    refused(lambda: estimates.estimate("nano-infinity", device="nonsense"), "device 'nonsense' cannot be used")
    refused(lambda: machine.usable("cuda"), "device 'cuda' cannot be used")


def test_progress_follows_the_work() -> None:
    shares = work_shares(tiny_infinity("long"))
    assert shares[-1] == 1 and all(a < b for a, b in pairwise(shares)) and shares[0] < 0.02


def test_large_maps_lose_little() -> None:
    values = torch.rand(4096).mul(20).exp().numpy()
    values[:2] = float("nan"), float("inf")
    rounded = fewer_bits(values)
    assert (abs(rounded[2:] / values[2:] - 1) <= 2.0**-7).all() and (rounded[2:] != values[2:]).any()
    assert pd.isna(rounded[0]) and rounded[1] == float("inf")


def test_targets_are_judged_by_the_median() -> None:
    seconds = pd.DataFrame(
        [
            {"variant": name, "round": turn, "seconds": value}
            for turn in range(3)
            for name, value in (
                ("engine fp32", 9.0), ("reference fp32", 10.0), ("engine bf16", 4.0), ("reference bf16", 4.0),
            )
        ]
    )  # fmt: skip
    table = _table(seconds, {"fp32": 0.9, "bf16": 0.5}, units=True).set_index("figure")
    assert table.met.to_dict() == {
        "fp32 / reference": True, "bf16 / reference": False, "bf16 / fp32": False,
        "linear fp32 / matmul": True, "linear bf16 / matmul": False,
    }  # fmt: skip
    assert set(TARGETS) <= set(table.index)
    without = _table(seconds, {"fp32": 0.9, "bf16": 0.7}, units=False)
    assert without.met.tolist() == [True, False, None, True, True]
    assert "there are none" in without.target[2]


@pytest.mark.parametrize(("flags", "units"), [("avx512f avx512_bf16", False), ("avx512_bf16 amx_tile amx_bf16", True)])
def test_a_target_for_matrix_units_is_judged_where_there_are_some(
    flags: str, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: f"model name : a processor\nflags : fpu {flags}\n")
    monkeypatch.setattr(
        dense,
        "_variants",
        lambda *shape: {
            name: lambda: 1.0 for name in ("engine fp32", "reference fp32", "engine bf16", "reference bf16")
        },
    )
    monkeypatch.setattr(dense, "linear_share", lambda width, precision: 0.9)
    made = suite.dense(1, None)
    assert made.facts["bf16 matrix units"] is units
    assert ("bf16 / fp32" in made.verdict.split("not applicable")[0]) is units
    assert ("not applicable without bf16 matrix units: bf16 / fp32" in made.verdict) is not units


def test_the_account_is_work_over_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("varlab.benchmarks.growth.rates", lambda *_, **__: Rates(2.0, 4.0, 1.0))
    model = random_infinity(1, 128, "0.06M")
    run = Run(model, model.settings, SeededNoise(0))
    run.generate(["prompt 0"], (0,))
    linear, attended = (sum(getattr(w, n) for w in run.ledger.stages) for n in ("linear_flops", "attention_flops"))
    assert account_seconds(model) == pytest.approx(linear / 2 + attended / 4)


def test_history_grows_by_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_infinity()
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    found = interleaved(model, {"plain": (), "probes": ("token-mse",)}, 1, 1)
    assert found.equal and list(found.seconds) == ["plain", "probes"] and len(found.seconds) == 1
    made = suite.Measured("dense", pd.DataFrame({"figure": ["a"]}), "met", {"n": 1})
    monkeypatch.setitem(suite.TOPICS, "dense", lambda rounds, progress: made)
    for _ in range(2):
        suite.keep(suite.measure("dense", 1), tmp_path)
    lines = (tmp_path / "dense.jsonl").read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[0])["facts"]["threads"] == torch.get_num_threads()
    points = pd.DataFrame(
        {"axis": ["pixels"] * 2 + ["batch"] * 2, "value": list("abcd"), "seconds": 1.0, "account": 1.0}
    )
    points["seconds_growth"] = points["account_growth"] = [1.0, 2.0] * 2
    facts = {"precision": "fp32", "device": "cpu", "threads": 1, "n": 1}
    suite.keep(suite.Measured("growth", points, "", facts), tmp_path)
    assert (tmp_path / "growth.png").exists()


def test_what_a_gpu_did_not_measure_says_why() -> None:
    made = gpu.GpuBench({"2b decode": 0.05}, skipped={"hart": "failed: no memory"})
    table = made.table().set_index("figure").verdict
    assert table["2b decode"] == "met" and table["hart transformer"] == "failed: no memory"
    assert table["2b transformer"] == "not measured"


def test_the_gpu_benchmark_runs_through_in_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part that needs no GPU, on tiny models; what needs one fails alone, and says so."""

    def none(device: torch.device) -> None:
        raise VarlabError("no compiler in a rehearsal")

    def make(name: str) -> Infinity | Hart:
        made.append(name)
        model = tiny_infinity("long") if name == "infinity-2b" else tiny_hart("long")
        width = model.transformer.config.text_width
        model.text = RandomText(width, rows=4) if isinstance(model, Infinity) else RandomHartText(6, width)
        return model

    made: list[str] = []
    kept: list[int] = []
    monkeypatch.setattr(compiling, "require_compiler", none)
    monkeypatch.setattr(gpu, "SPEED_UPS", {"truncate:last=1": 1.6, "sparsevar:keep=0.49,last=3": 1.45})
    found = gpu.gpu_bench(1, after_part=lambda part: kept.append(len(part.figures)), device="cpu", make=make)
    assert set(found.skipped) == {"graphs", "compiled"}
    assert "CUDA graphs need a GPU" in found.skipped["graphs"] and "no compiler" in found.skipped["compiled"]
    unknown = {"2b first ten stages, graphs"} | {name for name, value in found.figures.items() if value != value}
    assert unknown <= {"2b first ten stages, graphs", "2b peak memory", "2b probes, memory"}  # /proc may not tell
    assert set(gpu.TARGETS) <= set(found.figures) | unknown and len(kept) == len(gpu.PARTS) and kept[-1] >= 8
    assert made == ["hart-0.7b", "infinity-2b"]
    assert found.details["probes"]["equal"] and found.details["2b batch 4"]["facts"]["batch"] == 4
    stored = json.loads(gpu.keep(found, tmp_path).read_text())
    assert stored["facts"]["seconds_by_part"].keys() == {
        "hart",
        "dense",
        "speed-up",
        "probes",
        "batch",
        "graphs",
        "compiled",
    }
    table = found.table().set_index("figure").verdict
    assert table["2b first ten stages, graphs"].startswith("failed: CUDA graphs need a GPU")


def test_a_gpu_that_vanishes_leaves_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts after it fail one by one with its message; time that is spent skips the rest."""

    def first(made: gpu.GpuBench, models: gpu.Models, rounds: int) -> None:
        made.figures["2b decode"] = 0.05

    def _dense(made: gpu.GpuBench, models: gpu.Models, rounds: int) -> None:
        raise RuntimeError("CUDA error: the device is gone\nmore")

    monkeypatch.setattr(gpu, "PARTS", (first, _dense))
    found = gpu.gpu_bench(1, device="cpu")
    table = found.table().set_index("figure").verdict
    assert table["2b decode"] == "met" and table["2b transformer"] == "failed: CUDA error: the device is gone"
    monkeypatch.setattr(gpu, "BUDGET", -1.0)
    assert gpu.gpu_bench(1, device="cpu").skipped["dense"].startswith("skipped:")


def test_a_method_of_a_gpu_must_reach_its_speed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"none": 3.0, "fastvar": 1.0, "truncate:last=1": 2.0}  # 3 and 1.5 times as fast; 2.5 and 1.6 are asked
    spans = [
        {"method": name, "span": "transformer", "stage": 0, "median": seconds.get(name, 3.0)}
        for name in ("none", *gpu.SPEED_UPS)
    ]
    empty = pd.DataFrame()
    monkeypatch.setattr(gpu, "latency", lambda *given, **named: Latency(pd.DataFrame(spans), empty, empty, {}))
    made = gpu.GpuBench({"2b decode": 0.07, "2b peak memory": float("nan")})
    gpu._speed_up(made, gpu.Models(lambda name: tiny_infinity()), 1)
    table = made.table().set_index("figure")
    assert table.verdict["speed-up fastvar"] == "met" and table.measured["speed-up fastvar"] == "3.000"
    assert table.verdict["speed-up truncate:last=1"] == table.verdict["2b decode"] == "NOT met"
    assert table.target["speed-up fastvar"] == "at least 2.5" and table.target["2b decode"] == "at most 0.06"
    assert table.verdict["2b peak memory"] == "not measured"
    assert all(methods_of(spec) for spec in gpu.SPEED_UPS)
    failed = gpu.GpuBench(skipped={"speed-up": "failed: no memory"}).table().set_index("figure").verdict
    assert failed["speed-up cfg-off:last=3"] == "failed: no memory"

"""The yardstick of the engine: reference, spans, probes' cost, growth, targets and history."""

import json
from itertools import count, pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch

import varlab as vl
from tests.conftest import features, text_for, tiny_hart, tiny_infinity, tiny_var
from tests.minis import make_nano
from tests.test_outputs import run
from varlab import machine
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.machine import Rates
from varlab.models.hart_model import Hart
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText
from varlab.probes.log import fewer_bits
from varlab.runs import work_shares
from varlab.runs.clock import SPANS
from varlab.timing.benchmarks import dense, sharing, suite
from varlab.timing.benchmarks.dense import TARGETS, _table
from varlab.timing.benchmarks.growth import account_seconds
from varlab.timing.benchmarks.models import random_infinity
from varlab.timing.benchmarks.probe_cost import BARE, ProbeCost, paired_cost
from varlab.timing.benchmarks.reference import reference
from varlab.timing.latency import latency, launch_bound_share, one_pass
from varlab.weights.hart_files import RandomHartText


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


def test_spans_tile_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_infinity()
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    with monkeypatch.context() as patch:
        patch.setattr("time.perf_counter", map(float, count()).__next__)  # a second passes at every look at the clock
        made = one_pass(model, ["a", "b"], "none", 0)
    assert {span for span, _ in made.spans} == set(SPANS)
    assert sum(made.spans.values()) == made.seconds - 2  # one before the first mark and one after the last
    found = latency(model, ["a"], ["truncate:last=1"], rounds=2)
    whole = found.spans[(found.spans.stage == 0) & (found.spans.span == "all")].set_index("method")
    assert whole.ratio["none"] == 1 and set(whole.n) == {2}
    assert (whole.ratio_low <= whole.ratio).all() and (whole.ratio <= whole.ratio_high).all()
    shown = found.shown().set_index("span").loc["ratio"]
    low, high = whole.loc["truncate:last=1", ["ratio_low", "ratio_high"]]
    assert shown["none"] == "1.000" and shown["truncate:last=1"].endswith(f" [{low:.3f}, {high:.3f}]")
    assert found.stages.share_of_limit[found.stages.method == "none"].gt(0).all()
    assert pd.isna(launch_bound_share(found.stages))


def test_all_families_have_a_latency() -> None:
    hart, var = tiny_hart(), tiny_var()
    hart.text = RandomHartText(6, hart.transformer.config.text_width)
    for model, text in ((hart, "a"), (var, 3)):
        found = latency(model, [text], rounds=1)
        assert found.stages.byte_limit.gt(0).all() and found.spans["median"].ge(0).all()


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
    medians = {"engine fp32": 8.7, "reference fp32": 10.0, "engine bf16": 4.0, "reference bf16": 4.0}
    medians["engine packed"] = 3.0
    seconds = pd.DataFrame([medians] * 3)
    kernels = {"fp32": 0.93, "bf16": 0.9}
    table = _table(seconds, {"fp32": 0.96, "bf16": 0.94}, kernels, units=True).set_index("figure")
    assert table.met.to_dict() == {
        "fp32 / reference": True, "bf16 / reference": False, "bf16 / fp32": False, "packed / bf16": True,
        "linear fp32 / matmul": True, "linear bf16 / matmul": False,
        "kernels / reference fp32": None, "kernels / reference bf16": None,
    }  # fmt: skip
    assert set(TARGETS) <= set(table.index)
    assert table["median"]["kernels / reference fp32"] == 0.93
    without = _table(seconds, {"fp32": 0.95, "bf16": 0.97}, kernels, units=False)
    assert without.met.tolist() == [True, False, None, None, True, True, None, None]
    assert "there are none" in without.target[2]
    alone = _table(seconds[["engine fp32", "reference fp32"]], {"fp32": 0.95}, {"fp32": 0.93}, units=False)
    assert alone.n.tolist() == [3, 0, 0, 0, 1, 1] and alone.met.tolist() == [True, None, None, None, True, None]


@pytest.mark.parametrize("kernel", ["aten::addmm", "aten::_scaled_dot_product_flash_attention_for_cpu"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_spends_part_of_its_time_in_each_of_torchs_kernels(
    precision: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel in dense.KERNELS
    monkeypatch.setattr(dense, "KERNELS", (kernel,))
    assert 0 < dense.kernel_share(256, precision, "0.06M", depth=1) < 1


def test_the_reference_spends_no_time_in_a_kernel_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "KERNELS", ("aten::no_such_kernel",))
    assert dense.kernel_share(256, "fp32", "0.06M", depth=1) == 0


@pytest.mark.parametrize(
    ("flags", "units"), [("avx2", False), ("avx512f avx512_bf16", False), ("avx512_bf16 amx_tile amx_bf16", True)]
)
def test_a_target_for_matrix_units_is_judged_where_there_are_some(
    flags: str, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: f"model name : a processor\nflags : fpu {flags}\n")
    monkeypatch.setattr(
        dense,
        "_variants",
        lambda *given: {
            name: lambda: 1.0
            for name in ("engine fp32", "reference fp32", "engine bf16", "reference bf16", "engine packed")
            if name.split()[1] in (*given[-1], "packed" if "bf16" in given[-1] else "")
        },
    )
    monkeypatch.setattr(dense, "linear_share", lambda width, precision: 0.9)
    monkeypatch.setattr(dense, "kernel_share", lambda width, precision, pixels: 0.9)
    made = suite.dense(1, None)
    assert made.facts["bf16 matrix units"] is units and set(made.table.pixels) == {"0.25M", "1M"}
    assert made.verdict.endswith(
        "the reference was 4% (fp32) and 2% (bf16) faster than the official code where both were measured"
    )
    assert ("bf16 / fp32" in made.verdict.split(";")[0]) is units
    vectors, needing = "avx512_bf16" in flags, "bf16 / fp32, packed / bf16"
    assert (f"not applicable without bf16 matrix units: {needing}" in made.verdict) is (vectors and not units)
    assert (f"no instructions for bf16: bf16 / reference, {needing}" in made.verdict) is not vectors
    assert (made.table.n[made.table.figure == "bf16 / reference"] > 0).all() == vectors


def test_the_account_is_work_over_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("varlab.timing.benchmarks.growth.rates", lambda *_, **__: Rates(2.0, 4.0, 1.0))
    model = random_infinity(1, 128, "0.06M")
    run = Run(model, model.settings, SeededNoise(0))
    run.generate(["prompt 0"], (0,))
    linear, attended = (sum(getattr(w, n) for w in run.ledger.stages) for n in ("linear_flops", "attention_flops"))
    assert account_seconds(model) == pytest.approx(linear / 2 + attended / 4)


def test_drawing_together_gives_the_bits_of_each_alone_for_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    make_nano(tmp_path / "data")
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sharing, "ROUND", 1)
    monkeypatch.setattr(sharing, "SPECS", ("none", "fastvar", "truncate:last=1", "sparsevar:keep=0.5,last=1"))
    alone, together = (0, 2.0, 5.0, 7.0, 8.0), (0, 0.5, 1.0, 1.5, 2.0)  # the clock at each image
    other = (0, 0.5, 1.0, 2.0, 3.0)
    # The warming round and the first one; then the process is stopped in the second.
    clock = [*alone, *together, *together, *alone]
    monkeypatch.setattr(sharing.time, "process_time", iter(clock).__next__)
    with pytest.raises(StopIteration):
        suite.shared(2, None, "nano-infinity")
    clock = [*alone, *together, *alone, *other]  # warms up again, and goes on with the second
    monkeypatch.setattr(sharing.time, "process_time", iter(clock).__next__)
    made = suite.shared(2, None, "nano-infinity")
    table = made.table.set_index("way")
    assert set(table.seed) == {0} and set(table.rounds) == {2} and set(table.images) == {2} == {made.facts["n"]}
    assert table.cpu_seconds.tolist() == pytest.approx([(8 + 3 * 2) / 4, 8 / 4, 2.5 / 4])
    assert table.ratio.tolist() == pytest.approx([1, 8 / 14, 2.5 / 14])
    assert table.step.tolist() == pytest.approx([1, 8 / 14, 2.5 / 8]) and (table.step_low <= table.step).all()
    assert "0.18 [0.14, 0.21]" in made.verdict and made.verdict.endswith("images bit-equal")
    assert made.facts["earlier_rounds"] == 1
    assert list(tmp_path.rglob("rounds.csv"))  # nothing is lost where the table cannot be written
    suite.save(made, tmp_path / "bench")
    assert not list(tmp_path.rglob("rounds.csv"))  # measured anew when it is asked for again
    one, noise = sharing._one, count(1)
    monkeypatch.setattr(sharing, "_one", lambda *given: one(*given) + (given[-1] == "fastvar") * next(noise))
    monkeypatch.setattr(sharing.time, "process_time", count(1).__next__)
    assert "NOT bit-equal" in suite.shared(1, None, "nano-infinity").verdict


def test_the_line_under_a_table_names_model_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ProbeCost(pd.DataFrame({"variant": [BARE], "ratio_median": [1.0]}), True, 8)
    monkeypatch.setattr(suite, "probe_cost", lambda *given, **more: found)
    shown = run("bench", "probes", "--out", str(tmp_path))
    model = vl.load("nano-infinity")
    assert model.weights.startswith("trained")
    assert f"{model.name}, {model.weights}, fp32" in " ".join(shown.split())
    table = pd.read_csv(tmp_path / "bench" / "probes.csv")
    assert table[["model", "weights", "precision", "seed"]].values.tolist() == [[model.name, model.weights, "fp32", 0]]


def test_history_grows_by_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_infinity()
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    found = paired_cost(model, {"plain": (), "probes": ("token-mse",)}, 1, 1)
    assert found.equal and list(found.seconds) == ["plain", "probes"] and len(found.seconds) == 1
    assert found.log_mb["plain"] == 0 < found.log_mb["probes"] < 1
    made = suite.Measured("dense", pd.DataFrame({"figure": ["a"]}), "met", {"n": 1})
    monkeypatch.setitem(suite.TOPICS, "dense", lambda rounds, progress: made)
    for _ in range(2):
        suite.save(suite.measure("dense", 1), tmp_path)
    lines = (tmp_path / "dense.jsonl").read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[0])["facts"]["threads"] == torch.get_num_threads()
    points = pd.DataFrame(
        {"axis": ["pixels"] * 2 + ["batch"] * 2, "value": list("abcd"), "seconds": 1.0, "account": 1.0}
    )
    points["seconds_growth"] = points["account_growth"] = [1.0, 2.0] * 2
    facts = {"precision": "fp32", "device": "cpu", "threads": 1, "n": 1}
    suite.save(suite.Measured("growth", points, "", facts), tmp_path)
    assert (tmp_path / "growth.png").exists()

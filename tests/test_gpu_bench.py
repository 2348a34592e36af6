"""The GPU benchmark, rehearsed without one."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import tiny_hart, tiny_infinity
from tests.test_placement import by_shape
from varlab.comparison import methods_of
from varlab.engine import compiled as compiling
from varlab.errors import VarlabError
from varlab.models.hart_model import Hart
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText
from varlab.timing.benchmarks import gpu, predicted
from varlab.timing.latency import Latency
from varlab.weights.hart_files import RandomHartText


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
    needy = {"2b first ten stages, graphs", "2b graphs, logits apart", "2b compiled, logits apart"}
    unknown = needy | {name for name, value in found.figures.items() if value != value}
    assert unknown <= needy | {"2b peak memory", "2b probes, memory"}  # /proc may not tell
    assert set(gpu.TARGETS) <= set(found.figures) | unknown and len(kept) == len(gpu.PARTS) and kept[-1] >= 8
    assert made == ["hart-0.7b", "infinity-2b"]
    assert found.details["probes"]["equal"] and found.details["2b batch 4"]["facts"]["batch"] == 4
    stored = json.loads(gpu.save(found, tmp_path).read_text())
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
        {"method": name, "span": span, "stage": 0, "median": share * seconds.get(name, 3.0)}
        for name in ("none", *gpu.SPEED_UPS)
        for span, share in (("plan", 0.25), ("transformer", 0.75), ("all", 2.0))
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


def test_what_was_predicted_stands_beside_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole depth takes ten seconds.
    monkeypatch.setattr(predicted, "load", lambda name, _, precision: by_shape(name, precision))
    table = predicted.predicted(["truncate:last=1"], models=["hart-0.7b"])
    assert set(table.method) == {"none", "truncate:last=1"} and len(table) == 2 * len(predicted.ELSEWHERE)
    assert (table.speed_up_graphs[table.method == "truncate:last=1"] > 1).all()
    assert set(table.weights) == {"none: shapes alone"} and table.assumptions.str.startswith("assumed:").all()
    table.to_csv(tmp_path / predicted.FILE, index=False)
    said = predicted.figures(tmp_path, "NVIDIA H200")
    own = table[(table.device == "NVIDIA H200 SXM") & (table.method == "none")].iloc[0]
    assert said["hart transformer"] == pytest.approx(own.eager_ms / 1e3)
    assert not predicted.figures(tmp_path, "NVIDIA B200") and not predicted.figures(tmp_path / "nowhere", "NVIDIA H200")
    shown = gpu.GpuBench({"hart transformer": 0.1}, predicted=said).table().set_index("figure").loc["hart transformer"]
    assert shown.measured == "0.100" and shown.predicted == f"{own.eager_ms / 1e3:.3f}"

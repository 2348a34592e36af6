"""The speed benchmark: timing changes nothing, and its figures are those of its own rounds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from varlab.accelerators import DENSE
from varlab.cli import app
from varlab.comparison import compare, methods_of
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.infinity_model import Infinity
from varlab.timing.benchmarks.models import random_infinity
from varlab.timing.benchmarks.probe_cost import paired_cost
from varlab.timing.benchmarks.pruning import _table, savings, timed
from varlab.timing.latency import latency

SPEC = "sparsevar:keep=0.25,last=3"


@pytest.fixture(scope="module")
def model() -> Infinity:
    return random_infinity(4, 128, "0.06M")


@pytest.mark.parametrize("spec", [SPEC, "sparsevar:tau=0.6", "fastvar-all-scales:ratios=0.5/0.75,first=1"])
def test_timing_a_method_changes_nothing(model: Infinity, spec: str) -> None:
    def draw(methods: list) -> torch.Tensor:
        return Run(model, model.settings, SeededNoise(0)).generate(["a", "b"], (0, 1), methods).canvas

    methods = [timed(method, model.device) for method in methods_of(spec)]
    assert torch.equal(draw(methods), draw(methods_of(spec)))
    assert all(vars(method)["spent"][0] > 0 for method in methods)


def test_the_table_pairs_the_rounds(model: Infinity) -> None:
    found = savings(model, SPEC, repeats=2)
    rounds, table = found.rounds, found.table.set_index("figure")
    assert rounds.groupby("method").size().to_dict() == {DENSE: 2, SPEC: 2}
    assert len(found.stages) == len(model.schedule) and (found.stages > 0).all().all()
    made = rounds.assign(seconds=np.where(rounds.method == DENSE, 2.0, 1.2), overhead_seconds=0.05)
    work = table.loc["work ratio", "median"]
    assert 0 < work < 1
    row = _table(made, SPEC).set_index("figure")["median"]
    assert row["time ratio"] == pytest.approx(0.6) and row["overhead of the method's own verbs"] == pytest.approx(0.025)
    assert row["share of the saving"] == pytest.approx(0.4 / (1 - work))


def test_a_peak_that_cannot_be_forgotten_is_not_measured(model: Infinity, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, text: str) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    found = savings(model, SPEC, repeats=2)
    memory = found.table.set_index("figure").loc["memory"]
    assert found.rounds.peak_mib.isna().all() and memory[["median", "low", "high"]].isna().all()
    assert latency(model, ["a"], rounds=1).memory.peak.isna().all()
    assert np.isnan(paired_cost(model, {"plain": ()}, 1, 1).peaks["plain"])
    assert compare(model, ["a star"], [SPEC], n=1, frontier=False).table.peak_mib.isna().all()


def test_the_command_writes_its_tables(tmp_path: Path) -> None:
    asked = ["savings", SPEC, "--pixels", "0.06M", "--depth", "2", "--width", "128", "--repeats", "1", "--threads", "1"]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "random (seed 0)" in done.output and "share of the saving" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"facts.json", "savings.csv", "rounds.csv", "stages.csv"}

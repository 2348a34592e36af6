"""What ``vl.attach`` costs: paired by round, kept model by model."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.test_outputs import run
from varlab.errors import VarlabError
from varlab.models.infinity_model import Infinity
from varlab.schedules import custom
from varlab.timing.benchmarks import attach_cost, suite
from varlab.timing.benchmarks.models import random_infinity


def test_what_attaching_costs_is_paired_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_infinity(1, 128, "0.06M").with_(schedule=custom(((1, 1), (2, 2)), "two"))
    monkeypatch.setattr(attach_cost, "MODELS", {"small": lambda: model})
    loads = (50.0, 100.0, 1.0, 10.0, 1000.0, 5.0)  # what a plain call takes, by round; the first warms up
    ratios = (9.0, 1.6, 1.2, 2.0, 1.4, 1.8)  # of attached calls; of medians, or to the median, it would be 2
    ticks: list[float] = []
    names = list(attach_cost.VARIANTS)
    for turn, (load, ratio) in enumerate(zip(loads, ratios, strict=True)):
        for name in (names[(i + turn) % len(names)] for i in range(len(names))):
            own = load * ratio
            ticks += [0, 77, 0, load] if name == "plain" else [0, 3, 0, own + 2, 0, own]
    monkeypatch.setattr(attach_cost, "time", SimpleNamespace(process_time=iter(ticks).__next__))
    made = suite.measure("attach", 1, model="small")
    table = made.table.set_index("variant")
    assert list(table.index) == list(attach_cost.VARIANTS) and set(table.n) == {made.facts["n"]} == {5}
    assert table.ratio.tolist() == pytest.approx([1, 1.6, 1.6, 1.6])
    assert table.low.tolist() == pytest.approx([1, 1.2, 1.2, 1.2]) and (table.high < 2.01).all()
    assert table.once_s.tolist() == pytest.approx([float("nan"), 5, 5, 5], nan_ok=True)
    assert set(table.width) == {128} and set(table.weights) == {model.weights} and set(table.seed) == {0}
    assert model.weights in made.facts["weights"]
    assert "1.600 times plain, NOT within 1.1; images bit-equal" in made.verdict


def test_attaching_is_measured_and_kept_model_by_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(width: int) -> Infinity:
        return random_infinity(1, width, "0.06M").with_(schedule=custom(((1, 1), (2, 2)), "two"))

    def stopped() -> Infinity:
        raise RuntimeError("stopped")

    folder = tmp_path / "bench"
    monkeypatch.setattr(attach_cost, "MODELS", {"one": lambda: small(128), "two": stopped})
    monkeypatch.setattr(attach_cost, "LONG", {"long": lambda: small(256)})
    folder.mkdir()
    (folder / "attach.csv").write_text("of,another\n1,2\n")
    with pytest.raises(VarlabError, match="exists"):
        run("bench", "attach", "--out", str(tmp_path))
    with pytest.raises(RuntimeError, match="stopped"):
        run("bench", "attach", "--out", str(tmp_path), "--overwrite")
    assert set(pd.read_csv(folder / "attach.csv").model) == {"one"}
    monkeypatch.setitem(attach_cost.MODELS, "two", lambda: small(256))
    for name in ("two", "long", "one"):
        run("bench", "attach", "--model", name, "--rounds", "2", "--out", str(tmp_path))
    table = pd.read_csv(folder / "attach.csv")
    assert table.model.unique().tolist() == ["two", "long", "one"] and table.bit_equal.all()
    rows = table[table.model == "long"]
    assert set(rows.n) == {2} and "no probes" not in set(rows.variant) and len(rows) == len(attach_cost.VARIANTS) - 1
    history = [json.loads(line) for line in (folder / "attach.jsonl").read_text().splitlines()]
    assert [entry["facts"]["model"] for entry in history] == ["one", "two", "long", "one"]
    with pytest.raises(VarlabError, match="--model is of varlab bench attach or"):
        run("bench", "dense", "--model", "one", "--out", str(tmp_path))

"""What each precision costs: the one that is taken unasked is judged against bf16, in time and in memory."""

from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest

from tests.test_outputs import run
from varlab.errors import VarlabError
from varlab.timing.benchmarks import precision_cost, suite
from varlab.weights import precision
from varlab.weights.memory import account
from varlab.weights.registry import find


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_cost, "WIDTH", 128)


@pytest.mark.parametrize(("gain", "auto"), [(0.2, "bf16-weights"), (3.0, "bf16")])
def test_what_is_taken_unasked_is_held_against_bf16(gain: float, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gain", lambda device, kind: gain)
    ticks = {"bf16": [10.0, 2.0, 8.0, 6.0], "bf16-weights": [99.0, 1.0, 6.0, 3.0], "fp32": [1.0, 1.0, 1.0, 1.0]}
    timed = {name: iter(values) for name, values in ticks.items()}

    class Times:
        def __init__(self, model: object) -> None:
            self.processor = next(timed[model.precision])  # type: ignore[attr-defined]

    monkeypatch.setattr(precision_cost, "random_infinity", lambda *shape: Mock(precision=shape[-1]))
    monkeypatch.setattr(precision_cost, "timed_run", lambda model, *given: (None, Times(model)))
    made = suite.measure("precision", 3, model="infinity-2b-width-0.06M")
    rows = made.table.set_index("precision")
    assert rows.ratio.tolist() == pytest.approx([1, 0.5, 1 / 6])  # medians of ratios within a round; the first warms up
    assert set(rows.n) == {3} and set(rows.weights) == {"random (seed 0)"} and (rows.peak_mib > 0).all()
    entry = find("infinity-2b")
    for name, whole in rows.whole_gib.items():
        assert whole == account(entry, entry.schedule("0.06M", 1.0), str(name)).total / 2**30
    share = rows.whole_gib["bf16-weights"] / rows.whole_gib["bf16"]
    assert made.facts["auto"] == auto and f"auto takes {auto}" in made.verdict
    assert (
        f"0.500 times the time of bf16, within 0.6; {share:.3f} times the memory of bf16, within" in made.verdict
    ) is (auto != "bf16")


def test_each_size_is_kept_and_the_longest_is_measured_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_cost, "LONG", {"long": ("0.06M", 1)})
    for name in ("infinity-2b-width-0.06M", "long"):
        run("bench", "precision", "--model", name, "--rounds", "1", "--out", str(tmp_path))
    table = pd.read_csv(tmp_path / "bench" / "precision.csv")
    assert table.model.unique().tolist() == ["infinity-2b-width-0.06M", "long"]
    assert (table.peak_mib > 0).all()  # of the longest in the timed round, as nothing warms up
    assert suite.models_of("precision") == [*precision_cost.MODELS] and suite.models_of("dense") == []
    with pytest.raises(VarlabError, match="infinity-2b-width-0"):
        run("bench", "precision", "--model", "infinity-2b", "--out", str(tmp_path))

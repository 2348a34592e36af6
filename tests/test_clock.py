"""The clock changes nothing and misses nothing; what is timed takes turns."""

import gc
import weakref

import pytest
import torch

from tests.conftest import text_for, tiny_infinity
from varlab.accelerators.baselines import Truncate
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.runs.clock import interleaved, paired_ratio, timed_run

CPU = torch.device("cpu")


def test_a_timed_run_draws_the_same_and_its_stages_lie_within_it() -> None:
    model = tiny_infinity("long")
    text = text_for(model, (3, 5), (0, 1))

    out, times = timed_run(model, text, (0, 1), seed=7)
    plain = Run(model, model.settings, SeededNoise(7)).generate(text, (0, 1))
    assert torch.equal(out.image, plain.image)
    assert list(times.stages) == list(range(len(model.schedule)))
    spans = {name: sum(s for (span, _), s in times.spans.items() if span == name) for name, _ in times.spans}
    assert spans["transformer"] + spans["sampling"] <= times.transformer + 1e-9
    assert times.transformer <= spans["plan"] + spans["transformer"] + spans["sampling"] + 1e-9 < times.seconds
    assert times.processor > 0 and times.spans == times.issued and times.ledger is out.ledger
    _, short = timed_run(model, text, (0, 1), [Truncate(2)])
    assert list(short.stages) == list(range(len(model.schedule) - 2))


def test_variants_take_turns_behind_a_round_that_warms_up() -> None:
    calls: list[tuple[str, int]] = []
    seen: list[int] = []

    def run(name: str, turn: int) -> str:
        calls.append((name, turn))
        return f"{name}{turn}"

    found = interleaved(["a", "b", "c"], run, 2, CPU, lambda done, total: seen.append(done))
    assert calls == [(name, turn) for turn, names in enumerate(("abc", "bca", "cab")) for name in names]
    assert found.passes == {"a": ["a1", "a2"], "b": ["b1", "b2"], "c": ["c1", "c2"]}
    assert list(found.peaks) == ["a", "b", "c"] and seen == [0, 1, 2]
    calls.clear()
    assert interleaved(["a"], run, 1, CPU, warm_up=False).peaks == {} and calls == [("a", 1)]


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_run_leaves_is_found_without_looking_through_all_that_was_there(frozen: bool) -> None:
    class Loop:
        def __init__(self) -> None:
            self.own = self

    left: list[weakref.ref[Loop]] = []
    (gc.freeze if frozen else gc.unfreeze)()
    held = gc.get_freeze_count()

    def run(name: str, turn: int) -> None:
        assert gc.get_freeze_count() > 10_000
        assert not any(loop() for loop in left)  # ``reset_peak`` came first
        left.append(weakref.ref(Loop()))
        if name == "c":
            raise ValueError

    with pytest.raises(ValueError):
        interleaved(["a", "b", "c"], run, 1, CPU)
    assert len(left) == 3 and gc.get_freeze_count() == held and (held > 10_000) is frozen
    gc.freeze()  # as all tests run


def test_a_ratio_is_paired_by_round() -> None:
    """Both drift by a factor of four, their ratio by nothing."""
    assert paired_ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == (0.5, 0.5, 0.5)

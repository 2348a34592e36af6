"""Rules on stored runs follow their tables, in both directions, and name their baselines."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from varlab.analysis.settings_table import COLUMNS, SettingsTable
from varlab.claims import evidence
from varlab.claims.rules import FAILS, HOLDS, PARTLY, TOO_FEW, WIDE
from varlab.claims.verdict import Outcome

N = 40


def table(specs: Mapping[str, Mapping[str, Any]], n: int = N) -> SettingsTable:
    """Settings by name: work, ssim and further columns; the dense run and one baseline of half its work beside them."""
    given: dict[str, Any] = {"none": {"work": 1, "ssim": 1}, "truncate:last=1": {"work": 0.5, "ssim": 0.9}, **specs}
    noise = np.random.default_rng(0).normal(0, 0.002, n)
    rows = []
    for spec, about in given.items():
        part = pd.DataFrame({"spec": spec, "prompt": range(n)}).reindex(columns=list(COLUMNS))
        part["flops"] = 1e9 * float(about["work"])
        part["ssim"] = np.asarray(about["ssim"]) + (0 if spec == "none" else noise)
        part["high_frequency_ssim"] = part["psnr"] = part["ssim"]
        part["correct"] = about.get("correct", np.arange(n) % 2)
        for name in ("computed", "hf_diff", "drop", "replace"):
            if name in about:
                part[name] = about[name]
        rows.append(part)
    return SettingsTable(pd.concat(rows, ignore_index=True), {"n": n, "left_out": {"fastvar": "cannot run"}}, "0" * 16)


@pytest.mark.parametrize(
    ("ssim", "work", "correct", "outcome"),
    [
        (0.97, 0.5, None, HOLDS),  # fast enough, nothing lost, ahead of the baseline
        (0.80, 0.5, None, PARTLY),  # behind the baseline
        (0.97, 0.70, None, FAILS),  # its work allows 1.43 times
        (0.97, 0.5, 0, PARTLY),  # the score falls by half
    ],
)
def test_fast_and_kept(ssim: float, work: float, correct: int | None, outcome: Outcome) -> None:
    about = {"work": work, "ssim": ssim} | ({} if correct is None else {"correct": correct})
    found = evidence.faster_and_kept(table({"fast": about}, 2000), ["fast"], 2.0)
    assert found.outcome is outcome
    assert "truncate:last=1" in found.baselines[0]["spec"]


def test_no_baseline_no_verdict() -> None:
    found = evidence.faster_and_kept(table({"fast": {"work": 0.2, "ssim": 0.9}}), ["fast"], 2.0, kept=False)
    assert found.outcome is PARTLY and "No baseline computes as little" in found.text


def test_a_wide_score_says_how_many_prompts_it_needs() -> None:
    flipped = np.arange(N) % 2
    flipped[[0, 1]] = flipped[[1, 0]]  # one scene won, one lost: no change, but an interval of some points
    found = evidence.difference_agrees(table({"fast": {"work": 0.4, "ssim": 0.9, "correct": flipped}}), "fast", 0.0)
    assert found.outcome is WIDE and found.needed is not None
    high = found.numbers[0].high  # as far from the estimate, 0, as the lower end
    assert found.needed == int(np.ceil(N * (high / 0.02) ** 2)) > N
    worse = np.where(np.arange(N) == 1, 0, np.arange(N) % 2)  # one lost: nearer to the bound than the interval is wide
    near = evidence.difference_agrees(table({"fast": {"work": 0.4, "ssim": 0.9, "correct": worse}}), "fast", 0.0)
    assert near.outcome is WIDE and near.needed is not None and near.needed > N
    off = evidence.difference_agrees(table({"fast": {"work": 0.4, "ssim": 0.9, "correct": 0}}), "fast", 0.0)
    assert off.outcome is FAILS and off.needed is None


def test_an_idle_setting_tests_nothing() -> None:
    found = evidence.difference_agrees(table({"idle": {"work": 0.99, "ssim": 1.0}}), "idle", 0.0)
    assert found.outcome is Outcome.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("fitted", "says"),
    [
        ({}, "is not recorded"),
        ({"texts": None}, "is not recorded"),
        ({"texts": 300}, "the 300"),
    ],
)
def test_a_verdict_on_decisions_says_whether_they_were_fitted_on_its_prompts(fitted: dict[str, Any], says: str) -> None:
    drawn = table({"fast": {"work": 0.5, "ssim": 0.95}})
    drawn.facts["fitted"] = fitted
    ask = partial(evidence.ssim_at, spec="fast", ssim=0.9, speed=1.8)
    found, plain = evidence.decided(drawn, ask), ask(drawn)
    assert found.text.startswith(plain.text) and says in found.text.removeprefix(plain.text)
    assert replace(found, text=plain.text) == plain


@pytest.mark.parametrize(("ssim", "outcome"), [(0.95, HOLDS), (0.80, FAILS)])
def test_an_ssim_at_a_speed(ssim: float, outcome: Outcome) -> None:
    found = evidence.ssim_at(table({"fast": {"work": 0.5, "ssim": ssim}}), "fast", 0.9, 1.8)
    assert (found.outcome is HOLDS) is (outcome is HOLDS)
    assert found.numbers[0].estimate == pytest.approx(ssim, abs=0.002)


def test_halves_by_late_detail() -> None:
    drop = np.repeat([0, 1], N // 2)  # the first half has most detail and drops nothing
    found = evidence.halves_differ(
        table({"skip": {"work": 0.75, "ssim": 0.95, "hf_diff": np.linspace(1, 0, N), "drop": drop, "replace": 0}}),
        "skip",
        2.0,
    )
    assert found.outcome is HOLDS and found.numbers[0].estimate == pytest.approx(0.5)
    assert evidence.strategy(1, 2) == "truncate:last=1+cfg-off:last=3" and evidence.strategy(0, 0) == "none"


def test_the_middle_block_among_others() -> None:
    blocks = {f"b{i}": {"work": 0.4, "ssim": 0.9 + 0.01 * (i == 1)} for i in range(4)}
    assert evidence.best_block(table(blocks), list(blocks), 1).outcome is HOLDS
    assert evidence.best_block(table(blocks), list(blocks), 2).outcome is FAILS


def test_what_was_not_run_says_why() -> None:
    found = evidence.faster_and_kept(table({}), ["fastvar"], 2.7)
    assert found.outcome is Outcome.NOT_MEASURED and found.reason == "cannot run"


def test_too_few_values() -> None:
    found = evidence.keeps_more(
        table({"a": {"work": 0.5, "ssim": 0.9}, "b": {"work": 0.5, "ssim": 0.8}}, 4), "a", "b", "a"
    )
    assert found.outcome is TOO_FEW

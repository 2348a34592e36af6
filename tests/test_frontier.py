"""The frontier of baselines: what lies on it, what stands at a method's work, and who is judged by which prompts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from varlab.analysis.frontier import Frontier, corners, mix_at, rivals
from varlab.errors import VarlabError

WORK, MEAN = st.integers(1, 50).map(lambda i: i / 50), st.integers(0, 20).map(lambda i: i / 20)
points = st.lists(st.tuples(WORK, MEAN), min_size=1, max_size=12)


def best_by_trying(works: np.ndarray, means: np.ndarray, work: float) -> float:
    """The most that one point, or a mix of any two, keeps at no more than this work; NaN where none is as cheap."""
    found = [mean for cost, mean in zip(works, means, strict=True) if cost <= work]
    for i, left in enumerate(works):
        for j, right in enumerate(works):
            if left <= work < right:
                share = (work - left) / (right - left)
                found.append((1 - share) * means[i] + share * means[j])
    return max(found, default=np.nan)


@given(points, st.floats(0, 1.2))
def test_no_point_and_no_mix_lies_above_the_frontier(drawn: list[tuple[float, float]], work: float) -> None:
    works, means = (np.array(column) for column in zip(*drawn, strict=True))
    edge = corners(works, means)
    assert (np.diff(works[edge]) > 0).all() and (np.diff(means[edge]) > 0).all()
    shares = mix_at(works, edge, work)
    best = best_by_trying(works, means, work)
    if not shares:
        assert np.isnan(best)
        return
    assert sum(shares.values()) == pytest.approx(1) and all(share > 0 for share in shares.values())
    assert sum(share * means[i] for i, share in shares.items()) == pytest.approx(best, abs=0.0101)  # a whole from 99 %
    assert sum(share * works[i] for i, share in shares.items()) <= work + 0.0101


@given(points)
def test_every_corner_is_best_at_its_work(drawn: list[tuple[float, float]]) -> None:
    works, means = (np.array(column) for column in zip(*drawn, strict=True))
    edge = corners(works, means)
    assert len(edge) > 0
    for corner in edge:
        assert best_by_trying(works, means, works[corner]) == pytest.approx(means[corner])


def table(**means: float) -> pd.DataFrame:
    """Eight prompts that differ, so that an interval has a width, by the same for all."""
    shift = 0.002 * np.arange(-4, 4) + 0.001
    values = {spec: mean + shift * (spec != "none") for spec, mean in means.items()}
    return pd.DataFrame(values).T


WORKS = pd.Series({"none": 1.0, "truncate": 0.5, "random": 0.4})


def test_the_mix_costs_the_work_of_the_method() -> None:
    baselines = table(none=1.0, truncate=0.8, random=0.5)
    single, mix = rivals(baselines, WORKS, baselines.loc["truncate"].to_numpy() + 0.1, 0.75)
    assert (single.text, single.work) == ("truncate", 0.5)
    assert single.differences.mean() == pytest.approx(0.1)
    assert mix.text == "truncate on 50 % of the images, dense on the rest" and mix.work == pytest.approx(0.75)
    assert mix.differences.mean() == pytest.approx(0.0)  # .9 against .5 * .8 + .5
    (alone,) = rivals(baselines, WORKS, np.full(8, 0.9), 0.5)
    assert alone.text == "truncate" and alone.differences.mean() == pytest.approx(0.1)
    (cheapest,) = rivals(baselines, WORKS, np.full(8, 0.9), 0.4)
    assert cheapest.text == "random"
    assert rivals(baselines, WORKS, np.full(8, 0.9), 0.39) == []


def test_the_two_mixes_of_the_halves_are_told_apart() -> None:
    """Each baseline keeps nearly all of one half of the prompts, so each half is judged by the other's mix."""
    first = np.random.default_rng(0).permutation(8)[:4]  # as the prompts are split
    better = np.isin(np.arange(8), first)
    baselines = pd.DataFrame({"none": 1.0, "a": np.where(better, 0.9, 0.1), "b": np.where(better, 0.1, 0.9)}).T
    single, mix = rivals(baselines, pd.Series({"none": 1.0, "a": 0.5, "b": 0.5}), np.full(8, 0.5), 0.75)
    assert single.text == "b or a" and single.rank.endswith("chosen on the other half of the prompts")
    shares = "on 50 % of the images, dense on the rest"
    assert mix.text == f"b {shares} (one half), a {shares} (the other)"


def test_lower_may_be_better() -> None:
    baselines = table(none=0.0, truncate=0.2, random=0.5)
    (found,) = rivals(baselines, WORKS, np.full(8, 0.15), 0.5, "lpips")
    assert found.text == "truncate" and found.differences.mean() == pytest.approx(0.05)
    with pytest.raises(VarlabError, match="no mean"):
        rivals(baselines, WORKS, np.full(8, 30.0), 0.5, "psnr")


def test_a_baseline_is_not_judged_on_the_prompts_that_chose_it() -> None:
    """Forty baselines that are pure noise around the method's level: the best of them is no better."""
    rng = np.random.default_rng(0)
    found, flattered = [], []
    for _ in range(60):
        noise = pd.DataFrame(0.8 + 0.05 * rng.normal(size=(40, 16)), index=[f"b{i}" for i in range(40)])
        works = pd.Series(0.5, index=noise.index)
        own = 0.8 + 0.05 * rng.normal(size=16)
        (rival,) = rivals(noise, works, own, 0.5)
        found.append(rival.differences.mean())
        flattered.append(own.mean() - noise.mean(axis=1).max())
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error < 0.01 and np.mean(flattered) < -0.02


def frontier() -> Frontier:
    rows = [
        {"baseline": spec, "prompt": i, "flops": flops, "ssim": ssim + 0.01 * i, "psnr": np.inf if ssim == 1 else 20.0}
        for spec, flops, ssim in [("none", 100, 1.0), ("truncate:last=1", 60, 0.9), ("cfg-off:last=1", 80, 0.7)]
        for i in range(2)
    ]
    return Frontier(pd.DataFrame(rows), {})


def test_a_frontier_as_a_table() -> None:
    found = frontier().table()
    assert list(found.index) == ["truncate:last=1", "cfg-off:last=1", "none"]
    assert found.work_ratio.tolist() == [0.6, 0.8, 1.0] and found.on_frontier.tolist() == [True, False, True]
    assert found.ssim.tolist() == pytest.approx([0.905, 0.705, 1.005])
    with pytest.raises(VarlabError, match="ssim"):
        frontier().values("sim")

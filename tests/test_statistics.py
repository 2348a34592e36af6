"""Bootstrap intervals against known distributions, and their edges."""

import numpy as np
import pytest
import scipy.stats

from varlab.errors import VarlabError
from varlab.measures.statistics import (
    Interval,
    bootstrap_interval,
    independent_difference,
    intervals,
    paired_difference,
    paired_shares,
    student_interval,
    wilson_interval,
)


def sample(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_interval_of_a_mean_is_the_normal_one():
    values = 5 + 2 * sample(400)
    estimate, low, high = bootstrap_interval(values, n_resamples=4000)
    assert estimate == pytest.approx(values.mean())
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((estimate - error, estimate + error), abs=0.1 * error)


def test_interval_equals_scipys_percentile_bootstrap():
    values = sample(25) ** 2
    ours = bootstrap_interval(values, np.median, level=0.9, n_resamples=5000)
    theirs = scipy.stats.bootstrap(
        (values,), np.median, confidence_level=0.9, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    assert ours[1:] == pytest.approx(tuple(theirs), abs=0.1)
    assert ours.estimate == np.median(values)


def test_coverage():
    """Of 200 samples of 40 about 95 % (percentile intervals: a little less) hold the true mean."""
    _, low, high = bootstrap_interval(sample(40, 200), n_resamples=500)
    assert 0.88 <= ((low <= 0) & (high >= 0)).mean() <= 0.99


def test_the_mean_of_three_is_as_sure_as_it_says():
    """Of 4,000 samples of 3 between 94 and 96 % hold the true mean: a bootstrap of three would not."""
    values = np.random.default_rng(0).normal(2, 1, (4000, 3))
    bounds = np.array([student_interval(row) for row in values])
    assert 0.94 <= ((bounds[:, 1] <= 2) & (bounds[:, 2] >= 2)).mean() <= 0.96
    assert student_interval([1, 2, 3], 0.9)[1:] == pytest.approx((2 - 1.685854, 2 + 1.685854), abs=1e-5)
    estimate, low, high = student_interval([4.0])
    assert estimate == 4 and np.isnan(low) and np.isnan(high)
    with pytest.raises(VarlabError, match="at least one"):
        student_interval([])


def test_level_orders_the_widths():
    values = sample(30)
    widths = [np.subtract(*bootstrap_interval(values, level=level)[:0:-1]) for level in (0.5, 0.9, 0.99)]
    assert 0 < widths[0] < widths[1] < widths[2]


def test_columns_are_resampled_together_and_in_blocks(monkeypatch):
    values = sample(12, 3, 2)
    whole = bootstrap_interval(values, n_resamples=300)
    assert whole.estimate.shape == whole.low.shape == whole.high.shape == (3, 2)
    alone = bootstrap_interval(values[:, 1, 1], n_resamples=300)
    assert [bound[1, 1] for bound in whole] == pytest.approx(list(alone))
    monkeypatch.setattr(intervals, "BLOCK", 7 * 72)
    for first, second in zip(whole, bootstrap_interval(values, n_resamples=300), strict=True):
        np.testing.assert_array_equal(first, second)


def test_seed():
    values = sample(10)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_constant_has_no_width():
    assert bootstrap_interval(np.full(9, 2.5)) == (2.5, 2.5, 2.5)


def test_one_value_has_no_bounds():
    estimate, low, high = bootstrap_interval([3.0])
    assert estimate == 3
    assert np.isnan(low) and np.isnan(high)


@pytest.mark.filterwarnings("error")
def test_nan_is_left_out_per_column():
    values = sample(20, 4)
    values[:5, 1] = np.nan
    values[1:, 2] = np.nan
    values[:, 3] = np.nan
    estimate, low, high = bootstrap_interval(values)
    np.testing.assert_allclose(estimate[:3], [values[:, 0].mean(), values[5:, 1].mean(), values[0, 2]])
    assert np.isnan(estimate[3])
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, False, True, True]
    assert low[1] < estimate[1] < high[1]


@pytest.mark.filterwarnings("error")
def test_bounds_of_infinite_values_are_no_nan():
    found = bootstrap_interval([42.0, 45.0, 47.0, np.inf], np.nanmedian)
    assert found.estimate == 46 and found.low == 42 and found.high == np.inf
    assert bootstrap_interval([np.inf] * 4, np.nanmedian)[1:] == (np.inf, np.inf)


def test_infinite_values_warn_not_and_have_a_median():
    values = [30.0, 31, 32, 33, 34, np.inf]
    assert bootstrap_interval(values).estimate == np.inf
    estimate, low, _ = bootstrap_interval(values, np.nanmedian)
    assert estimate == 32.5
    assert 30 <= low < estimate


@pytest.mark.parametrize("values", [[], np.empty((0, 3)), 3.0])
def test_no_values_are_refused(values):
    with pytest.raises(VarlabError, match="n of at least 1"):
        bootstrap_interval(values)


@pytest.mark.parametrize("arguments", [{"level": 95}, {"level": 0}, {"n_resamples": 0}])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(VarlabError, match="level"):
        bootstrap_interval([1.0, 2.0], **arguments)


def test_pairing_removes_what_prompts_share():
    prompts = 10 * sample(30)
    a, b = prompts + 0.5 + 0.1 * sample(30, seed=1), prompts + 0.1 * sample(30, seed=2)
    estimate, low, high = paired_difference(a, b)
    assert estimate == pytest.approx((a - b).mean())
    assert 0.4 < low < 0.5 < high < 0.6
    _, low_unpaired, _ = bootstrap_interval(a)
    assert low_unpaired < b.mean() + 0.4  # without pairs the prompts hide the difference
    swapped = paired_difference(b, a)
    assert swapped == pytest.approx((-estimate, -high, -low), abs=0.02)


def test_pairs_with_a_hole_are_left_out():
    a, b = np.array([1.0, np.nan, 3, np.inf, 6]), np.array([0.0, 1, np.nan, np.inf, 3])
    assert paired_difference(a, b).estimate == 2
    with pytest.raises(VarlabError, match="equal shapes"):
        paired_difference(a, b[:3])


def test_a_share_of_none_or_all_keeps_its_width() -> None:
    """Wilson's own figures for 0 of 10 and 5 of 10 (Newcombe 1998: 0 of 20 gives 0 to .1611)."""
    assert wilson_interval([False] * 20) == pytest.approx((0, 0, 0.1611), abs=1e-4)
    assert wilson_interval([True] * 20) == pytest.approx((1, 0.8389, 1), abs=1e-4)
    assert wilson_interval([True, False] * 5) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)


def test_equal_pairs_of_answers_do_not_make_a_sure_zero() -> None:
    same = paired_shares([True] * 20, [True] * 20)
    assert same.estimate == 0 and same.low == pytest.approx(-same.high) and 0.1 < same.high < 0.15
    up = paired_shares([True] * 40, [True, False] * 20)
    assert up.estimate == 0.5 and 0.3 < up.low < 0.5 < up.high < 0.7
    with pytest.raises(VarlabError, match="equal shapes"):
        paired_shares([True], [True, False])


def test_intervals_of_shares_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    hits = sum(low <= 0.03 <= high for _, low, high in (wilson_interval(rng.random(30) < 0.03) for _ in range(500)))
    assert 0.9 < hits / 500 <= 1


def test_the_difference_of_two_shares_is_newcombes() -> None:
    """His example (1998, table II): 56 of 70 less 48 of 80 is .2, .0524 to .3339."""
    one, two = wilson_interval([True] * 56 + [False] * 14), wilson_interval([True] * 48 + [False] * 32)
    assert independent_difference(one, two) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert independent_difference(Interval(1.0, 0.7, 1.4), Interval(0.0, 0.0, 0.0)) == pytest.approx((1, 0.7, 1.4))

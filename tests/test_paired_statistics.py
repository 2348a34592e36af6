"""Clustered intervals, tests, equivalence and power against scipy, closed forms and published tables."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from varlab.errors import VarlabError
from varlab.measures.statistics import (
    OVERALL,
    Design,
    adjusted,
    bootstrap_interval,
    clustered_interval,
    detectable,
    equivalence,
    holm,
    mcnemar,
    means,
    paired_rows,
    prompts_needed,
    sign_flip,
    standard_error,
    variance_shares,
)

GENEVAL = {"single": 80, "two": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}
INFINITY = (0.9938, 0.7702, 0.6219, 0.8457, 0.2675, 0.5975)  # its rates without rewriting, which give .68276


def answers(seed: int = 0, shift: float = 0.0, spread: float = 0.3) -> tuple[np.ndarray, Design]:
    """553 x 4 right and wrong answers at these rates, prompts being of unequal difficulty."""
    rng = np.random.default_rng(seed)
    prompt, category, found = [], [], []
    for (name, n), rate in zip(GENEVAL.items(), INFINITY, strict=True):
        hard = np.random.default_rng((7, n)).normal(0, spread, n)  # the same prompts are hard for all
        for i in range(n):
            prompt += [i] * 4
            category += [name] * 4
            found += list(rng.random(4) < np.clip(rate + hard[i] + shift, 0, 1))
    return np.array(found), Design(prompt, category)


def test_overall_is_the_plain_mean_of_the_category_means() -> None:
    category = [name for name, n in GENEVAL.items() for _ in range(n)]
    rates = np.repeat(INFINITY, list(GENEVAL.values()))
    found = means(rates, Design(range(553), category))
    assert found[:-1] == pytest.approx(INFINITY) and found[-1] == pytest.approx(0.68276, abs=1e-5)


def test_one_category_with_one_image_a_prompt_is_the_plain_bootstrap_and_t() -> None:
    values = np.random.default_rng(0).normal(size=40)
    design = Design(range(40))
    assert design.labels == [OVERALL]
    ours, plain = clustered_interval(values, design, n_resamples=2000), bootstrap_interval(values)
    assert [float(bound[0]) for bound in ours] == pytest.approx(list(plain), abs=1e-12)  # the very same draws
    errors, freedom = standard_error(values, design)
    assert errors[0] == pytest.approx(scipy.stats.sem(values)) and freedom[0] == pytest.approx(39)


def test_images_of_a_prompt_are_no_independent_evidence() -> None:
    """Four equal images of a prompt say as much as one: the interval is that of the prompts."""
    one = np.random.default_rng(1).normal(size=50)
    four, prompts = np.repeat(one, 4), np.repeat(np.arange(50), 4)
    alone, together = clustered_interval(one, Design(range(50))), clustered_interval(four, Design(prompts))
    for a, b in zip(alone, together, strict=True):
        assert a == pytest.approx(b)
    naive = bootstrap_interval(four)
    assert together.high[0] - together.low[0] > 1.8 * (naive.high - naive.low)


def test_unequal_counts_weigh_by_images() -> None:
    """The variance of a ratio of sums, by hand: prompts with 1, 2 and 3 images."""
    values, prompts = [1.0, 0.0, 2.0, 4.0, 4.0, 1.0], [0, 1, 1, 2, 2, 2]
    design, mean = Design(prompts), 2.0
    apart = np.array([1 - mean, 2 - 2 * mean, 9 - 3 * mean])
    assert means(values, design)[0] == mean
    assert standard_error(values, design)[0][0] == pytest.approx(np.sqrt((apart**2).sum() * 3 / 2) / 6)


def test_satterthwaite_is_welchs() -> None:
    """The half sum of two independent means has the freedom of Welch's test."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, 12), rng.normal(0, 3, 30)
    errors, freedom = standard_error(np.concatenate([a, b]), Design(range(42), ["a"] * 12 + ["b"] * 30))
    welch = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert freedom.tolist() == pytest.approx([11, 29, welch.df])
    assert 2 * errors[2] == pytest.approx(abs(a.mean() - b.mean()) / abs(welch.statistic))


def test_intervals_of_clustered_answers_cover_the_truth() -> None:
    rng, hits = np.random.default_rng(3), 0
    design = Design(np.repeat(np.arange(60), 4), np.repeat(["a", "b"], 120))
    for _ in range(200):
        rate = np.clip(rng.normal(0.5, 0.3, 60), 0, 1)
        values = rng.random((60, 4)) < rate[:, None]
        _, low, high = clustered_interval(values.ravel(), design, n_resamples=400)
        hits += low[-1] <= 0.5 <= high[-1]
    assert 0.9 <= hits / 200 <= 0.985


def test_seeds_that_cross_prompts_widen_the_interval_as_they_should() -> None:
    """Two-way errors cover the truth where a seed is good or bad for all prompts, and prompts alone do not."""
    rng, hits, alone = np.random.default_rng(4), 0, 0
    prompt, seed = np.repeat(np.arange(40), 6), np.tile(np.arange(6), 40)
    both, one = Design(prompt, seed=seed), Design(prompt)
    for _ in range(200):
        values = (rng.normal(0, 1, (40, 1)) + rng.normal(0, 1, (1, 6)) + rng.normal(0, 1, (40, 6))).ravel()
        found = [clustered_interval(values, design, n_resamples=200) for design in (both, one)]
        hits, alone = (count + (f.low[0] <= 0 <= f.high[0]) for count, f in zip((hits, alone), found, strict=True))
    assert hits / 200 >= 0.9 and alone / 200 < 0.75


def test_shares_of_prompts_and_seeds_are_those_of_the_model() -> None:
    rng = np.random.default_rng(5)
    values = 3 * rng.normal(size=(200, 1)) + 2 * rng.normal(size=(1, 100)) + rng.normal(size=(200, 100))
    prompt, seed = np.repeat(np.arange(200), 100), np.tile(np.arange(100), 200)
    found = variance_shares(values.ravel(), prompt, seed)
    assert found == pytest.approx({"prompt": 9 / 14, "seed": 4 / 14, "rest": 1 / 14}, abs=0.06)
    with pytest.raises(VarlabError, match="every seed"):
        variance_shares([1, 2, 3], [0, 0, 1], [0, 1, 0])


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(59, 6) == scipy.stats.binomtest(59, 65).pvalue
    assert mcnemar(0, 5) == pytest.approx(2 / 32) and mcnemar(0, 0) == 1 == mcnemar(4, 4)


def test_sign_flips_of_single_answers_are_mcnemar() -> None:
    assert sign_flip([1] * 9 + [-1] * 2 + [0] * 30) == pytest.approx(mcnemar(9, 2))
    many = sign_flip([1.0] * 30 + [-1.0] * 14, n_resamples=50_000)
    assert many == pytest.approx(mcnemar(30, 14), abs=0.004)


def test_sign_flips_are_scipys_permutation_test() -> None:
    for n in (9, 30):  # all signs; drawn ones
        values = np.random.default_rng(n).normal(0.3, 1, n)
        theirs = scipy.stats.permutation_test(
            (values, np.zeros(n)), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=20_000, rng=1
        ).pvalue
        assert sign_flip(values, 20_000) == pytest.approx(theirs, abs=1e-12 if n == 9 else 0.012)
    with pytest.raises(VarlabError, match="finite"):
        sign_flip([1, np.nan])


def test_holm_by_hand_and_with_holes() -> None:
    """.01 .04 .03 .005 of four: 4 x .005, 3 x .01, 2 x .03, and .04 no lower than that before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, np.nan, 0.03]) == pytest.approx([0.02, np.nan, 0.03], nan_ok=True)
    assert holm([0.9, 0.8]).tolist() == [1, 1] and holm([]).size == 0


def test_equivalence_is_the_larger_of_two_one_sided_t_tests() -> None:
    values = np.random.default_rng(6).normal(0.02, 0.3, 50)
    errors, freedom = standard_error(values, Design(range(50)))
    for margin in (0.05, 0.1, 0.2):
        below = scipy.stats.ttest_1samp(values, -margin, alternative="greater").pvalue
        above = scipy.stats.ttest_1samp(values, margin, alternative="less").pvalue
        assert equivalence(values.mean(), errors[0], freedom[0], margin) == pytest.approx(max(below, above))
    with pytest.raises(VarlabError, match="positive"):
        equivalence(0, 1, 9, 0)


def test_prompts_needed_are_those_of_the_tables() -> None:
    """Cohen (1988): a paired t-test at 5 % with 80 % power needs 199, 34 and 15 pairs for d = .2, .5 and .8."""
    for effect, n in ((0.2, 199), (0.5, 34), (0.8, 15)):
        assert prompts_needed(effect, 1 / np.sqrt(20), 19, 20) == n
        assert detectable(1 / np.sqrt(n), n - 1) <= effect < detectable(1 / np.sqrt(n - 1), n - 2)
    assert prompts_needed(1e-9, 1, 9, 10) == np.inf and np.isnan(detectable(0, 9))
    for bad in ({"power": 0.03}, {"power": 1.0}, {"level": 0.0}):
        with pytest.raises(VarlabError, match="power"):
            detectable(1, 9, **bad)


def test_what_is_detectable_is_detected_as_often_as_promised() -> None:
    rng, n = np.random.default_rng(8), 25
    effect, hits = detectable(1 / 5, n - 1), 0
    for _ in range(1000):
        hits += scipy.stats.ttest_1samp(rng.normal(effect, 1, n), 0).pvalue < 0.05
    assert hits / 1000 == pytest.approx(0.8, abs=0.04)


def test_the_table_of_two_full_geneval_runs() -> None:
    a, design = answers(1)
    b, _ = answers(2)
    table = adjusted(paired_rows(a, b, design, margin=0.02))
    assert table.category.tolist() == [*GENEVAL, OVERALL] and table.n.tolist()[-1] == 2212
    assert table.prompts.tolist() == [*GENEVAL.values(), 553]
    overall = table.iloc[-1]
    assert overall.a == pytest.approx(table.a[:-1].mean()) and overall.difference == pytest.approx(
        overall.a - overall.b
    )
    assert overall.higher == int((a & ~b).sum()) and overall.lower == int((b & ~a).sum())
    assert (table.low <= table.difference).all() and (table.difference <= table.high).all()
    assert overall.outcome == "cannot be told" and overall.p > 0.05
    half = (overall.high - overall.low) / 2
    assert half == pytest.approx(1.96 * standard_error(1.0 * a - b, design)[0][-1], rel=0.05)
    assert overall.prompts_needed > 553 and overall.detectable > 0.02  # so small a margin is out of reach


def test_a_real_difference_and_none_are_told_apart() -> None:
    a, design = answers(1, shift=0.1)
    b, _ = answers(2)
    assert adjusted(paired_rows(a, b, design)).iloc[-1].outcome == "a higher"
    assert adjusted(paired_rows(b, a, design)).iloc[-1].outcome == "a lower"
    assert adjusted(paired_rows(a, a, design, margin=0.02)).iloc[-1].outcome == "no difference"


def test_answers_that_never_flip_leave_a_width() -> None:
    a = np.ones(20, dtype=bool)
    row = paired_rows(a, a, Design(range(20)), margin=0.05).iloc[0]
    assert row.difference == 0 and row.low == -row.high and 0.1 < row.high < 0.15  # as ``paired_shares``
    assert row.p == 1 and row.test == "McNemar" and row.p_equivalent > 0.05  # 20 prompts do not show 5 points
    assert row.detectable > 0.1


def test_measures_with_infinite_values_compare_medians_by_signs() -> None:
    a, b = np.array([30.0, np.inf, 32, 33, np.inf]), np.array([29.0, 30, 31, 34, np.inf])
    row = paired_rows(a, b, Design(range(5)), median=True).iloc[0]
    assert (row.n, row.higher, row.lower, row.test) == (4, 3, 1, "sign test")
    assert row.difference == 1 and row.p == mcnemar(3, 1)
    with pytest.raises(VarlabError, match="medians"):
        paired_rows(a, b, Design(range(5)))


def test_many_comparisons_are_adjusted_overall_and_by_category() -> None:
    table = pd.DataFrame(
        {"category": ["x", OVERALL, "x", OVERALL], "p": [0.03, 0.03, 0.5, 0.02], "p_equivalent": np.nan,
         "difference": [1.0, 1, 1, -1]}
    )  # fmt: skip
    found = adjusted(table)
    assert found.p_holm.tolist() == pytest.approx([0.06, 0.04, 0.5, 0.04])
    assert found.outcome.tolist() == ["cannot be told", "a higher", "cannot be told", "a lower"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(VarlabError, match="nothing to compare"):
        Design([])
    with pytest.raises(VarlabError, match="3 images"):
        means([1.0, 2.0], Design(range(3)))
    with pytest.raises(VarlabError, match="3 pairs"):
        paired_rows([1, 2], [1, 2, 3], Design(range(3)))

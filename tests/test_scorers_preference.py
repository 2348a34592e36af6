"""Pure scorers of preference and of distances, official and corrected."""

import math

import numpy as np
import pytest

from varlab.errors import VarlabError
from varlab.evaluation import adm_scores, hps, imagereward


def test_published_styles_give_the_published_average() -> None:
    scores = {
        name: np.full(800, value / 100) for name, value in zip(hps.STYLES, (31.63, 30.26, 30.28, 29.27), strict=True)
    }
    assert hps.average(scores) == pytest.approx(30.36)
    assert hps.average(scores, corrected=True) == pytest.approx(30.36)


def test_a_missing_image_shifts_chunks_and_corrected_it_does_not() -> None:
    scores: list[float | None] = [*[0.2] * 80, *[0.4] * 80]
    whole = hps.style(scores)
    assert (whole.score, whole.sizes) == (pytest.approx(30.0), (80, 80))
    scores[0] = None
    shifted, mended = hps.style(scores), hps.style(scores, corrected=True)
    assert shifted.sizes == (80, 79) and shifted.chunks[0] == pytest.approx((79 * 20 + 40) / 80)
    assert mended.sizes == (79, 80) and mended.chunks == (pytest.approx(20.0), pytest.approx(40.0))
    assert mended.score == pytest.approx((79 * 20 + 80 * 40) / 159)
    assert math.isnan(hps.style([None] * 3).score)


def test_a_short_style_counts_less_in_the_official_average_alone() -> None:
    styles = {"anime": [0.3] * 10, "photo": [0.2]}
    assert hps.average(styles) == pytest.approx((10 * 30 + 20) / 11)
    assert hps.average(styles, corrected=True) == pytest.approx(25.0)


def test_missing_files_repeat_the_one_before_and_corrected_are_left_out() -> None:
    rewards: list[list[float | None]] = [[1.0, None, 3.0], [0.0, 0.0, 0.0, 9.0]]
    upstream = imagereward.upstream(rewards)
    assert (upstream.asked, upstream.short) == (3, 1)
    assert upstream.prompts == (pytest.approx(5 / 3), 0.0)  # 1, 1, 3; the surplus 9 is not asked for
    assert imagereward.corrected(rewards).prompts == (2.0, 2.25)
    assert imagereward.infinity(rewards).score == pytest.approx(13 / 6)


def test_one_image_a_prompt_stops_infinitys_script_alone() -> None:
    assert imagereward.infinity([[1.0], [2.0]]).error == "TypeError: 'float' object is not iterable"
    assert imagereward.corrected([[1.0], [2.0]]).score == imagereward.upstream([[1.0], [2.0]]).score == 1.5
    assert (imagereward.upstream([[None, 1.0], [1.0, 1.0]]).error or "").startswith("UnboundLocalError")


def test_fid_of_two_gaussians() -> None:
    a = adm_scores.Statistics(np.array([1.0, 0.0]), np.diag([4.0, 1.0]))
    b = adm_scores.Statistics(np.array([0.0, 0.0]), np.diag([1.0, 9.0]))
    assert adm_scores.fid(a, b) == pytest.approx(1 + (2 - 1) ** 2 + (1 - 3) ** 2)
    with pytest.raises(VarlabError, match="2 and 1 features"):
        adm_scores.fid(a, adm_scores.Statistics(np.zeros(1), np.ones((1, 1))))
    with pytest.raises(VarlabError, match="NaN"):
        adm_scores.statistics(np.array([[0.0], [np.nan]]))


def test_an_underflow_spoils_the_official_inception_score_alone() -> None:
    logits = np.array([[200.0, 0.0], [0.0, 200.0]], dtype=np.float32)
    assert math.isnan(adm_scores.inception_score(logits).estimate)
    assert adm_scores.inception_score(logits, corrected=True).estimate == pytest.approx(2.0)
    assert adm_scores.inception_score(np.zeros((7, 10), np.float32), split=3).estimate == pytest.approx(1.0)


def test_half_precision_moves_recall_of_large_norms_and_corrected_does_not() -> None:
    points = np.random.default_rng(0).standard_normal((2, 200, 8)).astype(np.float32)
    near = {c: [adm_scores.Manifold(p, corrected=c) for p in points] for c in (False, True)}
    far = {c: [adm_scores.Manifold(p + 50, corrected=c) for p in points] for c in (False, True)}
    exact = adm_scores.precision_recall(*near[True])
    assert adm_scores.precision_recall(*far[True]) == pytest.approx(exact, abs=0.02)
    assert adm_scores.precision_recall(*near[False]) == pytest.approx(exact, abs=0.02)
    assert abs(adm_scores.precision_recall(*far[False])[1] - exact[1]) > 0.05
    with pytest.raises(VarlabError, match="need more points"):
        adm_scores.Manifold(points[0, :3])


def test_distances_that_overflow_half_are_taken_in_float32() -> None:
    a = np.full((2, 4), 400.0, dtype=np.float32)
    assert np.isfinite(adm_scores.distances(a, -a)).all()
    assert adm_scores.distances(a, -a)[0, 0] == 4 * 800.0**2


def test_kid_is_the_unbiased_distance_of_all_pairs() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 5, 3))

    def mean(x: np.ndarray, y: np.ndarray, pairs: list[tuple[int, int]]) -> float:
        return float(np.mean([(x[i] @ y[j] / 3 + 1) ** 3 for i, j in pairs]))

    every = [(i, j) for i in range(5) for j in range(5)]
    others = [(i, j) for i, j in every if i != j]
    found = adm_scores.kid(a, b)
    assert found.estimate == pytest.approx(mean(a, a, others) + mean(b, b, others) - 2 * mean(a, b, every))
    left = np.array([adm_scores.kid(np.delete(a, i, 0), b).estimate for i in range(5)])
    error = math.sqrt(4 / 5 * np.sum((left - left.mean()) ** 2))  # of the jackknife
    assert found.high - found.estimate == pytest.approx(1.959964 * error)
    assert np.isnan(adm_scores.kid(a[:2], b).low) and not np.isnan(adm_scores.kid(a[:3], b).low)
    with pytest.raises(VarlabError, match="two images of each set"):
        adm_scores.kid(a[:1], b)
    many = adm_scores.kid(np.tile(a, (40, 1)), b, most=50)
    assert many.estimate != adm_scores.kid(np.tile(a, (40, 1)), b).estimate


@pytest.mark.parametrize(("offset", "width"), [(0.0, 1.0), (0.5, 1.2)])
def test_the_interval_of_kid_is_as_wide_as_kid_spreads(offset: float, width: float) -> None:
    drawn = np.random.default_rng(0)
    real = drawn.standard_normal((300, 4))
    found = [adm_scores.kid(drawn.standard_normal((200, 4)) * width + offset, real) for _ in range(200)]
    spread = 2 * 1.96 * np.std([one.estimate for one in found])
    assert np.mean([one.high - one.low for one in found]) == pytest.approx(spread, rel=0.25)


def test_the_interval_of_the_inception_score_is_as_wide_as_it_spreads() -> None:
    drawn = np.random.default_rng(0)
    logits = 3 * drawn.standard_normal((200, 400, 6)).astype(np.float32)
    found = [adm_scores.inception_score(each, split=150) for each in logits]
    spread = 2 * 1.96 * np.std([one.estimate for one in found])
    assert np.mean([one.high - one.low for one in found]) == pytest.approx(spread, rel=0.2)

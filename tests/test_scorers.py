"""Pure scorers: published means, and every oddity of the official ones there in `official` and gone when corrected."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from varlab.errors import VarlabError
from varlab.evaluation import dpg, geneval, geneval_matching
from varlab.evaluation.geneval import Options, as_rows

# GenEval

DEFAULTS = Options()


def box(x: float, y: float = 0.0, score: float = 0.95, side: float = 20.0) -> list[float]:
    return [x, y, x + side, y + side, score]


def verdicts(
    include: list[dict[str, Any]], raw: dict[str, list[list[float]]], colours: dict[str, list[str]] | None = None,
    tag: str = "two_object", exclude: list[dict[str, Any]] | None = None, options: Options = DEFAULTS,
) -> tuple[geneval.Verdict, geneval.Verdict]:  # fmt: skip
    """Official and corrected."""
    metadata = {"tag": tag, "include": include, "exclude": exclude or [], "prompt": "x"}
    found = []
    for selected, judge in ((geneval.selected, geneval.judge), (geneval_matching.selected, geneval_matching.judge)):
        rows = {name: as_rows(boxes) for name, boxes in raw.items()}
        kept = {name: selected(own, options.threshold_of(tag), options) for name, own in rows.items()}
        objects = {name: rows[name][own] for name, own in kept.items() if own}
        labels = {name: [(colours or {}).get(name, ["red"] * 99)[i] for i in own] for name, own in kept.items()}
        found.append(judge(metadata, objects, labels, options))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("rates", "correct", "score"),
    [
        ((0.9938, 0.7702, 0.6219, 0.8457, 0.2675, 0.5975), (318, 305, 199, 318, 107, 239), "0.68276"),
        ((1.0000, 0.8586, 0.6844, 0.8431, 0.4175, 0.5525), (320, 340, 219, 317, 167, 221), "0.72601"),
    ],
    ids=["as written", "rewritten"],
)
def test_published_rates_of_infinity_give_the_published_score(
    rates: tuple[float, ...], correct: tuple[int, ...], score: str
) -> None:
    """The counts are those that the rates, of 4 digits, can mean."""
    totals = (320, 396, 320, 376, 400, 400)
    flags = [i < right for right, n in zip(correct, totals, strict=True) for i in range(n)]
    tags = [tag for tag, n in zip(geneval.TAGS, totals, strict=True) for _ in range(n)]
    found = geneval.summarise(flags, tags, [str(i) for i in range(len(flags))])
    assert tuple(round(rate, 4) for rate in found.rates.values()) == rates
    assert f"{found.overall:.5f}" == score
    assert geneval.overall(rates) == pytest.approx(float(score), abs=1e-5)


def test_position_must_hold_for_every_pair_and_corrected_for_one_choice() -> None:
    cat, dogs = {"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}
    raw = {"cat": [box(300)], "dog": [box(600, score=0.99), box(0, score=0.9)]}  # the better dog is on the right
    official, corrected = verdicts([cat, dogs], raw, tag="position")
    assert (official.correct, official.reasons) == (False, ("expected dog left of target, found right of target",))
    assert corrected.correct


def test_position_is_looked_at_only_after_count_and_colour() -> None:
    cat = {"class": "cat", "count": 1, "color": "blue"}
    dog = {"class": "dog", "count": 1, "position": ["left of", 0]}
    official, corrected = verdicts([cat, dog], {"cat": [box(300)], "dog": [box(0)]}, {"cat": ["red"]}, tag="position")
    assert official.reasons == (
        "expected blue cat>=1, found 0 blue; and 1 red", "no target for dog to be left of"
    )  # fmt: skip
    assert corrected.reasons == ("expected blue cat>=1, found 0 of 1",)


def test_colour_judges_the_first_objects_only() -> None:
    clause = {"class": "dog", "count": 1, "color": "red"}
    raw, colours = {"dog": [box(0, score=0.99), box(100, score=0.9)]}, {"dog": ["blue", "red"]}
    official, corrected = verdicts([clause], raw, colours, tag="colors")
    assert not official.correct and corrected.correct
    assert official.asked == (("dog", ("blue",)),)


def test_the_threshold_is_strict_and_in_float32() -> None:
    on = float(np.float32(0.3))
    assert on > 0.3  # in float64 it would be kept
    official, corrected = verdicts([{"class": "dog", "count": 1}], {"dog": [box(0, score=on)]})
    assert official.reasons == ("expected dog>=1, found 0",) and corrected.correct


def test_of_equal_scores_the_later_row_is_first_and_corrected_the_earlier() -> None:
    rows = as_rows([box(0), box(100), box(200)])
    assert geneval.selected(rows, 0.3, Options()) == [2, 1, 0]
    assert geneval_matching.selected(rows, 0.3, Options()) == [0, 1, 2]


def test_one_object_serves_two_clauses_and_corrected_only_one() -> None:
    clauses = [{"class": "dog", "count": 1, "color": colour} for colour in ("red", "blue")]
    raw = {"dog": [box(0, score=0.99), box(100, score=0.9)]}
    official, corrected = verdicts(clauses, raw, {"dog": ["blue", "red"]}, tag="color_attr")
    assert not official.correct and corrected.correct
    twice = [{"class": "dog", "count": 1}] * 2
    official, corrected = verdicts(twice, {"dog": [box(0)]})
    assert official.correct and corrected.reasons == ("no choice of distinct objects fits all clauses",)


def test_errors_of_the_official_code_and_none_when_corrected() -> None:
    dog, later = {"class": "dog", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 1]}
    raw = {"dog": [box(0)], "cat": [box(300)]}
    objects = {name: as_rows(rows) for name, rows in raw.items()}
    with pytest.raises(KeyError):
        geneval.judge({"include": [dog], "exclude": [{"class": "cow", "count": 0}]}, objects, {}, Options())
    with pytest.raises(IndexError):
        geneval.judge({"include": [later, {"class": "cat", "count": 1}]}, objects, {}, Options())
    corrected = geneval_matching.judge(
        {"include": [dog], "exclude": [{"class": "cow", "count": 0}]}, objects, {}, Options()
    )
    assert corrected.reasons == ("expected cow<0, found 0",)
    assert geneval_matching.judge({"include": [later, {"class": "cat", "count": 1}]}, objects, {}, Options()).correct
    with pytest.raises(VarlabError, match="in relation to clause 7, and there are 1"):
        geneval_matching.judge({"include": [later | {"position": ["left of", 7]}]}, objects, {}, Options())


def test_a_summary_is_the_plain_mean_of_tags_and_prompts_are_known_by_their_text() -> None:
    found = geneval.summarise([True, False, False, True, True], ["a", "a", "b", "b", "b"], ["p", "p", "q", "r", "q"])
    assert found.overall == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (found.prompts, found.correct_prompts, found.correct_images) == (3, 1.0, 0.6)
    assert "a                = 50.00% (1 / 2)" in found.lines


def test_unknown_options_are_named() -> None:
    assert Options.read({"max_objects": "4", "threshold": "0.6"}) == Options(0.6, max_objects=4)
    with pytest.raises(VarlabError, match="no option treshold"):
        Options.read({"treshold": "1"})


# DPG

HEADER = ",".join(dpg.COLUMNS)


def table(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"


def row(item: str, number: int, parents: str, about: str = "entity - whole (x)") -> str:
    return f'{item},text,,{number},"{parents}",a,b,{about},{item} {number}?'


def asked(item: str, **answers: str) -> dict[str, list[str]]:
    """One answer, or four with commas between, to each question: q1="yes"."""
    return {f"{item} {name[1:]}?": (text.split(",") * 4)[:4] for name, text in answers.items()}


GUARD = row("guard", 1, "0,0")  # so that the first row lost and the types guessed are not what a test is about


def official(**switched: Any) -> dpg.Rules:
    return replace(dpg.CORRECTED, **switched)


def test_the_first_row_is_lost_with_whoever_looks_it_up() -> None:
    csv = table(row("a", 1, "0"), row("a", 2, "1"), row("b", 1, "0,0"))
    answers = {"a.png": asked("a", q1="yes", q2="yes"), "b.png": asked("b", q1="no")}
    lost = dpg.score(csv, answers, 4, official(drop_first_row=True, row_order=True))
    assert (lost.overall, lost.dropped) == (0.0, {"a.png": "1"})
    assert dpg.score(csv, answers, 4).overall == 50.0


def test_a_lost_parent_drops_an_image_only_if_it_is_looked_up() -> None:
    csv = table(row("a", 1, "0"), row("a", 2, "0"), row("a", 3, "2,1"))
    rules = official(drop_first_row=True, row_order=True)
    assert dpg.score(csv, {"a.png": asked("a", q2="no", q3="yes")}, 1, rules).overall == 0.0
    assert dpg.score(csv, {"a.png": asked("a", q2="yes", q3="yes")}, 1, rules).dropped == {"a.png": "1"}


def test_zeroing_follows_the_rows_and_corrected_the_parents() -> None:
    csv = table(GUARD, row("a", 3, "2"), row("a", 2, "1"), row("a", 1, "0,0"))
    answers = {"a.png": asked("a", q1="no", q2="yes", q3="yes")}
    assert dpg.score(csv, answers, 1, official(row_order=True)).overall == pytest.approx(100 / 3)
    assert dpg.score(csv, answers, 1).overall == 0.0


def test_categories_are_of_the_last_crop_before_zeroing_and_corrected_of_all_after() -> None:
    csv = table(GUARD, row("a", 1, "0,0"), row("a", 2, "1", "attribute - color (x)"))
    answers = {"a.png": asked("a", q1="no,yes,yes,no", q2="yes,no,yes,yes")}
    assert dpg.score(csv, answers, 4, official(last_crop=True)).l1 == {"attribute": 100.0, "entity": 0.0}
    assert dpg.score(csv, answers, 4).l1 == {"attribute": 25.0, "entity": 50.0}


def test_processes_with_other_hashes_mix_categories() -> None:
    csv = table(GUARD, row("a", 1, "0,0"), row("b", 1, "0,0", "global (x)"))
    answers = {"a.png": asked("a", q1="yes"), "b.png": asked("b", q1="no")}
    names = ("entity - whole", "global")
    mixed = dpg.score(csv, answers, 1, official(scramble=(names, names[::-1])))
    assert mixed.l1["entity"] == 50.0 and math.isnan(mixed.l1["global"])
    assert dpg.score(csv, answers, 1).l1 == {"entity": 100.0, "global": 0.0}
    assert mixed.overall == dpg.score(csv, answers, 1).overall


def test_a_results_file_among_the_pictures_is_taken_for_one() -> None:
    csv, files = table(GUARD), ["dpg_bench_results.txt", "guard.png"]
    answers = {"guard.png": asked("guard", q1="yes")}
    assert list(dpg.score(csv, answers, 1, official(any_file=True), files).dropped) == ["dpg_bench_results.txt"]
    assert dpg.score(csv, answers, 1, files=files).dropped == {}


def test_digits_stay_text_when_corrected() -> None:
    csv = table(row("007", 1, "0"), row("007", 2, "1"))
    answers = {"007.png": asked("007", q1="yes", q2="yes")}
    assert dpg.score(csv, answers, 1).overall == 100.0
    assert dpg.score(csv, answers, 1, official(guess_types=True)).crash == (
        "AttributeError: 'int' object has no attribute 'split'"
    )
    several = table(row("007", 1, "0,0"), row("007", 2, "1"))
    lost = dpg.score(several, answers, 1, official(guess_types=True))
    assert math.isnan(lost.overall) and lost.dropped == {"007.png": "'NoneType' object is not subscriptable"}


def test_the_last_block_of_a_prompt_wins_and_corrected_they_are_one() -> None:
    csv = table(GUARD, row("a", 1, "0,0"), row("b", 1, "0,0"), row("a", 2, "0,0"))
    answers = {"a.png": asked("a", q1="no", q2="yes")}
    assert dpg.score(csv, answers, 1, official(split_blocks=True)).overall == 100.0
    assert dpg.score(csv, answers, 1).overall == 50.0


def test_spellings_of_a_category_are_one_when_corrected() -> None:
    csv = table(GUARD, row("a", 1, "0,0", "entity -part (x)"), row("a", 2, "0,0", "entity - part (y)"))
    answers = {"a.png": asked("a", q1="yes", q2="no")}
    assert dpg.score(csv, answers, 1).l2 == {"entity - part": 50.0}
    assert dpg.score(csv, answers, 1, official(literal_names=True)).l2 == {"entity - part": 0.0, "entity -part": 100.0}


@pytest.mark.parametrize("answer", ["Yes", "yes ", "", "yes."])
def test_only_yes_is_yes(answer: str) -> None:
    assert dpg.score(table(GUARD), {"guard.png": asked("guard", q1=answer)}, 1).overall == 0.0


def test_bad_tables_and_answers_are_named() -> None:
    with pytest.raises(VarlabError, match="no column proposition_id"):
        dpg.score("item_id\na\n", {}, 1)
    with pytest.raises(VarlabError, match="row 2 below the header: proposition_id and dependency"):
        dpg.score(table(GUARD, row("a", 1, "x")), {}, 1)
    with pytest.raises(VarlabError, match=r"guard.png has no answers for all 4 crops"):
        dpg.score(table(GUARD), {"guard.png": {"guard 1?": ["yes"]}}, 4)


# HPSv2


# ImageReward


# FID and its relatives

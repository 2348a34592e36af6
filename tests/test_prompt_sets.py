"""Prompt sets are reproducible, balanced, readable by the scorer, and fail with a hint."""

from collections import Counter

import pytest

from varlab.errors import VarlabError
from varlab.scenes import CATEGORIES, parse
from varlab.scenes.prompt_sets import GENEVAL_COUNTS, Prompt, PromptSet, dealt, distinct, prompts


def test_the_full_set_has_genevals_proportions_and_can_be_parsed():
    full = prompts("scenes")
    assert len(full) == 553 and Counter(full.categories) == GENEVAL_COUNTS
    clauses = [parse(text).clauses for text in full]
    by_category = dict(zip(full.categories, clauses, strict=True))
    assert by_category["counting"][0].count > 1
    assert by_category["colors"][0].color and len(by_category["colors"]) == 1
    assert by_category["position"][0].position and by_category["position"][0].color is None
    assert [c.color is not None for c in by_category["color_attr"]] == [True, True]
    assert by_category["single_object"][0].color is None and len(by_category["two_object"]) == 2


def test_small_sets_are_balanced_beginnings_of_larger_ones():
    full, large = prompts("scenes"), prompts("scenes", n=1200)
    assert prompts("scenes", n=33).texts == full.texts[:33] and large.texts[:553] == full.texts
    assert set(Counter(prompts("scenes", n=32).categories).values()) == {5, 6}
    position = [t for t, c in zip(large, large.categories, strict=True) if c == "position"]
    assert len(set(position[:120])) == 120  # no text twice before all were used


@pytest.mark.parametrize("category", CATEGORIES)
def test_one_category(category):
    chosen = prompts(f"scenes-{category}", n=20)
    assert set(chosen.categories) == {category} and len(chosen) == 20


def test_seed_and_digest():
    first, again, other = prompts("scenes", 40), prompts("scenes", 40), prompts("scenes", 40, seed=1)
    assert first == again and first.digest == again.digest
    assert other.digest != first.digest and other.texts != first.texts and other.seed == 1
    assert PromptSet((Prompt("a star", "colors"),)).digest != PromptSet.from_texts(["a star"]).digest
    assert first[3:5].texts == first.texts[3:5] and first[:2].name == "scenes"
    assert first[-1] == first.texts[-1]


def test_distinct_texts_go_on_where_the_set_repeats(tmp_path):
    texts = distinct("scenes", 400)
    assert len(set(texts)) == 400 > len(set(prompts("scenes", n=400)))
    assert distinct("scenes", 32) == list(prompts("scenes", n=32))  # none is twice among the first
    assert len(set(distinct("scenes", 1902))) == 1902
    for name, known in {"scenes": 1902, "scenes-counting": 18}.items():
        with pytest.raises(VarlabError, match=f"{name}' holds {known} different texts, and {known + 1} are asked for"):
            distinct(name, known + 1)
    path = tmp_path / "mine.txt"
    path.write_text("a cat\na dog\na cat\n")
    assert distinct(str(path), 2) == ["a cat", "a dog"]
    with pytest.raises(VarlabError, match=r"2 different texts.* 3 "):
        distinct(str(path), 3)


def test_files(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a photo of a cat\n\n  a red star \n")
    chosen = prompts(str(path))
    assert list(chosen) == ["a photo of a cat", "a red star"] and chosen.categories == ["custom"] * 2
    assert list(prompts(str(path), n=1)) == ["a photo of a cat"]
    with pytest.raises(VarlabError, match=r"holds 2 prompts, not 3\. Give n=2 or fewer"):
        prompts(str(path), n=3)
    path.write_text("\n \n")
    with pytest.raises(VarlabError, match="empty"):
        prompts(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VarlabError, match="UTF-8"):
        prompts(str(path))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prompts("scene"), "Did you mean .*scenes"),
        (lambda: prompts("nowhere.txt"), "no prompt file"),
        (lambda: prompts("scenes", n=0), "n=0"),
        (lambda: prompts("scenes", seed=-1), "negative"),
        (lambda: PromptSet.from_texts([]), "empty"),
        (lambda: PromptSet.from_texts(["a star", "  "]), "Prompt 1 is empty"),
        (lambda: PromptSet.from_texts("a star"), "one string"),
        (lambda: prompts("scenes", n=5)[5:], "empty"),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(VarlabError, match=message):
        call()


def test_what_is_dealt_out_differs_and_is_disjoint():
    seen, unseen = dealt("scenes", 300, 100, 3)
    assert len(seen) == 300 and len(unseen) == 100 and len({*seen, *unseen}) == 400
    assert dealt("scenes", 300, 100, 3) == (seen, unseen) != dealt("scenes", 300, 100, 4)

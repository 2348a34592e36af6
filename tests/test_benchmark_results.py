"""What the model half wrote, scored: canned results of every benchmark, and what is wrong with them, by line."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.benchmark_runs import GENEVAL, geneval, lines, table  # noqa: F401
from varlab.errors import VarlabError
from varlab.evaluation import dpg
from varlab.evaluation.contract import rates
from varlab.evaluation.judging import judge, save_scores

HEADER = {"kind": "header", "benchmark": "geneval", "version": "2023", "detector": "given"}


def rows(path: Path, *items: tuple[Any, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(items)
    return path


def seen(prompt: int, image: int, score: float = 0.9, **more: Any) -> dict[str, Any]:
    name = ("dog", "cat")[prompt]
    line = {
        "filename": f"{prompt:05d}/samples/{image:04d}.png", "metadata": GENEVAL[prompt],
        "detections": {name: [[0, 0, 9, 9, score]]}, "colours": {"cat": ["red"]} if prompt else {},
    }  # fmt: skip
    return line | more


# GenEval


def test_geneval_of_canned_detections(tmp_path: Path, geneval: Path) -> None:
    found = [seen(0, k, 0.9 if k else 0.1) for k in range(4)] + [seen(1, k) for k in range(4)]
    path = lines(tmp_path / "detections.jsonl", HEADER, *found)
    scores = judge("geneval", tmp_path, geneval, path)
    assert table(scores) == {
        "single_object": 0.75, "colors": 1.0, "overall": 0.875, "% correct images": 0.875, "% correct prompts": 1.0,
    }  # fmt: skip
    assert scores.table.set_index("measure").loc["overall", ["prompts", "images", "missing"]].tolist() == [2, 8, 0]
    assert scores.table.set_index("measure").loc["colors", ["low", "high"]].isna().all()  # one prompt
    saved = json.loads(save_scores(tmp_path / "s.json", "geneval", tmp_path, scores, mode="official").read_text())
    assert [entry["correct"] for entry in saved["entries"]] == [False, *[True] * 7]
    assert saved["results"]["detector"] == "given" and saved["entries"][4]["entry"] == "00001"


def test_where_all_are_right_the_interval_has_a_width() -> None:
    entries = pd.DataFrame({"entry": range(40), "category": "a", "correct": True})
    low, high = rates(entries, "correct").loc[0, ["low", "high"]]
    assert 0.9 < low < 0.99 and high == 1.0


def test_missing_images_are_refused_or_counted(tmp_path: Path, geneval: Path) -> None:
    path = lines(tmp_path / "detections.jsonl", HEADER, *[seen(0, k) for k in range(4)], seen(1, 2))
    with pytest.raises(VarlabError, match=r"lacks 3 of 8 images: 00001/0000, 00001/0001, 00001/0003.*--allow-missing"):
        judge("geneval", tmp_path, geneval, path)
    scores = judge("geneval", tmp_path, geneval, path, allow_missing=True)
    assert set(scores.table["missing"]) == {3} and "missing: 3 images" in scores.notes[0]
    path = lines(tmp_path / "detections.jsonl", HEADER, *[seen(0, k) for k in range(4)])
    assert (
        "no image of colors: means over categories leave it out"
        in judge("geneval", tmp_path, geneval, path, allow_missing=True).notes
    )


def test_official_results_are_counted_but_not_mended(tmp_path: Path, geneval: Path) -> None:
    found = [
        {"filename": f"/x/{i:05d}/samples/{k:04d}.png", "tag": GENEVAL[i]["tag"], "prompt": "", "correct": k > 0,
         "reason": "", "metadata": json.dumps(GENEVAL[i]), "details": "{}"}
        for i in range(2) for k in range(4)
    ]  # fmt: skip
    path = lines(tmp_path / "results.jsonl", *found)
    assert table(judge("geneval", tmp_path, geneval, path))["overall"] == 0.75
    with pytest.raises(VarlabError, match="line 1: official results hold verdicts"):
        judge("geneval", tmp_path, geneval, path, mode="corrected")


WRONG_LINES = {
    "cut": ('{"filename": "00000/sam', "line 2 is not valid JSON"),
    "a list": ([1], "line 2 must be a JSON object"),
    "no such name": (seen(0, 0, filename="00000.jpg"), "line 2: filename is '00000.jpg'"),
    "no such prompt": (seen(0, 0, filename="00007/samples/0000.png"), "line 2: there is no prompt 00007"),
    "another prompt": (seen(1, 0, filename="00000/samples/0000.png"), "line 2: its metadata are not those of prompt"),
    "NaN": (seen(0, 0, float("nan")), "line 2: a box of 'dog' is nan, not a finite number"),
    "a short box": (seen(0, 0, detections={"dog": [[1, 2]]}), "line 2: detections of 'dog' are rows"),
    "colours": (seen(1, 0, colours={"cat": []}), "line 2: 0 colours of 1 'cat'"),
    "no colour": (seen(1, 0, colours={}), "line 2: a cat has no colour"),
    "lists": (seen(0, 0, detections=[]), "line 2: detections and colours are objects"),
    "metadata": (seen(0, 0, metadata="{"), "line 2: its text of metadata is not valid JSON"),
}


@pytest.mark.parametrize(("line", "says"), WRONG_LINES.values(), ids=WRONG_LINES)
def test_wrong_detections_are_named_by_line(tmp_path: Path, geneval: Path, line: Any, says: str) -> None:
    path = lines(tmp_path / "detections.jsonl", HEADER, line)
    with pytest.raises(VarlabError, match=f"detections.jsonl, {says}"):
        judge("geneval", tmp_path, geneval, path, allow_missing=True)


def test_results_of_others_are_refused(tmp_path: Path, geneval: Path) -> None:
    twice = lines(tmp_path / "twice.jsonl", HEADER, seen(0, 0), seen(0, 0))
    for path, says in (
        (twice, "line 3: image 0 of 00000 was there before"),
        (lines(tmp_path / "a.jsonl", HEADER | {"benchmark": "dpg"}), "line 1: results of 'dpg', not of 'geneval'"),
        (lines(tmp_path / "b.jsonl", HEADER | {"version": "2"}), "line 1: results of version '2'"),
        (lines(tmp_path / "c.jsonl", seen(0, 0)), "line 1: no header"),
        (lines(tmp_path / "d.jsonl"), "is empty"),
    ):
        with pytest.raises(VarlabError, match=says):
            judge("geneval", tmp_path, geneval, path, allow_missing=True)
    with pytest.raises(VarlabError, match=r"prompts.jsonl, line 2: a clause has a class and a count"):
        wrong = lines(tmp_path / "prompts.jsonl", GENEVAL[0], GENEVAL[1] | {"include": [{"class": "cat"}]})
        judge("geneval", tmp_path, wrong, twice)
    clause = {"class": "cat", "count": 1, "position": ["beside", 0]}
    with pytest.raises(VarlabError, match=r"prompts.jsonl, line 1: a position is one of above, below"):
        judge("geneval", tmp_path, lines(tmp_path / "prompts.jsonl", GENEVAL[1] | {"include": [clause]}), twice)


# DPG


QUESTIONS = [
    dpg.COLUMNS,
    ("0", "a text", "", 1, "0", "", "", "entity - whole (x)", "x?"),
    ("12", "other", "", 1, "0", "", "", "entity - whole (y)", "y?"),
    ("12", "other", "", 2, "1", "", "", "attribute - color (y)", "red?"),
]
FACTS = {"benchmark": "dpg", "version": "2024", "crops": 2, "weights": "canned"}
ANSWERS = [("file", "crop", "question", "answer"), ("0.png", 0, "x?", "yes"), ("0.png", 1, "x?", "yes"),
           *[("12.png", crop, question, answer) for crop, answers in enumerate((("no", "yes"), ("yes", "yes")))
             for question, answer in zip(("y?", "red?"), answers, strict=True)]]  # fmt: skip


@pytest.fixture
def answered(tmp_path: Path) -> tuple[Path, Path]:
    lines(tmp_path / "answers.json", FACTS)
    return rows(tmp_path / "dpg_bench.csv", *QUESTIONS), rows(tmp_path / "answers.csv", *ANSWERS)


def test_dpg_of_canned_answers(tmp_path: Path, answered: tuple[Path, Path]) -> None:
    scores = judge("dpg", tmp_path, *answered, mode="corrected")
    assert table(scores) == pytest.approx(
        {"overall": 75.0, "entity": 75.0, "attribute": 50.0, "entity - whole": 75.0, "attribute - color": 50.0}
    )
    with pytest.raises(VarlabError, match="ends with AttributeError: 'int' object has no attribute 'split'"):
        judge("dpg", tmp_path, *answered)  # digits only: the official code reads numbers


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: [*a, a[-1]], "answers.csv, line 8: crop 1 of 12.png, 'red\\?', was there before"),
        (lambda a: [*a[:-1], ("12.png", 1, "red?")], "line 7: 3 fields, the header has 4"),
        (lambda a: a[:-1], "answers.csv: 12.png has no answers for all 2 crops to 'red\\?'"),
        (lambda a: a[:1], "holds no answers"),
        (lambda a: [a[0][:3]], "line 1: no column answer"),
        (lambda a: [a[0], ("0.png", "x", "x?", "yes")], "line 2: crop is 'x', not a whole number"),
        (lambda a: a[:3], "lacks 1 of 2 pictures: 12"),
        (lambda a: a + [("7.png", k, "x?", "yes") for k in (0, 1)], "7.png belongs to no prompt"),
        (lambda a: a + [("0.v2.png", k, "x?", "yes") for k in (0, 1)], "two pictures of '0'"),
    ],
)
def test_wrong_answers_are_named(tmp_path: Path, answered: tuple[Path, Path], change: Any, says: str) -> None:
    rows(answered[1], *change(ANSWERS))
    with pytest.raises(VarlabError, match=says):
        judge("dpg", tmp_path, *answered, mode="corrected")


def test_answers_of_another_version_are_refused(tmp_path: Path, answered: tuple[Path, Path]) -> None:
    lines(tmp_path / "answers.json", FACTS | {"version": "2"})
    with pytest.raises(VarlabError, match=r"answers.json: results of version '2'; 2024 is scored here"):
        judge("dpg", tmp_path, *answered)


# HPSv2.1 and ImageReward


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    for style, count in (("anime", 3), ("photo", 2)):
        lines(folder / f"{style}.json", [f"{style} {i}" for i in range(count)])
    return folder


COSINES = [("style", "index", "score"), *(("anime", i, 0.3) for i in range(3)), *(("photo", i, 0.2) for i in range(2))]


def test_hps_of_canned_cosines(tmp_path: Path, styles: Path) -> None:
    path = rows(tmp_path / "scores.csv", *COSINES)
    scores = judge("hps", tmp_path, styles, path)
    assert table(scores) == pytest.approx({"anime": 30.0, "photo": 20.0, "average": 26.0})
    assert table(judge("hps", tmp_path, styles, path, mode="corrected"))["average"] == pytest.approx(25.0)
    assert "not recorded" in scores.notes[0]
    with pytest.raises(VarlabError, match="lacks 1 of 5 images: photo/00001"):
        judge("hps", tmp_path, styles, rows(path, *COSINES[:-1]))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("anime", 0, "nan"), "line 2: score is 'nan', not a finite number"),
        (("anime", 0, ""), "line 2: score is '', not a finite number"),
        (("anime", 9, 0.3), "line 2: there is no prompt 'anime/00009'"),
        (("manga", 0, 0.3), "line 2: there is no prompt 'manga/00000'"),
        (("anime", "a", 0.3), "line 2: index is 'a', not a whole number"),
    ],
)
def test_wrong_scores_are_named_by_line(tmp_path: Path, styles: Path, row: tuple[Any, ...], says: str) -> None:
    path = rows(tmp_path / "scores.csv", COSINES[0], row)
    with pytest.raises(VarlabError, match=f"scores.csv, {says}"):
        judge("hps", tmp_path, styles, path)


def test_hps_of_version_2_0_is_refused(tmp_path: Path, styles: Path) -> None:
    lines(tmp_path / "scores.json", {"benchmark": "hps", "version": "v2.0"})
    with pytest.raises(VarlabError, match=r"results of version 'v2.0'; v2.1 is scored here"):
        judge("hps", tmp_path, styles, rows(tmp_path / "scores.csv", *COSINES))


def test_imagereward_of_canned_rewards(tmp_path: Path) -> None:
    prompts = lines(tmp_path / "prompts.json", [{"id": "a", "prompt": "x"}, {"id": "007", "prompt": "y"}])
    full = [(name, k, float(k)) for name in ("a", "007") for k in range(10)]
    path = rows(tmp_path / "scores.csv", ("id", "index", "score"), *full)
    assert table(judge("imagereward", tmp_path, prompts, path)) == {"mean of prompts": 4.5, "mean of images": 4.5}
    rows(path, ("id", "index", "score"), *full[:-2])
    with pytest.raises(VarlabError, match="lacks 2 of 20 images: 007, image 8, 007, image 9"):
        judge("imagereward", tmp_path, prompts, path)
    found = table(judge("imagereward", tmp_path, prompts, path, allow_missing=True))
    assert found == pytest.approx(
        {"mean of prompts": (sum(range(9)) / 9 + (sum(range(8)) + 7) / 9) / 2, "mean of images": 73 / 18}
    )
    mended = table(judge("imagereward", tmp_path, prompts, path, mode="corrected", allow_missing=True))
    assert mended == {"mean of prompts": (4.5 + 3.5) / 2}
    with pytest.raises(VarlabError, match="entry 1: id a was there before"):
        judge("imagereward", tmp_path, lines(prompts, [{"id": "a", "prompt": "x"}] * 2), path)


# Distances


# The contract

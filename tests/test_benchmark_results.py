"""What the model half wrote, scored: canned results of every benchmark, and what is wrong with them, by line."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from varlab.errors import VarlabError
from varlab.evaluation import adm_scores, dpg
from varlab.evaluation.benchmarks import BENCHMARKS
from varlab.evaluation.benchmarks.distances import read_features, read_statistics
from varlab.evaluation.contract import Benchmark, rates
from varlab.evaluation.judging import judge, save_scores

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a photo of a red cat"},
]
HEADER = {"kind": "header", "benchmark": "geneval", "version": "2023", "detector": "given"}


def lines(path: Path, *items: Any) -> Path:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


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


@pytest.fixture
def geneval(tmp_path: Path) -> Path:
    return lines(tmp_path / "prompts.jsonl", *GENEVAL)


def table(scores: Any) -> dict[str, float]:
    return dict(zip(scores.table["measure"], scores.table["value"], strict=True))


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
    assert set(scores.table["missing"]) == {3} and "3 images are missing" in scores.notes[0]


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
    "cut": ('{"filename": "00000/sam', "line 2: no JSON"),
    "a list": ([1], "line 2: an object is expected"),
    "no such name": (seen(0, 0, filename="00000.jpg"), "line 2: filename is '00000.jpg'"),
    "no such prompt": (seen(0, 0, filename="00007/samples/0000.png"), "line 2: there is no prompt 00007"),
    "another prompt": (seen(1, 0, filename="00000/samples/0000.png"), "line 2: its metadata are not those of prompt"),
    "NaN": (seen(0, 0, float("nan")), "line 2: a box of 'dog' is nan, not a finite number"),
    "a short box": (seen(0, 0, detections={"dog": [[1, 2]]}), "line 2: detections of 'dog' are rows"),
    "colours": (seen(1, 0, colours={"cat": []}), "line 2: 0 colours of 1 'cat'"),
    "no colour": (seen(1, 0, colours={}), "line 2: a cat has no colour"),
    "lists": (seen(0, 0, detections=[]), "line 2: detections and colours are objects"),
    "metadata": (seen(0, 0, metadata="{"), "line 2: metadata are no JSON"),
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


def features(path: Path, seed: int, n: int = 40, names: list[str] | None = None, **more: Any) -> Path:
    drawn = np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)
    arrays = {"features": drawn, "logits": drawn[:, :3], "names": np.array(names or [f"{i:03d}.png" for i in range(n)])}
    np.savez(path, **(arrays | more))
    return path


def test_fid_of_canned_features(tmp_path: Path) -> None:
    own, real = features(tmp_path / "own.npz", 1), features(tmp_path / "real.npz", 2)
    scores = judge("fid", tmp_path, results=own, references=[real])
    arrays = [np.load(path)["features"] for path in (own, real)]
    found = table(scores)
    assert found["fid"] == pytest.approx(adm_scores.fid(*(adm_scores.statistics(a) for a in arrays)))
    assert {"fid", "inception_score", "precision", "recall", "kid"} == found.keys()
    assert scores.table.loc[0, "low"] < found["fid"] < scores.table.loc[0, "high"]


def test_the_interval_of_fid_is_that_of_a_bootstrap() -> None:
    drawn = np.random.default_rng(0).standard_normal((2, 1500, 3)).astype(np.float32)
    real, own = adm_scores.statistics(drawn[0] + 0.5), drawn[1]
    found = adm_scores.fid_interval(own, real)
    pick = np.random.default_rng(1)
    again = [adm_scores.fid(adm_scores.statistics(own[pick.integers(1500, size=1500)]), real) for _ in range(400)]
    assert found.high - found.low == pytest.approx(np.subtract(*np.quantile(again, [0.975, 0.025])), rel=0.15)


def test_statistics_are_the_stored_ones_where_there_are_any(tmp_path: Path) -> None:
    mu, sigma = np.full(4, 3.0), np.eye(4)
    stored = features(tmp_path / "ref.npz", 2, mu=mu, sigma=sigma)
    assert read_statistics(dict(np.load(stored)), stored).mu is not None
    assert np.array_equal(read_statistics({"mu": mu, "sigma": sigma, "features": np.zeros((3, 4))}, stored).mu, mu)
    computed = read_statistics({"features": np.load(stored)["features"]}, stored)
    assert np.array_equal(computed.mu, np.load(stored)["features"].mean(0))
    np.savez(tmp_path / "adm.npz", mu=mu, sigma=sigma, arr_0=np.zeros((2, 8, 8, 3), np.uint8))
    scores = judge("fid", tmp_path, results=features(tmp_path / "own.npz", 1), references=[tmp_path / "adm.npz"])
    assert set(table(scores)) == {"fid", "inception_score"}
    assert any("no precision, recall and KID" in note for note in scores.notes)
    with pytest.raises(VarlabError, match="are no mean and covariance"):
        read_statistics({"mu": mu, "sigma": np.eye(3)}, stored)


def test_mjhq_by_category(tmp_path: Path) -> None:
    prompts = lines(tmp_path / "meta.json", {f"{c}{i}": {"category": c, "prompt": c} for c in "ab" for i in range(20)})
    names = [f"{c}/{c}{i}.png" for c in "ab" for i in range(20)]
    own = features(tmp_path / "own.npz", 1, names=names)
    real = features(tmp_path / "real.npz", 2, names=[name.replace("png", "jpg") for name in names])
    scores = judge("mjhq", tmp_path, prompts, own, [real])
    assert list(table(scores)) == ["fid", "a", "b"] and scores.table["images"].tolist() == [40, 20, 20]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"features": np.full((40, 4), np.nan)}, "row 0: features that are no numbers"),
        ({"names": ["a.png"] * 40}, "a.png is there twice"),
        ({"names": ["a.png"]}, "40 features, 40 logits and 1 names"),
        ({"facts": np.array(json.dumps({"benchmark": "hps"}))}, "results of 'hps', not of 'fid'"),
    ],
)
def test_wrong_features_are_named(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(VarlabError, match=says):
        read_features(features(tmp_path / "own.npz", 1, **more))


def test_files_that_are_not_there_or_cut_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(features(tmp_path / "own.npz", 1).read_bytes()[:200])
    for path, says in ((tmp_path / "cut.npz", "was cut or damaged"), (tmp_path / "none.npz", "There is no file")):
        with pytest.raises(VarlabError, match=says):
            read_features(path)
    with pytest.raises(VarlabError, match=r"--reference FILE.npz"):
        judge("fid", tmp_path, results=tmp_path / "own.npz")


# The contract


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_every_benchmark_keeps_the_contract(benchmark: Benchmark, tmp_path: Path) -> None:
    assert benchmark.title and benchmark.ending in benchmark.endings and benchmark.per_prompt >= 1
    assert bool(benchmark.adapter) == bool(benchmark.results) == bool(benchmark.packages)
    if benchmark.adapter:
        script = Path(adm_scores.__file__).parent / "scripts" / f"{benchmark.adapter}.py"
        assert "import varlab" not in script.read_text() and "from varlab" not in script.read_text()
    if benchmark.needs and benchmark.name not in ("fid", "scenes"):
        with pytest.raises(VarlabError, match=f"{benchmark.title} needs"):
            benchmark.items(None)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VarlabError, match=r"Unknown benchmark 'genevol'. Did you mean geneval"):
        judge("genevol", tmp_path)
    with pytest.raises(VarlabError, match="Unknown mode 'oficial'"):
        judge("geneval", tmp_path, mode="oficial")
    with pytest.raises(VarlabError, match=r"no folder of varlab generate: name the detections.jsonl"):
        judge("geneval", tmp_path)
    with pytest.raises(VarlabError, match="has one mode"):
        judge("scenes", tmp_path, mode="corrected")
    with pytest.raises(VarlabError, match="leave --results out"):
        judge("scenes", tmp_path, results=tmp_path / "x")

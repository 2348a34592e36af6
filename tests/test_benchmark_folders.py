"""Folders of benchmarks: drawn in the official layout, resumed, and searched for faults."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.benchmark_folders import geneval, picture  # noqa: F401
from tests.cli_calls import Call, places, varlab  # noqa: F401
from tests.conftest import tiny_var
from varlab.comparison.layouts import read_layout
from varlab.engine.sharing import shared_runs
from varlab.errors import VarlabError
from varlab.evaluation import generation
from varlab.evaluation.benchmarks import BENCHMARKS
from varlab.evaluation.contract import Folder, Item
from varlab.evaluation.generation import Drawing, check, folder_of, generate
from varlab.evaluation.judging import find_faults, judge
from varlab.evaluation.validation import faults
from varlab.outputs import read_facts


def tell(lines: list[str], folder: Path) -> list[str]:
    return [line.replace(f"{folder}/", "") for line in lines]


# Drawing


def drawing(**more: Any) -> Drawing:
    model = tiny_var()
    items = [Item(f"{i:04d}", str(i), f"{i:04d}") for i in range(3)]
    given: dict[str, Any] = {
        "benchmark": BENCHMARKS["fid"], "model": model, "items": items, "spec": "none", "seed": 3, "per_prompt": 2,
        "ending": ".png", "rewritten": {}, "settings": model.settings,
    }  # fmt: skip
    return Drawing(**(given | more))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_drawing_goes_on_and_batches_do_not_matter(tmp_path: Path) -> None:
    assert generate({tmp_path / "a": drawing(batch=1)}) == {tmp_path / "a": 6}
    assert generate({tmp_path / "b": drawing(batch=4)}) == {tmp_path / "b": 6}
    whole = content(tmp_path / "a")
    assert sorted(whole) == [f"images/{i:04d}/{k:03d}.png" for i in range(3) for k in range(2)]
    pixels = [np.asarray(Image.open(tmp_path / name / path)) for name in "ab" for path in sorted(whole)]
    assert np.abs(np.subtract(pixels[:6], pixels[6:], dtype=int)).max() <= 1  # but for rounding
    (tmp_path / "a" / "images" / "0000" / "001.png").unlink()
    cut = tmp_path / "a" / "images" / "0002" / "000.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    assert generate({tmp_path / "a": drawing()}) == {tmp_path / "a": 2}
    again = [np.asarray(Image.open(tmp_path / "a" / path)) for path in sorted(whole)]
    assert np.abs(np.subtract(again, pixels[:6], dtype=int)).max() <= 1
    assert generate({tmp_path / "a": drawing()}) == {tmp_path / "a": 0}
    facts = read_facts(tmp_path / "a" / "images" / "0001" / "000.png")
    assert facts["prompt"] == "1" and facts["spec"] == "none" and facts["seed"] == 3
    assert {"model", "weights", "precision", "settings", "versions", "date", "benchmark"} <= facts.keys()


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"frechet"}))
def test_what_is_drawn_can_be_compared(name: str, ending: str, tmp_path: Path) -> None:
    """Every benchmark's layout is known to ``compare-images``: each image of each prompt, and how it was made."""
    ids = {"hps": "anime/0000{}", "imagereward": "000904-003{}", "dpg": "COCOval2014_00000000004{}"}.get(name, "0000{}")
    items = [Item(ids.format(i), str(i), "people") for i in range(2)]
    one = drawing(
        benchmark=BENCHMARKS[name], items=items, ending=ending, per_prompt=1 if name in ("hps", "mjhq") else 2
    )
    generate({tmp_path / "none": one})
    layout = read_layout(tmp_path / "none")
    found = [(picture.name.removeprefix("people/"), picture.k) for picture in layout.pictures.values()]
    assert found == [(item.id, k) for item in items for k in range(len(one.paths(item)))]
    assert layout.facts["spec"] == "none" and layout.facts["ending"] == ending and "items" not in layout.facts
    assert read_facts(tmp_path / "none")["seed"] == 3
    assert [picture.prompt for picture in layout.pictures.values()] == [
        item.text for item in items for _ in one.paths(item)
    ]


def test_specs_that_share_are_drawn_together_as_they_are_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = ("none", "truncate:last=1", "cfg-off:last=1", "sparsevar:keep=0.5,last=1,alpha=none", "freqexit:exits=2",
             "fastvar-all-scales:ratios=0.5,first=1")  # fmt: skip
    alone, together = (
        {tmp_path / name / str(i): drawing(spec=spec, batch=6) for i, spec in enumerate(specs)} for name in "ab"
    )
    for folder, one in alone.items():
        generate({folder: one})
    shared: list[int] = []

    def counted(run: Any, text: Any, samples: Any, methods: Any) -> Any:
        shared.append(len(methods))
        return shared_runs(run, text, samples, methods)

    monkeypatch.setattr(generation, "shared_runs", counted)
    assert generate(together) == dict.fromkeys(together, 6)
    assert shared == [5]
    for own, other in zip(alone, together, strict=True):
        for path in (f"images/{i:04d}/{k:03d}.png" for i in range(3) for k in range(2)):
            assert np.array_equal(np.asarray(Image.open(own / path)), np.asarray(Image.open(other / path))), (own, path)


def test_another_drawing_is_refused_by_field(tmp_path: Path) -> None:
    generate({tmp_path / "a": drawing()})
    for change, name in (({"seed": 4}, "seed"), ({"spec": "truncate:last=1"}, "spec"), ({"ending": ".jpg"}, "ending")):
        with pytest.raises(VarlabError, match=f"holds other images .different: {name}"):
            check(drawing(**change), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("")
    with pytest.raises(VarlabError, match=r"is not empty and holds no benchmark.json"):
        generate({tmp_path / "b": drawing()})
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine.txt"]


def test_jpg_says_its_quality_and_rewritten_prompts_keep_their_name(tmp_path: Path) -> None:
    generate({tmp_path / "a": drawing(ending=".jpg", rewritten={"1": "0"})})
    record = json.loads((tmp_path / "a" / "benchmark.json").read_text())
    assert (record["quality"], record["rewritten"], record["items"][1]["text"]) == (95, {"0001": "0"}, "1")
    assert Image.open(tmp_path / "a" / "images" / "0000" / "000.jpg").format == "JPEG"
    assert find_faults("fid", tmp_path / "a", None) == ([], 6)


def test_a_grid_of_samples_is_read_row_by_row() -> None:
    samples = [Image.new("RGB", (4, 4), (40 * k, 0, 0)) for k in range(4)]
    (grid,) = BENCHMARKS["dpg"].stored(samples)
    assert grid.size == (8, 8)
    assert [grid.getpixel(place)[0] for place in ((0, 0), (7, 0), (0, 7), (7, 7))] == [0, 40, 80, 120]  # type: ignore[index]


def test_names_of_folders() -> None:
    assert folder_of(Path("out"), "sparsevar:tau=0.6,alpha=4") == Path("out/sparsevar-tau=0.6-alpha=4")


# Faults


def test_a_good_folder_has_no_faults(geneval: tuple[Path, Path]) -> None:
    assert find_faults("geneval", *geneval) == ([], 8)


def test_every_fault_of_a_folder_is_found(geneval: tuple[Path, Path]) -> None:
    folder, file = geneval
    samples = folder / "00000" / "samples"
    (samples / "0000.png").unlink()
    picture(samples / "00000.jpg")
    (samples / "0001.png").write_bytes((samples / "0001.png").read_bytes()[:40])
    picture(samples / "0002.png", (8, 9))
    (folder / "00001" / "samples" / "0003.png").rename(folder / "00001" / "samples" / "0003.jpg")
    picture(folder / "00002" / "samples" / "0000.png")
    (folder / "0553").mkdir()
    rewritten = json.loads(file.read_text().splitlines()[1]) | {"prompt": "a photo of a fluffy cat"}
    (folder / "00001" / "metadata.jsonl").write_text(json.dumps(rewritten))
    lines = tell(find_faults("geneval", folder, file)[0], folder)
    for says in (
        "00000/samples/0000.png: missing",
        "00000/samples/00000.jpg: no file of this layout",
        "00000/samples/00000.jpg: the official evaluator reads no file of that name",
        "00000/samples/0001.png: damaged",
        "00000/samples/0002.png: 8 x 9, the others 8 x 8",
        "00001/samples/0003.png: missing; 0003.jpg is there",
        "00002/samples/0000.png: no file of this layout",
        "0553: no prompt of that number",
        "00001/metadata.jsonl: a rewritten prompt stands in place of the original 'a photo of a cat'",
    ):
        assert any(line.startswith(says) for line in lines), (says, lines)
    (folder / "00001" / "metadata.jsonl").write_text(file.read_text().splitlines()[0])
    assert any(
        "00001/metadata.jsonl: not line 2 of the prompts" in line for line in find_faults("geneval", folder, file)[0]
    )
    (folder / "00001" / "metadata.jsonl").write_text("{")
    assert any("00001/metadata.jsonl: no JSON" in line for line in find_faults("geneval", folder, file)[0])


def test_a_folder_without_its_pictures_lacks_them_all(tmp_path: Path) -> None:
    generate({tmp_path / "a": drawing(benchmark=BENCHMARKS["geneval"], items=[Item("00000", "0", "people")])})
    shutil.rmtree(tmp_path / "a" / "images")
    lines = find_faults("geneval", tmp_path / "a", None)[0]
    assert len(lines) == 3 and all(": missing" in line for line in lines)


def test_faults_of_dpg(tmp_path: Path) -> None:
    items, images = [Item("0", "x"), Item("coco1", "y")], tmp_path / "images"
    for name, size in (
        ("0.png", (8, 8)),
        ("0.v2.png", (8, 8)),
        ("partipromptscoco1.png", (8, 8)),
        ("coco1.png", (9, 8)),
    ):
        picture(images / name, size)
    (images / "dpg_bench_results.txt").write_text("")
    lines = tell(faults(BENCHMARKS["dpg"], Folder.at(tmp_path), items), images)
    for says in (
        "0.v2.png: a second picture of '0' beside 0.png",
        "partipromptscoco1.png: no prompt 'partipromptscoco1'",
        "coco1.png: 9 x 8 is no square grid of 2 x 2 samples",
        "dpg_bench_results.txt: no file of this layout",
    ):
        assert any(line.startswith(says) for line in lines), (says, lines)


def test_faults_of_hps_and_imagereward(tmp_path: Path) -> None:
    picture(tmp_path / "hps" / "anime" / "00000.jpg")
    picture(tmp_path / "hps" / "extra" / "00000.jpg")
    lines = tell(
        faults(BENCHMARKS["hps"], Folder.at(tmp_path / "hps"), [Item("anime/00000", "x", "anime")]), tmp_path / "hps"
    )
    assert any(line.startswith("extra: the official reader takes every folder for a style") for line in lines)
    folder = tmp_path / "reward"
    for k in range(10):
        picture(folder / f"a_{k}.png")
    picture(folder / "a" / "a_3.jpg")
    (folder / "metadata.jsonl").write_text(json.dumps([{"id": "a", "prompt": "rewritten"}]))
    lines = tell(faults(BENCHMARKS["imagereward"], Folder.at(folder), [Item("a", "x")]), folder)
    assert any("prompt a has an image twice" in line for line in lines)
    assert any("metadata.jsonl: prompt a is a rewritten one in place of 'x'" in line for line in lines)


def test_scenes_of_a_folder_are_judged_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for item in BENCHMARKS["scenes"].items(None)[:2]:
        for k in range(4):
            picture(folder / item.id / f"{k:04d}.png", (32, 32))
    with pytest.raises(VarlabError, match=r"lacks 2204 of 2212 images"):
        judge("scenes", tmp_path)
    scores = judge("scenes", tmp_path, allow_missing=True)
    assert set(scores.table["missing"]) == {2204} and len(scores.entries) == 8
    (folder / "00000" / "0000.png").write_bytes(b"")
    with pytest.raises(VarlabError, match=r"00000/0000.png cannot be read as an image"):
        judge("scenes", tmp_path, allow_missing=True)


def test_a_folder_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    generate({tmp_path / "a": drawing()})
    with pytest.raises(VarlabError, match="was drawn for fid, not for geneval"):
        judge("geneval", tmp_path / "a")
    (tmp_path / "a" / "benchmark.json").write_text('{"items": [1]}')
    with pytest.raises(VarlabError, match=r"benchmark.json cannot be read"):
        find_faults("fid", tmp_path / "a", None)
    with pytest.raises(VarlabError, match="There is no folder"):
        find_faults("geneval", tmp_path / "none", None)


# The command line

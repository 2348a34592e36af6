"""Folders of pictures that do not belong together, or cannot be read, are refused by name before any work."""

import json
from pathlib import Path

import pytest
from PIL import Image

import varlab as vl
from tests.cli_calls import Call, places, varlab  # noqa: F401
from tests.image_folders import SIDE, by_varlab, cut, dpg, draw, geneval, pixels
from varlab.comparison import images
from varlab.comparison.layouts import read_layout
from varlab.errors import VarlabError


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise AssertionError("a picture was measured")

    monkeypatch.setattr(images, "fidelity", work)


def spoil(folder: Path, case: str) -> None:
    """A folder of GenEval with one thing wrong."""
    sample = folder / "00001/samples/0001.png"
    mode = {"transparent": "RGBA", "deep": "I;16", "cmyk": "CMYK"}.get(case)
    if mode:
        kind = "JPEG" if mode == "CMYK" else "PNG"
        Image.new(mode, (SIDE, SIDE)).save(sample, kind)
    elif case == "small":
        draw(sample, 1, side=20)
    elif case == "missing":
        sample.unlink()
    elif case == "cut":
        cut(sample)
    elif case == "cut jpg":
        Image.fromarray(pixels(1)).save(sample.with_suffix(".jpg"))
        sample.unlink()
        cut(sample.with_suffix(".jpg"))
    elif case == "no picture":
        sample.write_text("<html>")
    elif case == "twice":
        draw(sample.with_name("00001.jpg"), 1)
    elif case == "foreign":
        draw(sample.with_name("copy of 0001.png"), 1)
    elif case == "folder":
        draw(folder / "old/samples/0000.png", 1)
    elif case == "beside":
        draw(folder / "sheet.png", 1)
    elif case == "no metadata":
        (folder / "00001/metadata.jsonl").unlink()
    elif case == "cut metadata":
        cut(folder / "00001/metadata.jsonl")
    elif case == "prompt":
        (folder / "00001/metadata.jsonl").write_text('{"prompt": "rewritten"}')
    elif case == "empty":
        for path in (folder / "00001/samples").iterdir():
            path.unlink()


CASES = {
    "small": r"0001.png is 20 x 20, .*dense.* is 24 x 24", "missing": "bad lacks 1, such as image 1 of '1'",
    "cut": "0001.png cannot be read", "cut jpg": "0001.jpg cannot be read", "no picture": "0001.png cannot be read",
    "twice": "are both image 1 of '00001'", "foreign": "copy of 0001.png is no number", "folder": "old is no number",
    "beside": "both beside and within folders", "no metadata": "There is no .*00001/metadata.jsonl",
    "cut metadata": "metadata.jsonl is not valid JSON", "prompt": "different prompts: 'a photo of 1' and 'rewritten'",
    "empty": "00001/samples holds no pictures", "transparent": "partly transparent", "deep": "is I;16, not RGB",
    "cmyk": "is CMYK, not RGB",
}  # fmt: skip


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused_by_name(case: str, tmp_path: Path) -> None:
    dense, good, bad = (geneval(tmp_path / name) for name in ("dense", "good", "bad"))
    spoil(bad, case)
    with pytest.raises(VarlabError, match=CASES[case]):
        vl.compare_images(dense, [good, bad])


@pytest.mark.usefixtures("idle")
def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    dense = geneval(tmp_path / "dense")
    (tmp_path / "empty").mkdir()
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared/comparison.json").write_text("{}")
    for others, message in {
        "gone": "There is no folder", "empty": "no pictures in a layout that is known", "dense": "given twice",
        "compared": "comparison of several methods",
    }.items():  # fmt: skip
        with pytest.raises(VarlabError, match=message):
            vl.compare_images(dense, tmp_path / others)
    with pytest.raises(VarlabError, match="nothing to compare with"):
        vl.compare_images(dense, [])
    with pytest.raises(VarlabError, match=r"different layouts .dense: geneval, other: flat"):
        vl.compare_images(dense, dpg(tmp_path / "other"))


def test_missing_partners_are_said_where_they_are_allowed(tmp_path: Path) -> None:
    dense, bad = geneval(tmp_path / "dense"), geneval(tmp_path / "bad", 0.1)
    spoil(bad, "missing")
    found = vl.compare_images(dense, bad, allow_missing=True)
    assert (found.facts["n"], found.facts["expected"]) == (5, 6) and "Only 5 of 6" in found.facts["notes"][0]
    assert "5 (of 6) images" in found.legend()


def test_pictures_of_other_settings_are_refused_by_field(tmp_path: Path) -> None:
    dense, other = by_varlab(tmp_path / "a"), by_varlab(tmp_path / "b", 0.1, settings={"cfg": 2})
    with pytest.raises(VarlabError, match=r"settings.cfg: 3 and 2.*--despite settings.cfg"):
        vl.compare_images(dense, other)
    assert "settings.cfg" in vl.compare_images(dense, other, despite=["settings"]).facts["notes"][0]
    assert vl.compare_images(dense, by_varlab(tmp_path / "c", 0.1, accelerators=["fast"])).facts["made"]["seed"] == 4


def test_fields_of_pictures_and_of_their_scores_may_differ_where_that_is_meant(tmp_path: Path) -> None:
    folders, files = (by_varlab(tmp_path / "a"), by_varlab(tmp_path / "b", 0.1, settings={"cfg": 2})), {}
    for folder, mode in zip(folders, ("official", "corrected"), strict=True):
        entries = [{"entry": name, "image": k, "correct": True} for name, k in read_layout(folder).pictures]
        files[folder.name] = folder.with_suffix(".json")
        files[folder.name].write_text(json.dumps({"mode": mode, "entries": entries}))
    notes = vl.compare_images(*folders, scores=files, despite=["settings", "mode"]).facts["notes"]
    assert "settings.cfg" in notes[0] and "differ in mode: official and corrected" in notes[1]
    with pytest.raises(VarlabError, match="--despite wieghts: neither has such a field"):
        vl.compare_images(*folders, scores=files, despite=["settings", "mode", "wieghts"])


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(("text", "message"), [
    ("dense,1,0\n", "do not name the same ones: fast"), ("dense,1,0\nfast,0,0\n", "line 3: .*0.* is no time"),
    ("dense,1,0\nfast,nan,0\n", "line 3: .*no time"), ("dense,1,0\nfast,2,0\nfast,2,0\n", "a turn twice"),
    ("dense,1,0\nfast,2,0\nslow,2,0\n", "slow"),
])  # fmt: skip
def test_latencies_that_do_not_fit_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("folder,ms,turn\n" + text)
    with pytest.raises(VarlabError, match=message):
        vl.compare_images(dpg(tmp_path / "dense"), dpg(tmp_path / "fast", 0.1), latency=tmp_path / "t.csv")


def test_the_command_leaves_nothing_behind(tmp_path: Path, varlab: Call) -> None:
    dense, bad = geneval(tmp_path / "dense"), geneval(tmp_path / "bad", 0.1)
    spoil(bad, "cut")
    varlab("compare-images", dense, bad, "--out", tmp_path / "new").refused("cannot be read")
    assert not (tmp_path / "new").exists()

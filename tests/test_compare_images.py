"""Folders of pictures of any origin: layouts are recognised, numbers are those of the arrays, mistakes stop at once."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import varlab as vl
from tests.cli_calls import Call, places, varlab  # noqa: F401
from tests.image_folders import SIDE, by_varlab, dpg, draw, geneval, hps, imagereward, pixels
from varlab.comparison import images
from varlab.comparison.layouts import read_layout
from varlab.errors import VarlabError
from varlab.measures.differences import wavelet_difference
from varlab.measures.metrics import high_frequency_ssim, psnr, ssim
from varlab.scenes import benchmark_prompt, render, sample_scenes

LAYOUTS: dict[str, Callable[..., Path]] = {
    "geneval": geneval, "flat": dpg, "styles": hps, "imagereward": imagereward, "varlab": by_varlab
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts_are_recognised_and_paired(kind: str, tmp_path: Path) -> None:
    dense, other = LAYOUTS[kind](tmp_path / "dense"), LAYOUTS[kind](tmp_path / "fast", 0.05)
    found = vl.compare_images(dense, other)
    assert found.facts["layout"] == kind and found.table.method.tolist() == ["fast"]
    assert len(found.prompts) == found.facts["n"] == {"geneval": 6, "styles": 4, "imagereward": 4}.get(kind, 3)
    assert (found.prompts.ssim < 1).all() and np.isfinite(found.prompts.psnr).all()
    names = found.prompts.name.tolist()
    assert kind != "flat" or set(names) == {"partiprompts12", "007", "COCOval2014_000000000042"}
    assert kind != "styles" or found.prompts.category.tolist() == ["anime"] * 2 + ["photo"] * 2


def test_numbers_are_those_of_the_arrays(tmp_path: Path) -> None:
    found = vl.compare_images(dpg(tmp_path / "dense"), dpg(tmp_path / "fast", 0.1))
    by_name = found.prompts.set_index("name")
    for i, stem in enumerate(("partiprompts12", "007", "COCOval2014_000000000042")):
        a, b = (torch.from_numpy(pixels(i, noise)).movedim(-1, 0).float() / 255 for noise in (0.1, 0.0))
        row = by_name.loc[stem]
        for name, measure in {"psnr": psnr, "ssim": ssim, "high_frequency_ssim": high_frequency_ssim}.items():
            assert row[name] == pytest.approx(float(measure(a, b)), abs=1e-5)
        assert row.detail_error == pytest.approx(float(wavelet_difference(a, b).detail_error), rel=1e-5)
    row = found.table.iloc[0]
    assert row.ssim == pytest.approx(by_name.ssim.mean()) and row.psnr == by_name.psnr.median()
    assert row.ssim_low <= row.ssim <= row.ssim_high and "ms_ssim" not in found.table  # too small for its scales
    assert (found.spectra.gain_db_low <= found.spectra.gain_db).all() and found.spectra.to.iloc[-1] == 0.5


def test_numbers_do_not_depend_on_threads(tmp_path: Path) -> None:
    folders, threads = (geneval(tmp_path / "dense"), geneval(tmp_path / "fast", 0.1)), torch.get_num_threads()
    tables = []
    for n in (1, 3):
        torch.set_num_threads(n)
        tables.append(vl.compare_images(*folders).prompts)
        assert torch.get_num_threads() == n
    torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_freed_memory_goes_back_while_pictures_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, returned = (dpg(tmp_path / "dense"), dpg(tmp_path / "fast")), list[int]()
    monkeypatch.setattr(images, "give_back_pages", lambda: returned.append(1))
    vl.compare_images(*folders)
    assert not returned  # three small pictures
    monkeypatch.setattr(images, "KEPT", 2 * SIDE**2)
    vl.compare_images(*folders)
    assert len(returned) == 1


def test_equal_pictures_are_equal(tmp_path: Path) -> None:
    row = vl.compare_images(dpg(tmp_path / "a"), dpg(tmp_path / "b")).table.iloc[0]
    assert np.isinf(row.psnr) and row.ssim == pytest.approx(1) and row.detail_error == row.spectrum_db == 0


def test_large_pictures_have_ms_ssim(tmp_path: Path) -> None:
    for name, noise in (("a", 0.0), ("b", 0.1)):
        draw(tmp_path / name / "1.png", 1, noise, side=176)
    row = vl.compare_images(tmp_path / "a", tmp_path / "b").table.iloc[0]
    assert row.ssim < row.ms_ssim < 1


def test_names_of_infinitys_scripts_pair_with_those_of_geneval(tmp_path: Path) -> None:
    found = vl.compare_images(geneval(tmp_path / "a"), geneval(tmp_path / "b", name="{:05d}.jpg"))
    assert found.facts["n"] == 6 and "JPEG" in found.facts["notes"][0]
    assert found.facts["formats"] == {"a": ["6 PNG"], "b": ["6 JPEG"]}


def test_pictures_of_varlab_pair_with_plain_ones_of_the_same_names(tmp_path: Path) -> None:
    for i in range(3):
        draw(tmp_path / "b" / f"m-seed4-{i:04d}-0.0.jpg", i)
    assert vl.compare_images(by_varlab(tmp_path / "a"), tmp_path / "b").facts["layout"] == "flat"


def test_images_of_one_prompt_are_one_prompt_in_intervals(tmp_path: Path) -> None:
    dense, other = (by_varlab(tmp_path / name, noise, prompt="p") for name, noise in (("a", 0.0), ("b", 0.1)))
    row = vl.compare_images(dense, other).table.iloc[0]
    assert (row.n, row.prompts) == (3, 1) and np.isnan(row.ssim_low)  # one prompt tells no interval


def test_folders_are_compared_with_one_another(tmp_path: Path) -> None:
    folders = [geneval(tmp_path / name, noise, n=8) for name, noise in (("good", 0.02), ("bad", 0.2))]
    found = vl.compare_images(geneval(tmp_path / "dense", n=8), folders, margin={"ssim": 0.01})
    rows = found.pairs.set_index("measure")
    assert (rows.a == "bad").all() and (rows.b == "good").all() and rows.loc["ssim", "outcome"] == "a lower"
    assert rows.loc["ssim", ["n", "prompts"]].tolist() == [16, 8]
    means = found.table.set_index("method").ssim
    assert rows.loc["ssim", "difference"] == pytest.approx(means["bad"] - means["good"])
    again = vl.compare_saved(found.save(tmp_path / "out"), tmp_path / "out", first="bad", second="good",
                             measures=["ssim"]).table.iloc[0]  # fmt: skip
    assert again.difference == pytest.approx(rows.loc["ssim", "difference"]) and again.p == rows.loc["ssim", "p"]


def test_samples_of_a_grid_are_taken_apart(tmp_path: Path) -> None:
    for name, noise in (("a", 0.0), ("b", 0.1)):
        tiles = [pixels(k, noise) for k in range(4)]
        grid = np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)])
        (tmp_path / name).mkdir()
        Image.fromarray(grid).save(tmp_path / name / "7.png")
        for k, tile in enumerate(tiles):
            (tmp_path / f"{name}1").mkdir(exist_ok=True)
            Image.fromarray(tile).save(tmp_path / f"{name}1" / f"7_{k}.png")
    grid, single = (vl.compare_images(tmp_path / a, tmp_path / b, grid=side).prompts
                    for a, b, side in (("a", "b", SIDE), ("a1", "b1", None)))  # fmt: skip
    assert grid.k.tolist() == single.k.tolist() == [0, 1, 2, 3] and np.allclose(grid.ssim, single.ssim)
    with pytest.raises(VarlabError, match="no grid of samples of 20 pixels"):
        vl.compare_images(tmp_path / "a", tmp_path / "b", grid=20)


def test_scenes_are_scored_where_prompts_ask_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = sample_scenes(8, 90_001)
    pictures = render(scenes, 64)
    for i, scene in enumerate(scenes):
        for name, picture in (("right", pictures[i]), ("wrong", np.full_like(pictures[i], 128))):
            (tmp_path / name / f"{i:05d}/samples").mkdir(parents=True)
            Image.fromarray(picture).save(tmp_path / name / f"{i:05d}/samples/0000.png")
            about = {"tag": scene.category, "prompt": benchmark_prompt(scene)}
            (tmp_path / name / f"{i:05d}/metadata.jsonl").write_text(json.dumps(about))
    assert "correct" not in vl.compare_images(tmp_path / "right", tmp_path / "wrong").table  # too few to say
    monkeypatch.setattr(images, "SCORE_FROM", 8)
    found = vl.compare_images(tmp_path / "right", tmp_path / "wrong")
    assert found.table.set_index("method").correct.tolist() == [1, 0]
    row = found.pairs[found.pairs.category == "overall"].set_index("measure").loc["correct"]
    assert (row.a, row.b, row.difference, row.higher, row.lower) == ("wrong", "right", -1, 0, 8)


# Latencies


def latencies(path: Path, text: str) -> Path:
    path.write_text("folder,ms,turn\n" + text)
    return path


def test_latencies_join_the_table(tmp_path: Path) -> None:
    folders = dpg(tmp_path / "dense"), dpg(tmp_path / "fast", 0.1)
    rows = "".join(f"dense,{2000 + 100 * t},{t}\nfast,{1000 + 50 * t},{t}\n" for t in range(5))
    found = vl.compare_images(*folders, latency=latencies(tmp_path / "t.csv", rows)).table.iloc[0]
    assert (found.seconds, found.timings) == (1.1, 5)
    assert found.speedup == found.speedup_low == found.speedup_high == 2  # paired: the drift is common to both
    (tmp_path / "u.csv").write_text("method,seconds\n" + "dense,2\ndense,2.2\ndense,3\nfast,1\nfast,1.1\n")
    found = vl.compare_images(*folders, latency=tmp_path / "u.csv").table.iloc[0]
    assert found.speedup == pytest.approx(2.2 / 1.05) and found.speedup_low < found.speedup < found.speedup_high


def scored(path: Path, wrong: set[tuple[int, int]], mode: str = "official", n: int = 3) -> Path:
    """What ``varlab score geneval --json`` writes of the folders of ``geneval``."""
    entries = [
        {"entry": f"{i:05d}", "image": k, "category": "colors" if i else "counting", "correct": (i, k) not in wrong}
        for i in range(n)
        for k in range(2)
    ]
    path.write_text(json.dumps({"benchmark": "geneval", "mode": mode, "entries": entries}))
    return path


def test_scores_of_benchmarks_join_the_table(tmp_path: Path, varlab: Call) -> None:
    folders = geneval(tmp_path / "dense"), geneval(tmp_path / "fast=1", 0.1)
    files = {"dense": scored(tmp_path / "d=.json", set()), "fast=1": scored(tmp_path / "f.json", {(0, 0), (2, 1)})}
    found = vl.compare_images(*folders, scores=files)
    table = found.table.set_index("method")
    assert table.correct.to_dict() == {"dense": 1, "fast=1": pytest.approx((1 / 2 + 3 / 4) / 2)}  # mean of categories
    assert np.isnan(table.ssim["dense"]) and table.ssim["fast=1"] == vl.compare_images(*folders).table.ssim[0]
    pairs = found.pairs.set_index(["a", "b", "measure", "category"])
    assert pairs.loc[("fast=1", "dense", "correct", "overall"), ["higher", "lower"]].tolist() == [0, 2]
    assert set(found.pairs.measure) == {"correct"} and "score" in {name for part in found.shown() for name in part}
    said = varlab("compare-images", *folders, *(f"--scores={name}={path}" for name, path in files.items()))
    assert said.code == 0 and "a: fast=1; b: dense" in said.out, said


def test_scores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folders, good = (geneval(tmp_path / "dense"), geneval(tmp_path / "fast", 0.1)), scored(tmp_path / "g.json", set())
    fewer, other = scored(tmp_path / "n.json", set(), n=2), scored(tmp_path / "o.json", set(), "corrected")
    (likeness := tmp_path / "l.csv").write_text("name,k,correct,ssim\n0,0,1,0.5\n")
    for scores, says in (
        ({"fats": good}, "Did you mean fast"),
        ({"fast": fewer}, "2 of 6 pictures of fast have no score, such as image 0 of '2'"),
        ({"dense": good, "fast": other}, "differ in mode"),
        ({"fast": likeness}, "holds ssim, which is measured here"),
    ):
        with pytest.raises(VarlabError, match=says):
            vl.compare_images(*folders, scores=scores)
    found = vl.compare_images(*folders, scores={"fast": fewer}, allow_missing=True)
    assert found.prompts.correct.notna().sum() == 4 and "2 of 6 pictures have no score" in found.facts["notes"][0]
    with pytest.raises(VarlabError, match="leave --grid or --scores out"):
        vl.compare_images(*folders, scores={"fast": good}, grid=12)


# The command


def test_the_command_writes_its_tables_and_refuses_before(tmp_path: Path, varlab: Call) -> None:
    dense, good, bad = (geneval(tmp_path / name, noise) for name, noise in (("dense", 0), ("good", 0.1), ("bad", 0.2)))
    out = tmp_path / "out"
    call = ["compare-images", dense, good, bad, "--out", out]
    said = varlab(*call)
    assert said.code == 0 and "a: bad; b: good" in said.out and "24 x 24" in said.out, said
    assert read_layout(dense).kind == json.loads((out / "comparison.json").read_text())["facts"]["layout"]
    tables = {name: pd.read_csv(out / f"{name}.csv") for name in ("comparison", "prompts", "paired", "spectra")}
    assert len(tables["prompts"]) == 12 and len(tables["comparison"]) == 2
    varlab(*call).refused("exists", "--overwrite")

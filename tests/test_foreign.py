"""Pictures of other code beside a comparison of our own: one table, marked, refused before anything is drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import varlab as vl
from tests.minis import nano  # noqa: F401  (a fixture)
from varlab.cli import app
from varlab.comparison import Comparison
from varlab.comparison.bench import Bench
from varlab.comparison.foreign import token_logs
from varlab.comparison.image_result import ImageComparison
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.outputs import save_image
from varlab.probes.log import Group, tree
from varlab.report_inputs import check_inputs
from varlab.runs.folders import write_log
from varlab.scenes.prompt_sets import choose

N, SEED, SPEC = 3, 2, "truncate:last=1"
TEXTS = choose(None, N, "nano-infinity").texts
LATENCIES = "method,turn,seconds\n" + "".join(f"none,{i},0.4\nfork,{i},0.2\n" for i in range(4))


@pytest.fixture(scope="module")
def own(nano: NextScaleModel) -> Comparison:
    return vl.compare(nano, None, [SPEC], n=N, seed=SEED, frontier=False)


def fork(place: Path, own: Comparison, noise: float = 0.0) -> Path:
    """As a script writes them: numbered files that say nothing."""
    place.mkdir()
    for i, picture in enumerate(own.images["none"]):
        pixels = np.asarray(picture).astype(float)
        pixels += np.random.default_rng(i).normal(scale=noise, size=pixels.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{i:04d}.png")
    return place


def attached(place: Path, own: Comparison, **facts: object) -> Path:
    """As ``vl.attach`` keeps them."""
    about = {"seed": SEED, "source": "attached", "model": "my-fork", "module": {"class": "Fork"}} | facts
    for i, picture in enumerate(own.images[SPEC]):
        save_image(place / f"{i:04d}.png", picture, {"prompt": TEXTS[i], "image": i} | about)
    return place


def test_ours_and_foreign_ones_stand_in_one_table(own: Comparison, tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text(LATENCIES)
    found = vl.compare(
        "nano-infinity", None, [SPEC], n=N, seed=SEED, frontier=False,
        foreign=[fork(tmp_path / "fork", own, 9)], foreign_latency=tmp_path / "times.csv",
    )  # fmt: skip
    assert found.foreign is not None
    ours, theirs = found.foreign.table.to_dict("records")
    assert [(row["method"], row["origin"]) for row in (ours, theirs)] == [(SPEC, "ours"), ("fork", "foreign")]
    assert ours["ssim"] == pytest.approx(found.table.ssim[SPEC], abs=0.01)  # of 8 bits, of tensors
    assert theirs["ssim"] < 1 and theirs["n"] == N
    assert ours["seconds"] == pytest.approx(found.table.seconds[SPEC])
    assert (theirs["seconds"], theirs["speedup"], theirs["timings"]) == pytest.approx((0.2, 2.0, 4))
    place = found.save(tmp_path / "out")
    saved = pd.read_csv(place / "foreign" / "comparison.csv")
    assert saved.origin.tolist() == ["ours", "foreign"]
    own.save(place, overwrite=True)
    assert not (place / "foreign").exists()  # of another comparison


def test_attached_runs_are_read_too_and_equal_pictures_are_equal(own: Comparison, tmp_path: Path) -> None:
    found = vl.compare(
        "nano-infinity", None, [SPEC], n=N, seed=SEED, frontier=False,
        foreign=[fork(tmp_path / "same", own), attached(tmp_path / "run", own)],
    ).foreign  # fmt: skip
    assert found is not None
    table = found.table.set_index("method")
    assert table.ssim["same"] == pytest.approx(1) and table.ssim["run"] == pytest.approx(table.ssim[SPEC])
    assert table.origin.tolist() == ["ours", "foreign", "foreign"] and np.isnan(table.seconds["run"])
    assert any("Foreign: my-fork (Fork)" in note for note in found.facts["notes"])


def test_the_command_shows_and_keeps_them(own: Comparison, tmp_path: Path) -> None:
    folder = fork(tmp_path / "fork", own, 9)
    line = (
        f"compare nano-infinity {SPEC} --n {N} --seed {SEED} --no-frontier --foreign {folder} --out {tmp_path / 'out'}"
    )
    done = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    assert done.exit_code == 0 and "beside pictures of other code" in done.output
    assert (tmp_path / "out" / "foreign" / "prompts.csv").is_file()


def lacking(place: Path, own: Comparison) -> Path:
    (fork(place, own) / "0001.png").unlink()
    return place


def small(place: Path, own: Comparison) -> Path:
    for file in fork(place, own).iterdir():
        Image.open(file).resize((8, 8)).save(file)
    return place


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place, own: place, "There is no folder"),
        (lacking, "fork lacks 1"),
        (small, "is 8 x 8, nano-infinity draws"),
        (lambda place, own: attached(place, own, seed=9), "are in all folders"),
        (lambda place, own: attached(place, own, source="varlab", settings={"cfg": 7}), "differ in"),
        (lambda place, own: fork(place.with_name("none"), own), "Rename it"),
    ],
)
def test_what_cannot_be_set_beside_ours_is_refused_before_anything_is_drawn(
    own: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path], said: str
) -> None:
    monkeypatch.setattr(Bench, "run", lambda *_: pytest.fail("drawn"))
    with pytest.raises(VarlabError, match=said):
        vl.compare("nano-infinity", n=N, seed=SEED, frontier=False, foreign=[make(tmp_path / "fork", own)])


def test_latencies_are_of_foreign_folders(own: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "run", lambda *_: pytest.fail("drawn"))
    (tmp_path / "times.csv").write_text(LATENCIES.replace("fork", "other"))
    for folders, said in (([fork(tmp_path / "fork", own)], "fork, other"), ([], "belong to foreign pictures")):
        with pytest.raises(VarlabError, match=said):
            vl.compare(
                "nano-infinity", None, [], n=N, seed=SEED, frontier=False, foreign=folders,
                foreign_latency=tmp_path / "times.csv",
            )  # fmt: skip


def test_a_report_asks_for_the_folders_before_its_kernel_starts(tmp_path: Path) -> None:
    with pytest.raises(VarlabError, match="There is no folder"):
        check_inputs({"foreign": None}, {"foreign": [str(tmp_path / "none")]})


def test_maps_of_an_attached_run_stand_beside_ours(own: Comparison, tmp_path: Path) -> None:
    """Of a fork that was attached with ``places=``; pictures alone have none, and neither has a truncated run."""
    place = attached(tmp_path / "run", own)
    kept = np.zeros((N, 8, 8), np.float32)
    kept[:, :, :4] = 1
    group = Group(tuple(range(N)), {"kept": (("y", "x"), kept, "1")})
    write_log(place, tree({"attached/stage-06": group}, {"prompts": list(TEXTS)}))
    names = ["fork", "run"]
    table = pd.DataFrame({"method": [SPEC, *names], "origin": ["ours", "foreign", "foreign"]})
    facts = {"others": [SPEC, str(fork(tmp_path / "fork", own)), str(place)]}
    found = token_logs(replace(own, foreign=ImageComparison(table, table, table, table, facts)))
    assert list(found) == ["run (foreign)"] and token_logs(own) == {}
    shown = vl.figures.keep_maps_table(found["run (foreign)"])
    assert shown.kept.mean() == 0.5 and len(shown) == N * 64

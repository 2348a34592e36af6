"""Distances between sets of pictures as benchmarks, and the contract that all benchmarks keep."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmark_runs import geneval, lines, table  # noqa: F401
from varlab.errors import VarlabError
from varlab.evaluation import adm_scores
from varlab.evaluation.benchmarks import BENCHMARKS
from varlab.evaluation.benchmarks.distances import read_features, read_statistics
from varlab.evaluation.contract import Benchmark
from varlab.evaluation.judging import judge


def features(path: Path, seed: int, n: int = 40, names: list[str] | None = None, **more: Any) -> Path:
    drawn = np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)
    arrays = {
        "features": drawn,
        "logits": drawn[:, :3],
        "spatial": drawn[:, :2],
        "names": np.array(names or [f"{i:03d}.png" for i in range(n)]),
    }
    np.savez(path, **(arrays | more))
    return path


def test_fid_of_canned_features(tmp_path: Path) -> None:
    own, real = features(tmp_path / "own.npz", 1), features(tmp_path / "real.npz", 2)
    scores = judge("fid", tmp_path, results=own, references=[real])
    arrays = [np.load(path)["features"] for path in (own, real)]
    found = table(scores)
    assert found["fid"] == pytest.approx(adm_scores.fid(*(adm_scores.statistics(a) for a in arrays)))
    assert found["sfid"] == pytest.approx(adm_scores.fid(*(adm_scores.statistics(a[:, :2]) for a in arrays)))
    assert {"fid", "sfid", "inception_score", "precision", "recall", "kid"} == found.keys()
    assert (scores.table["low"] < scores.table["value"]).all() and (scores.table["value"] < scores.table["high"]).all()
    assert any("leaving each out (jackknife)" in note for note in scores.notes)


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
    local: dict[str, Any] = {"mu_s": np.ones(2), "sigma_s": np.eye(2)}
    found = read_statistics(local | {"spatial": np.zeros((3, 2))}, stored, "spatial")
    assert np.array_equal(found.mu, np.ones(2))
    np.savez(tmp_path / "adm.npz", mu=mu, sigma=sigma, **local, arr_0=np.zeros((2, 8, 8, 3), np.uint8))
    scores = judge("fid", tmp_path, results=features(tmp_path / "own.npz", 1), references=[tmp_path / "adm.npz"])
    assert set(table(scores)) == {"fid", "sfid", "inception_score"}
    assert any("no precision, recall and KID" in note for note in scores.notes)
    for names, kind in ((("mu", "sigma"), "features"), (("mu_s", "sigma_s"), "spatial")):
        with pytest.raises(VarlabError, match="are no mean and covariance"):
            read_statistics(dict(zip(names, (mu, np.eye(3)), strict=True)), stored, kind)


def test_spatial_features_that_one_side_lacks_leave_sfid_out_and_say_so(tmp_path: Path) -> None:
    own, bare = features(tmp_path / "own.npz", 1), features(tmp_path / "bare.npz", 2, spatial=np.zeros((40, 0)))
    for results, reference, whose in ((own, bare, "real"), (bare, own, "drawn")):
        scores = judge("fid", tmp_path, results=results, references=[reference])
        assert "sfid" not in table(scores)
        assert any(f"no sFID: no spatial features of the {whose} images" in note for note in scores.notes)


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
        ({"spatial": np.full((40, 2), np.inf)}, "row 0: features that are no numbers"),
        ({"names": ["a.png"] * 40}, "a.png is there twice"),
        ({"names": ["a.png"]}, "40 features, 40 logits, 40 spatial features and 1 names"),
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

"""``varlab verdicts``: the claims that the methods start from, of several runs side by side."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.minis import refused
from tests.toy_logs import toy_log
from varlab.claims.motivation import motivation, side_by_side
from varlab.cli import app
from varlab.runs import folders


def test_each_row_is_a_number_of_a_verdict_on_one_run() -> None:
    logs = [toy_log({"step-redundancy.ssim": 0.5}, n=16, scene_version="1"), toy_log(n=12, scene_version="2")]
    found = side_by_side(logs)
    for (_, rows), log in zip(found.table.groupby("n", sort=False), logs, strict=True):
        expected = [(v.claim, str(v.outcome), number) for v in motivation(log) for number in v.numbers]
        assert [(*row,) for row in rows[["claim", "verdict"]].to_numpy()] == [(c, o) for c, o, _ in expected]
        assert rows.estimate.tolist() == [number.estimate for _, _, number in expected]
        assert rows.low.tolist() == [number.low for _, _, number in expected]
        assert not rows.duplicated(["claim", "number"]).any()
    assert found.table.scenes.unique().tolist() == ["1", "2"]
    assert [run["n"] for run in found.facts["runs"]] == [16, 12] and found.table.claim.nunique() == 7


def test_the_command_writes_what_it_shows_and_refuses_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = CliRunner().invoke(app, ["verdicts", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")])
    assert none.exit_code and not (tmp_path / "out").exists()
    monkeypatch.setattr(folders, "open_log", lambda folder: toy_log(n=12, scene_version="1"))
    words = ["verdicts", "a run", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    table = pd.read_csv(tmp_path / "out" / "motivation.csv")
    assert set(table.columns) >= {"model", "weights", "scenes", "claim", "verdict", "estimate", "low", "high", "values"}
    assert json.loads((tmp_path / "out" / "motivation.json").read_text())["runs"][0]["n"] == 12
    again = CliRunner().invoke(app, words)
    assert again.exit_code and "exists" in f"{again.output} {again.exception}"


def test_a_run_without_a_probe_says_which() -> None:
    log = toy_log()
    del log["branch-divergence"]
    refused(lambda: side_by_side([log]), "branch-divergence")

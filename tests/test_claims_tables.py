"""The ledger as tables, the ablations by axis, and the notebooks that show them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import varlab as vl
from tests.minis import refused
from tests.notebook_cells import run_cells
from varlab.analysis.ablation_axes import axis_table, blocks_table, product_table, strategies_table
from varlab.analysis.settings_table import SettingsTable
from varlab.claims import summary
from varlab.claims.derive import read_verdicts, stored
from varlab.claims.ledger import claims_folder, read_claims
from varlab.claims.verdict import Outcome
from varlab.errors import VarlabError


@pytest.fixture(scope="module")
def hart() -> SettingsTable:
    table = stored(claims_folder(), "mini-hart", "sparsevar")
    assert table is not None
    return table


def test_counts_hold_every_verdict() -> None:
    verdicts = read_verdicts()
    table = summary.counts(verdicts, read_claims())
    assert table["all"].sum() == len(verdicts) == table.drop(columns="all").to_numpy().sum()


def test_groups_hold_every_verdict_that_is_told() -> None:
    verdicts, claims = read_verdicts(), read_claims()
    table = summary.by_group(verdicts, claims)
    assert table.loc[("sparsevar: poster ablation p", "mini-infinity"), "holds"] == 5
    told = Counter(str(verdict.outcome) for verdict in summary.told(verdicts, claims))
    assert table.sum().to_dict() == told and (table.sum(axis=1) > 0).all()


def test_the_posters_rows_stand_as_printed_beside_what_was_measured() -> None:
    table = summary.poster_table("geneval")
    assert len(table) == 10 and list(table.index)[:2] == ["infinity-2b", "infinity-2b tau 0.4"]
    row = table.loc["hart-0.7b tau 0.6"]
    assert row.overall == "0.5606" and row.latency == "0.99" and row["setting here"] == "sparsevar:keep=0.27,last=3"
    held = stored(claims_folder(), "mini-hart", "methods")
    assert held is not None
    assert row["SSIM to dense"].startswith(f"{held.values('ssim', row['setting here']).to_numpy().mean():.3f} [")
    assert row["blind at its work"].split(":")[0] in ("truncate", "cfg-off", "random-tokens", "uniform-tokens")
    assert [len(summary.poster_table(name)) for name in ("dpg", "preference", "ablation-alpha", "ablation-p")] == [
        10, 10, 10, 12,
    ]  # fmt: skip
    with pytest.raises(VarlabError, match="geneval"):
        summary.poster_table("genevl")


def test_findings_are_of_both_kinds() -> None:
    found = summary.arithmetic_findings(read_verdicts())
    assert {"same-row", "faster-within-loss", "same-setting", "speed-up-from-latency"} <= set(found.rule)
    told = summary.told(read_verdicts(), read_claims())
    assert len({verdict.claim for verdict in told}) == len(told) and Outcome.ARITHMETIC not in {v.outcome for v in told}


def test_an_axis_has_its_values_in_order(hart: SettingsTable, tmp_path: Path) -> None:
    alphas = axis_table(hart, "alpha")
    assert list(alphas.alpha) == ["2", "3", "4", "5", "none"] and alphas.computed.is_monotonic_decreasing
    blocks = axis_table(hart, "block")
    assert list(blocks.block) == [str(b + 1) for b in range(len(blocks))] and blocks.work.nunique() == 1
    with pytest.raises(VarlabError, match="axis of the study"):
        axis_table(hart, "tua")
    vl.figures.save(vl.figures.ablation(hart, "last"), "last", folder=tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} >= {".png", ".pdf", ".csv"}


@pytest.mark.parametrize("model", ["mini-infinity", "mini-hart"])
def test_every_tau_is_crossed_with_every_alpha(model: str) -> None:
    table = stored(claims_folder(), model, "sparsevar")
    assert table is not None
    cells = product_table(table)
    assert set(cells.alpha) == {"2", "3", "4", "5", "none"} and {"0.4", "0.5", "0.6", "0.7"} < set(cells.tau)
    assert len(cells) == cells.tau.nunique() * 5 and (cells.ssim_low <= cells.ssim).all() and set(cells.n) == {table.n}
    ax = vl.figures.anchors(table)
    labels = ax.get_legend_handles_labels()[1]
    assert {"alpha 2", "alpha 3", "alpha 4", "alpha 5", "no anchors"} < set(labels)
    edge = ax.lines[-2].get_ydata()  # of the frontier; a baseline far below does not squeeze the scale
    assert ax.get_ylim()[0] > min(cells.ssim_low.min(), np.min(edge)) - 0.05


@pytest.mark.parametrize("model", ["mini-infinity", "mini-hart"])
def test_every_number_of_stages_is_crossed_with_every_block(model: str) -> None:
    table = stored(claims_folder(), model, "sparsevar")
    assert table is not None
    axes, cells = table.facts["axes"], blocks_table(table)
    assert list(zip(cells["last"], cells.block, strict=True)) == [
        (last, block + 1) for last in axes["last"] for block in axes["block"]
    ]
    assert (cells.groupby("last").work.nunique() == 1).all() and (cells.gain_low <= cells.gain_high).all()
    one = cells[(cells["last"] == 3) & (cells.block == 2)].iloc[0]
    ours, blind = (table.values("ssim", f"{name}:keep=0.27,last=3{rest}").to_numpy()[0] for name, rest in
                   (("sparsevar", ",block=1"), ("random-tokens", "")))  # fmt: skip
    assert one.gain == pytest.approx((ours - blind).mean())
    written = [text.get_text() for text in vl.figures.scoring_blocks(table).texts]
    assert written[: len(cells)] == [
        f"{gain:+.3f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}") for gain in cells.gain
    ]
    other = stored(claims_folder(), model, "methods")
    assert other is not None
    refused(lambda: vl.figures.scoring_blocks(other), f"study methods of {model}", "varlab evidence")


def test_strategies_by_half() -> None:
    held = stored(claims_folder(), "mini-infinity", "methods")
    assert held is not None
    table = strategies_table(held).set_index("strategy")
    row = table.loc["truncate:last=1"]
    assert row["ssim"] == pytest.approx((row["ssim sensitive"] + row["ssim robust"]) / 2)
    assert table.loc["none", "ssim"] == 1


@pytest.mark.parametrize("name", ["40_claims", "41_poster_tables", "30_ablations"])
def test_the_notebooks_run_from_stored_tables(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the figures one is drawn: the others are drawn by the same line."""
    drawn: list[str] = []
    monkeypatch.setattr(vl.figures, "ablation", lambda table, axis: axis)
    monkeypatch.setattr(vl.figures, "anchors", lambda table: table)
    monkeypatch.setattr(vl.figures, "scoring_blocks", lambda table: table)
    monkeypatch.setattr(vl.figures, "save", lambda figure, stem: drawn.append(stem))
    ran = run_cells(name, {}, tmp_path)
    if name == "40_claims":
        told = {item["claim"]: item["verdict"] for item in ran.facts["verdicts"]}
        assert any("~25%" in claim and "on mini-hart" in claim for claim in told)
        assert set(ran.facts["weights"].split("; ")) == {row["weights"] for row in read_verdicts() if row["run"]}
    else:
        assert "mini-hart" in ran.facts["model"] and "trained" in ran.facts["weights"]
    assert bool(drawn) is (name == "30_ablations") and (not drawn or "mini-hart_alpha" in drawn)

"""The tables behind the figures, their controls, and where figures are saved."""

import os
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

matplotlib.use("agg")

from tests.toy_logs import PIXELS, SIDES, toy_images, toy_log
from varlab import figures
from varlab.analysis import controls, logs, redundancy
from varlab.claims import sparsevar
from varlab.errors import VarlabError
from varlab.measures.metrics import concentration
from varlab.measures.statistics import bootstrap_interval
from varlab.measures.stored import concentrations, rank_correlations
from varlab.probes.residual_spectrum import SOURCES
from varlab.runs import folders


def test_a_table_has_mean_interval_and_n() -> None:
    log = toy_log()
    values = log["residual-spectrum"]["high_frequency_share"].data[:, :, SOURCES.index("preview change")]
    table = figures.high_frequency_share_table(log, ["preview change"])
    mean, low, high = bootstrap_interval(values)
    assert np.allclose(table["mean"], values.mean(0)) and np.allclose(table["mean"], mean)
    assert np.allclose(table["low"], low) and np.allclose(table["high"], high)
    assert set(table["n"]) == {8} and (table["low"] < table["high"]).all()


def test_missing_and_infinite_values_are_left_out_and_counted() -> None:
    log = toy_log()
    log["step-redundancy"]["psnr"].data[0, 1] = np.nan
    table = figures.similarity_table(log)
    table = table[table["measure"] == "psnr"].set_index("stage")
    assert table["n"].tolist() == [8, 7, 8, 8, 8, 0]
    assert table.loc[2, "mean"] == pytest.approx(log["step-redundancy"]["psnr"].data[1:, 1].mean())
    assert np.isnan(table.loc[6, "mean"])


def test_one_prompt_has_no_interval() -> None:
    table = figures.energy_left_table(toy_log(n=1))
    assert table["n"].tolist() == [1] * 6 and table[["low", "high"]].isna().all(axis=None)


def test_no_power_is_drawn_beyond_nyquist() -> None:
    log = toy_log()
    latent = figures.residual_spectrum_table(log, "contribution")
    assert latent.groupby("stage")["cycles_per_image"].max().to_dict() == {1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 4}
    pixels = figures.residual_spectrum_table(log, "preview change")
    assert pixels["cycles_per_image"].max() == PIXELS / 2
    canvas = figures.residual_spectrum_table(log, "canvas")
    assert canvas[canvas["stage"] == 5]["cycles_per_image"].max() == 3


def test_rows_are_averaged_unless_one_is_named() -> None:
    log = toy_log()
    values = log["token-mse"]["relative_mse"].data[:, :, :, 0]
    both, one = figures.block_token_mse_table(log), figures.block_token_mse_table(log, guidance_row="unconditional")
    assert np.allclose(both["mean"], values.mean((0, 3)).ravel())
    assert np.allclose(one["mean"], values[..., 1].mean(0).ravel())


def test_the_chance_bound_shrinks_with_cells_and_prompts() -> None:
    table = figures.block_edge_correlation_table(toy_log()).set_index(["stage", "block"])["chance"]
    assert table[6, 1] == pytest.approx(1.96 / np.sqrt(63 * 8)) and np.isnan(table[1, 1])


def test_costs_are_shares_of_an_image() -> None:
    table = figures.stage_cost_table(toy_log())
    assert np.allclose(table[table["cost"] == "FLOP"]["mean"], np.arange(1, 7) / 21)
    assert table.groupby("cost")["mean"].sum().round(9).to_dict() == {"FLOP": 1, "time": 1}
    assert set(figures.stage_cost_table(toy_log(stage_seconds=None))["cost"]) == {"FLOP"}


def test_a_picture_is_saturated_once_it_stays_good() -> None:
    log = toy_log(n=3)
    good, bad = 0.95, 0.1
    rows = [[bad, good, bad, bad, good, 1], [bad, good, good, good, good, 1], [bad, bad, bad, bad, bad, 1]]
    log["step-redundancy"]["ssim"].data[:] = rows
    assert redundancy.saturated(log).values.tolist() == [5, 2, 6]
    table = figures.saturation_table(log)
    assert table["saturated"].round(3).tolist() == [0, 0.333, 0.333, 0.333, 0.667, 1]
    assert table["FLOP_left"].iloc[-2:].round(6).tolist() == [round(6 / 21, 6), 0]


def test_maps_hold_every_cell_over_the_mean() -> None:
    log = toy_log()
    table = figures.energy_maps_table(log, [1], [6])
    part = table[table["source"] == "contribution"]
    energy = log["residual-spectrum/stage-06"]["energy"].data[1]
    assert np.allclose(part["energy"], (energy / energy.mean()).ravel())
    assert part[["y", "x"]].iloc[9].tolist() == [1, 1]


def test_pairs_of_maps_and_edges() -> None:
    random = np.random.default_rng(0)
    maps, lines = random.random((3, 40)), np.round(random.random((3, 40)), 1)  # with ties
    shares, ranks = concentrations(maps, lines), rank_correlations(maps, lines)
    for i in range(3):
        for j in range(3):
            wanted = concentration(torch.tensor(maps[i]), torch.tensor(lines[j]))
            assert shares[i, j] == pytest.approx(float(wanted), abs=1e-6)
            assert ranks[i, j] == pytest.approx(spearmanr(maps[i], lines[j]).statistic, abs=1e-6)


def test_a_map_of_one_cell_has_no_rank() -> None:
    assert np.isnan(rank_correlations(np.ones((2, 1)), np.ones((2, 1)))).all()
    pairs = controls.token_edges(toy_log(), toy_images(8))
    assert pairs["own"].sel(stage=1).isnull().all() and pairs["own"].sel(stage=6).notnull().all()


def test_a_picture_without_edges_leaves_the_others_their_control() -> None:
    pictures = toy_images(8)
    pictures[3] = Image.new("RGB", (PIXELS, PIXELS))
    pairs = controls.token_edges(toy_log(), pictures).sel(stage=6)
    assert pairs["own"].isnull().all("block").values.tolist() == [i == 3 for i in range(8)]
    assert pairs["other"].notnull().all()


def test_both_rows_are_averaged_before_they_are_ranked() -> None:
    log, pictures = toy_log(), toy_images(8)
    rows, side = log["token-mse/stage-06"]["mse"].sel(sublayer="block"), SIDES[5]
    edges = logs.edges(np.stack([np.asarray(p, np.float32) / 255 for p in pictures]), (side, side))
    wanted = spearmanr(rows.data[2, 1].mean(0).ravel(), edges[2].ravel()).statistic
    assert controls.token_edges(log, pictures)["own"].sel(stage=6).values[2, 1] == pytest.approx(wanted, abs=1e-6)
    drawn = figures.block_edge_correlation_table(log)
    assert np.allclose(drawn["mean"], log["token-mse"]["edge_correlation_rows"].data[..., 0].mean(0).ravel(),
                       equal_nan=True)  # fmt: skip


def test_own_and_other_edges_are_told_apart() -> None:
    log, pictures = toy_log(), toy_images(8)
    own_edges = logs.edges(np.stack([np.asarray(p, np.float32) / 255 for p in pictures]), (16, 16))
    for k in range(1, 7):
        log[f"residual-spectrum/stage-{k:02d}"]["energy_preview"].data[:] = own_edges
    pairs = controls.energy_edges(log, pictures)
    assert (pairs["own"] > 0.99).all() and (pairs["other"] < 0.4).all()
    table = figures.concentration_table(log, pictures)
    assert table.groupby("edges")["n"].min().to_dict() == {
        "other images, small maps": 8,
        "own image": 8,
        "own image, small maps": 8,
    }


def test_one_name_is_one_number_whether_the_images_are_there_or_not() -> None:
    """The log's concentration comes from whole maps and exact images, the control from small maps and saved ones."""
    log, pictures = toy_log(), toy_images(8)
    for table in (figures.concentration_table, figures.edge_correlation_table, figures.block_edge_correlation_table):
        alone, beside = table(log, None), table(log, pictures)
        own = beside[beside["edges"] == "own image"] if "edges" in beside else beside
        assert own["mean"].tolist() == pytest.approx(alone["mean"].tolist(), nan_ok=True)
    assert sparsevar.changes_on_edges(log, pictures).numbers[0] == sparsevar.changes_on_edges(log).numbers[0]


def test_one_prompt_has_no_other_images() -> None:
    assert controls.token_edges(toy_log(n=1), toy_images(1))["other"].isnull().all()


def test_equal_data_gives_equal_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        figures.save(figures.explained_share(toy_log()), "figure", folder=tmp_path / name)
    for suffix in ("pdf", "png", "csv"):
        one, two = ((tmp_path / name / f"figure.{suffix}").read_bytes() for name in ("first", "second"))
        assert one == two


def test_a_figure_goes_to_the_running_report_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VARLAB_REPORT_FOLDER", raising=False)
    ax = figures.psnr(toy_log())
    figures.save(ax, "psnr")
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("VARLAB_REPORT_FOLDER", str(tmp_path / "report"))
    figures.save(ax, "psnr")
    assert len(os.listdir(tmp_path / "report")) == 3


def test_a_table_of_ones_own_replaces_the_drawn_one(tmp_path: Path) -> None:
    own = pd.DataFrame({"value": [1.5]})
    figures.save(figures.psnr(toy_log()), "psnr", own, tmp_path)
    table = pd.read_csv(tmp_path / "psnr.csv")
    assert table["value"].tolist() == [1.5] and table["weights"].tolist() == ["trained (toy, 123)"]


def test_images_lie_beside_the_store_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pictures = toy_images(2)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / "images" / f"{i:06d}.png")
    folders.write_log(tmp_path, toy_log(n=2))
    log = folders.open_log(tmp_path)
    assert logs.has_images(log) and np.array_equal(logs.images_of(log), logs.images_of(log, pictures))
    assert not logs.has_images(toy_log())
    with pytest.raises(VarlabError, match="images="):
        logs.images_of(toy_log())
    (tmp_path / "images" / "000001.png").unlink()
    with pytest.raises(VarlabError, match="000001"):
        logs.images_of(log)


def test_wrong_names_say_what_is_there() -> None:
    log = toy_log()
    with pytest.raises(VarlabError, match="preview change"):
        figures.residual_spectrum(log, "prewiew")
    with pytest.raises(VarlabError, match="relative_mse"):
        figures.branch_divergence(log, "mse")
    with pytest.raises(VarlabError, match="token-mse"):
        logs.dataset(log, "token-mes")

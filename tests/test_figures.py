"""Figures draw what their tables say, the tables say what the log holds, and nothing hides its weights."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import spearmanr

matplotlib.use("agg")
import matplotlib.pyplot as plt

from varlab import figures
from varlab.analysis import controls, logs, redundancy
from varlab.claims import sparsevar
from varlab.errors import VarlabError
from varlab.figures import style
from varlab.measures.metrics import concentration
from varlab.measures.statistics import bootstrap_interval
from varlab.probes.base import GUIDANCE_ROWS
from varlab.probes.log import interval_names
from varlab.probes.residual_spectrum import BAND_EDGES, SOURCES, SPREADS
from varlab.runs import folders

SUBLAYERS = ("block", "attention", "cross", "ffn")
SIDES = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24)
PIXELS = 32


@pytest.fixture(autouse=True)
def coarse_and_closed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(style.THEME, "savefig.dpi", 40)
    yield
    plt.close("all")


# --- a log made of given means ------------------------------------------------------------------------------


def toy_images(n: int) -> list[Image.Image]:
    """A bright square on black, at a place of its own in each image."""
    pictures = []
    for i in range(n):
        pixels = np.zeros((PIXELS, PIXELS, 3), np.uint8)
        y, x = 2 + 7 * (i % 4), 2 + 7 * (i // 4 % 4)
        pixels[y : y + 6, x : x + 6] = 255
        pictures.append(Image.fromarray(pixels))
    return pictures


class Toy:
    """Draws variables around given means: one per stage, or what the dimensions ask for."""

    def __init__(self, n: int, seed: int, given: dict[str, Any]) -> None:
        self.n, self.random, self.given = n, np.random.default_rng(seed), given

    def make(self, name: str, dims: tuple[str, ...], sizes: tuple[int, ...], mean: Any, noise: float = 0.01) -> Any:
        mean = np.asarray(self.given.get(name, mean), float)
        mean = mean.reshape(mean.shape + (1,) * (len(sizes) - mean.ndim))
        values = np.broadcast_to(mean, sizes) + noise * self.random.standard_normal((self.n, *sizes))
        return (("prompt", *dims), values)


def toy_log(n: int = 8, stages: int = 6, blocks: int = 4, seed: int = 0, **given: Any) -> xr.DataTree:
    """A log with the probes' layout. ``given`` replaces means (``group.variable``) and attributes (no dot)."""
    toy, rise = Toy(n, seed, given), np.linspace(0.2, 0.6, stages)
    at = {"prompt": np.arange(n), "stage": np.arange(1, stages + 1)}
    block = {**at, "block": np.arange(1, blocks + 1)}
    groups = {
        "residual-spectrum": _spectrum(toy, at, stages, rise),
        "token-mse": _tokens(toy, block, stages, blocks),
        "branch-divergence": _branches(toy, block, stages, blocks),
        "step-redundancy": _steps(toy, at, stages),
    }
    for k in range(1, stages + 1):
        place = {"prompt": at["prompt"]}
        energy = {
            "energy": toy.make("energy", ("y", "x"), (8, 8), 1.0),
            "energy_preview": toy.make("energy_preview", ("y_preview", "x_preview"), (16, 16), 1.0),
        }
        groups[f"residual-spectrum/stage-{k:02d}"] = xr.Dataset(energy, place)
        side = SIDES[k - 1]
        maps = toy.make("maps", ("block", "sublayer", "guidance_row", "y", "x"), (blocks, 4, 2, side, side), 1.0)
        at_block = {**place, "block": block["block"], "sublayer": list(SUBLAYERS), "guidance_row": list(GUIDANCE_ROWS)}
        groups[f"token-mse/stage-{k:02d}"] = xr.Dataset({"mse": maps}, at_block)
    tree = xr.DataTree.from_dict({f"/{name}": data for name, data in groups.items()})
    tree.attrs = {
        "model": "toy", "weights": "trained (toy, 123)", "precision": "fp32", "device": "cpu (toy)", "seed": 3,
        "prompt_set": "scenes", "n": n, "prompts": [f"scene {i}" for i in range(n)], "settings": {"cfg": 3.0},
        "schedule": [[side, side] for side in SIDES[:stages]], "key": "abc",
        "stage_seconds": [[1.0 * k for k in range(1, stages + 1)]] * 3,
    } | {key: value for key, value in given.items() if "." not in key}  # fmt: skip
    return tree


def _spectrum(toy: Toy, at: dict[str, Any], stages: int, rise: np.ndarray) -> xr.Dataset:
    by_source = (stages, 5)
    return xr.Dataset(
        {
            "power": toy.make("residual-spectrum.power", ("stage", "source", "radius"), (stages, 5, 23), 1.0),
            "high_frequency_share": toy.make("residual-spectrum.hf", ("stage", "source"), by_source, rise),
            "centroid": toy.make("residual-spectrum.centroid", ("stage", "source"), by_source, 3 * rise),
            "detail_share": toy.make("residual-spectrum.detail", ("stage", "source"), by_source, rise),
            "explained_share": toy.make(
                "residual-spectrum.explained", ("stage", "frequency_band"), (stages, 5), np.linspace(0, 1, stages)
            ),
            "concentration": toy.make("residual-spectrum.concentration", ("stage", "spread"), (stages, 2), rise),
            "edge_correlation": toy.make("residual-spectrum.edges", ("stage", "spread"), (stages, 2), rise),
        },
        {
            **at,
            "source": list(SOURCES),
            "spread": list(SPREADS),
            "frequency_band": interval_names(BAND_EDGES),
            "radius": range(23),
        },
        {
            "nyquist": [side / 2 for side in SIDES[:stages]],
            "band_edges": [str(edge) for edge in BAND_EDGES],
            "preview": "full",
            "preview_pixels": [PIXELS, PIXELS],
        },
    )


def _tokens(toy: Toy, at: dict[str, Any], stages: int, blocks: int) -> xr.Dataset:
    dims, sizes = ("stage", "block", "sublayer", "guidance_row"), (stages, blocks, 4, 2)
    variables = {
        "relative_mse": toy.make("token-mse.relative", dims, sizes, 0.5),
        "edge_correlation": toy.make("token-mse.edges", dims, sizes, 0.0),
        "edge_correlation_rows": toy.make("token-mse.edges", dims[:-1], sizes[:-1], 0.0),
        "relative_step_mse": toy.make("token-mse.step", ("stage", "block"), (stages, blocks), 1.0),
    }
    data = xr.Dataset(variables, {**at, "sublayer": list(SUBLAYERS), "guidance_row": list(GUIDANCE_ROWS)})
    data["edge_correlation"][:, 0] = data["edge_correlation_rows"][:, 0] = np.nan  # one token has no rank
    data["relative_step_mse"][:, 0] = np.nan  # nor a stage before it
    return data


def _branches(toy: Toy, at: dict[str, Any], stages: int, blocks: int) -> xr.Dataset:
    fall, by_block = np.linspace(0.4, 0.1, stages), ("stage", "block")
    variables = {
        "relative_mse": toy.make("branch-divergence.hidden", by_block, (stages, blocks), fall),
        "cosine": toy.make("branch-divergence.cosine", by_block, (stages, blocks), 0.9),
    }
    for name, mean in (("kl", fall), ("flip_share", 0.1), ("guidance_changes", 0.2), ("drawn_differs", 0.3)):
        variables[name] = toy.make(f"branch-divergence.{name}", ("stage",), (stages,), mean)
    return xr.Dataset(variables, at)


def _steps(toy: Toy, at: dict[str, Any], stages: int) -> xr.Dataset:
    near = np.linspace(0.5, 0.9, stages)
    variables = {
        name: toy.make(f"step-redundancy.{name}", ("stage",), (stages,), mean)
        for name, mean in (
            ("ssim", near),
            ("high_frequency_ssim", near),
            ("psnr", 30 * near),
            ("energy_left", 1 - near),
        )
    }
    variables["flops"] = toy.make("step-redundancy.flops", ("stage",), (stages,), np.arange(1, stages + 1), noise=0)
    data = xr.Dataset(variables, at)
    data["ssim"][:, -1], data["psnr"][:, -1] = 1.0, np.inf
    return data


# --- every figure -------------------------------------------------------------------------------------------

LINES: dict[str, tuple[Callable[..., Axes], Callable[..., pd.DataFrame]]] = {
    "residual_spectrum": (figures.residual_spectrum, figures.residual_spectrum_table),
    "high_frequency_share": (figures.high_frequency_share, figures.high_frequency_share_table),
    "wavelet_share": (figures.wavelet_share, figures.wavelet_share_table),
    "spectral_centroid": (figures.spectral_centroid, figures.spectral_centroid_table),
    "explained_share": (figures.explained_share, figures.explained_share_table),
    "concentration": (figures.concentration, figures.concentration_table),
    "edge_correlation": (figures.edge_correlation, figures.edge_correlation_table),
    "block_edge_correlation": (figures.block_edge_correlation, figures.block_edge_correlation_table),
    "sublayer_split": (figures.sublayer_split, figures.sublayer_split_table),
    "branch_divergence": (figures.branch_divergence, figures.branch_divergence_table),
    "prediction_divergence": (figures.prediction_divergence, figures.prediction_divergence_table),
    "guidance_effect": (figures.guidance_effect, figures.guidance_effect_table),
    "similarity": (figures.similarity, figures.similarity_table),
    "psnr": (figures.psnr, figures.similarity_table),
    "energy_left": (figures.energy_left, figures.energy_left_table),
    "saturation": (figures.saturation, figures.saturation_table),
}
OTHERS: dict[str, Callable[..., Axes | Figure]] = {
    "block_token_mse": figures.block_token_mse,
    "step_change": figures.step_change,
    "stage_cost": figures.stage_cost,
    "step_redundancy": figures.step_redundancy,
    "energy_maps": lambda log: figures.energy_maps(log, toy_images(logs.prompt_count(log))),
    "token_maps": lambda log: figures.token_maps(log, toy_images(logs.prompt_count(log))),
    "contact_sheet": lambda log: figures.contact_sheet(log, toy_images(logs.prompt_count(log))),
}
ALL: dict[str, Callable[..., Any]] = {name: pair[0] for name, pair in LINES.items()} | OTHERS


def plotted(ax: Axes) -> set[float]:
    return {round(float(y), 9) for line in ax.lines for y in np.asarray(line.get_ydata(), float)}


@pytest.mark.parametrize("name", LINES)
def test_the_values_drawn_are_those_of_the_table(name: str) -> None:
    draw, tabulate = LINES[name]
    log = toy_log()
    table = tabulate(log)
    if name == "block_edge_correlation":
        table = table[table["stage"] >= 5]
    if name in ("similarity", "psnr"):
        table = table[(table["measure"] == "psnr") == (name == "psnr")]
    if name == "residual_spectrum":
        table = table[table["cycles_per_image"] > 0]
    wanted = {round(float(value), 9) for value in table["mean" if name != "saturation" else "saturated"].dropna()}
    assert wanted and wanted <= plotted(draw(log))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_every_figure_takes_what_was_not_measured_and_says_its_weights(name: str, tmp_path: Path) -> None:
    """Late stages without guidance, tables without second row; three files, weights in each."""
    log = toy_log(weights="random (seed 5)")
    for group in ("branch-divergence", "token-mse"):
        data = log[group].to_dataset()
        for variable in data.data_vars:
            data[variable][
                {"guidance_row": 1} if "guidance_row" in data[variable].dims else {"stage": slice(3, None)}
            ] = np.nan
        log[group].dataset = data
    drawn = ALL[name](log)
    figures.save(drawn, name, folder=tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f"{name}.csv", f"{name}.pdf", f"{name}.png"]
    assert "weights: random (seed 5)" in Image.open(tmp_path / f"{name}.png").info["Description"]
    assert "weights: random (seed 5) · n = 8 · seed 3" in " ".join(style.figure_of(drawn).get_supxlabel().split())
    table = pd.read_csv(tmp_path / f"{name}.csv")
    assert len(table) and set(table["weights"]) == {"random (seed 5)"}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_every_figure_takes_one_prompt(name: str) -> None:
    style.figure_of(ALL[name](toy_log(n=1))).draw_without_rendering()


@pytest.mark.parametrize("name", ["residual_spectrum", "block_token_mse", "block_edge_correlation", "energy_maps"])
def test_a_large_model_fits_the_same_figure(name: str) -> None:
    style.figure_of(ALL[name](toy_log(n=2, stages=13, blocks=32))).draw_without_rendering()


def test_no_figure_changes_the_callers_settings() -> None:
    before = dict(matplotlib.rcParams)
    figures.high_frequency_share(toy_log())
    assert dict(matplotlib.rcParams) == before


def test_an_interactive_backend_stays_interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the inline backend does while it makes its first figure; without it notebooks show no second one."""
    monkeypatch.setitem(matplotlib.rcParams, "interactive", False)
    with style.theme():
        matplotlib.rcParams["interactive"] = True
    assert matplotlib.rcParams["interactive"]


def test_logs_of_two_weights_in_one_figure_both_say_so(tmp_path: Path) -> None:
    axes = figures.panels(2)
    figures.psnr(toy_log(), axes[0])
    figures.psnr(toy_log(weights="random (seed 0)"), axes[1])
    figures.save(axes[0], "both", folder=tmp_path)
    assert all(
        word in Image.open(tmp_path / "both.png").info["Description"]
        for word in ("trained (toy, 123)", "random (seed 0)")
    )
    table = pd.read_csv(tmp_path / "both.csv")
    assert dict(zip(table["panel"], table["weights"], strict=True)) == {
        "psnr": "trained (toy, 123)",
        "psnr (2)": "random (seed 0)",
    }


def without_previews() -> xr.DataTree:
    """As the probe logs it with preview=off."""
    log = toy_log()
    data = log["residual-spectrum"].to_dataset().drop_vars("explained_share")
    for name in ("power", "high_frequency_share", "centroid", "detail_share"):
        data[name][{"source": slice(3, None)}] = np.nan
    log["residual-spectrum"].dataset = data.assign_attrs(preview="off", preview_pixels=[])
    return log


@pytest.mark.parametrize("name", ["high_frequency_share", "wavelet_share", "spectral_centroid"])
def test_shares_without_previews_leave_their_sources_out(name: str) -> None:
    draw, log = LINES[name][0], without_previews()
    ax = draw(log)
    assert not any("preview" in text.get_text() for text in ax.get_legend().get_texts())
    with pytest.raises(VarlabError, match=r"no previews: log it .* without preview=off"):
        draw(log, ["preview change"])


@pytest.mark.parametrize("name", ["residual_spectrum", "explained_share"])
def test_figures_of_previews_say_that_there_are_none(name: str) -> None:
    for function in LINES[name]:
        with pytest.raises(VarlabError, match="no previews"):
            function(without_previews())


# --- tables -------------------------------------------------------------------------------------------------


def test_a_table_has_mean_interval_and_n() -> None:
    log = toy_log()
    values = log["residual-spectrum"]["high_frequency_share"].values[:, :, SOURCES.index("preview change")]
    table = figures.high_frequency_share_table(log, ["preview change"])
    mean, low, high = bootstrap_interval(values)
    assert np.allclose(table["mean"], values.mean(0)) and np.allclose(table["mean"], mean)
    assert np.allclose(table["low"], low) and np.allclose(table["high"], high)
    assert set(table["n"]) == {8} and (table["low"] < table["high"]).all()


def test_missing_and_infinite_values_are_left_out_and_counted() -> None:
    log = toy_log()
    log["step-redundancy"]["psnr"].values[0, 1] = np.nan
    table = figures.similarity_table(log)
    table = table[table["measure"] == "psnr"].set_index("stage")
    assert table["n"].tolist() == [8, 7, 8, 8, 8, 0]
    assert table.loc[2, "mean"] == pytest.approx(log["step-redundancy"]["psnr"].values[1:, 1].mean())
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
    values = log["token-mse"]["relative_mse"].values[:, :, :, 0]
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
    log["step-redundancy"]["ssim"].values[:] = rows
    assert redundancy.saturated(log).values.tolist() == [5, 2, 6]
    table = figures.saturation_table(log)
    assert table["saturated"].round(3).tolist() == [0, 0.333, 0.333, 0.333, 0.667, 1]
    assert table["FLOP_left"].iloc[-2:].round(6).tolist() == [round(6 / 21, 6), 0]


def test_maps_hold_every_cell_over_the_mean() -> None:
    log = toy_log()
    table = figures.energy_maps_table(log, [1], [6])
    part = table[table["source"] == "contribution"]
    energy = log["residual-spectrum/stage-06"]["energy"].values[1]
    assert np.allclose(part["energy"], (energy / energy.mean()).ravel())
    assert part[["y", "x"]].iloc[9].tolist() == [1, 1]


# --- controls -----------------------------------------------------------------------------------------------


def test_pairs_of_maps_and_edges() -> None:
    random = np.random.default_rng(0)
    maps, lines = random.random((3, 40)), np.round(random.random((3, 40)), 1)  # with ties
    shares, ranks = controls.quarter_shares(maps, lines), controls.correlations(maps, lines)
    for i in range(3):
        for j in range(3):
            wanted = concentration(torch.tensor(maps[i]), torch.tensor(lines[j]))
            assert shares[i, j] == pytest.approx(float(wanted), abs=1e-6)
            assert ranks[i, j] == pytest.approx(spearmanr(maps[i], lines[j]).statistic, abs=1e-6)


def test_a_map_of_one_cell_has_no_rank() -> None:
    assert np.isnan(controls.correlations(np.ones((2, 1)), np.ones((2, 1)))).all()
    pairs = controls.token_edges(toy_log(), toy_images(8))
    assert pairs["own"].sel(stage=1).isnull().all() and pairs["own"].sel(stage=6).notnull().all()


def test_pairs_in_parts_equal_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, lines = np.random.default_rng(0).random((2, 5, 40))
    whole = controls.correlations(maps, lines)
    monkeypatch.setattr(controls, "LARGEST", 400)
    assert np.array_equal(controls.correlations(maps, lines), whole)


def test_a_picture_without_edges_leaves_the_others_their_control() -> None:
    pictures = toy_images(8)
    pictures[3] = Image.new("RGB", (PIXELS, PIXELS))
    pairs = controls.token_edges(toy_log(), pictures).sel(stage=6)
    assert pairs["own"].isnull().all("block").values.tolist() == [i == 3 for i in range(8)]
    assert pairs["other"].notnull().all()


def test_both_rows_are_averaged_before_they_are_ranked() -> None:
    log, pictures = toy_log(), toy_images(8)
    rows = log["token-mse/stage-06"]["mse"].sel(sublayer="block")
    edges = logs.edges(np.stack([np.asarray(p, np.float32) / 255 for p in pictures]), rows.shape[-2:])
    wanted = spearmanr(rows.values[2, 1].mean(0).ravel(), edges[2].ravel()).statistic
    assert controls.token_edges(log, pictures)["own"].sel(stage=6).values[2, 1] == pytest.approx(wanted, abs=1e-6)
    drawn = figures.block_edge_correlation_table(log)
    assert np.allclose(drawn["mean"], log["token-mse"]["edge_correlation_rows"].values[..., 0].mean(0).ravel(),
                       equal_nan=True)  # fmt: skip


def test_own_and_other_edges_are_told_apart() -> None:
    log, pictures = toy_log(), toy_images(8)
    own_edges = logs.edges(np.stack([np.asarray(p, np.float32) / 255 for p in pictures]), (16, 16))
    for k in range(1, 7):
        log[f"residual-spectrum/stage-{k:02d}"]["energy_preview"].values[:] = own_edges
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


# --- saving, places, names ----------------------------------------------------------------------------------


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
    folders.keep(tmp_path, toy_log(n=2))
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

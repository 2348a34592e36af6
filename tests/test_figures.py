"""Figures draw what their tables say, the tables say what the log holds, and nothing hides its weights."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt

from tests.toy_logs import toy_images, toy_log
from varlab import figures
from varlab.analysis import logs
from varlab.errors import VarlabError
from varlab.figures import style
from varlab.figures.save import merged
from varlab.figures.tokens import _short


@pytest.fixture(autouse=True)
def coarse_and_closed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(style.THEME, "savefig.dpi", 40)
    yield
    plt.close("all")


# --- a log made of given means ------------------------------------------------------------------------------


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
    lines = [np.asarray(line.get_ydata(), float) for line in ax.lines]
    fields = [np.asarray(mesh.get_array(), float).ravel() for mesh in ax.collections if isinstance(mesh, QuadMesh)]
    return {round(float(y), 9) for values in (*lines, *fields) for y in values}


def test_blocks_are_named_by_edges_only_where_these_chose_them() -> None:
    def titles(log: xr.DataTree) -> str:
        drawn = figures.token_maps(log, toy_images(logs.prompt_count(log)), prompts=[0])
        return " ".join(text.get_text() for text in drawn.axes[0].texts)

    log = toy_log()
    assert "most on edges" in titles(log)
    log["token-mse"]["edge_correlation_rows"].data[...] = np.nan
    assert "on edges" not in titles(log)


def test_numbers_in_maps_are_as_short_as_two_digits_are() -> None:
    values = (0.0, 0.0012, 0.5, 4, 9.99, 42.4, 99.6, 152, 1234, 0.00012, np.nan)
    assert [*map(_short, values)] == ["0", ".0012", ".50", "4.0", "10", "42", "100", "150", "1e3", "1e-4", ""]
    log = toy_log()
    for stage in log["token-mse"].children.values():
        stage["mse"].data[..., 0, 0] *= 1e4  # one token changes, and hardly another
    drawn = figures.token_maps(log, toy_images(logs.prompt_count(log)), prompts=[0])
    spreads = [text.get_text() for text in drawn.axes[0].texts if text.get_text().startswith("sd")]
    assert spreads and all(re.fullmatch(r"sd [1-9]\d0 %", spread) for spread in spreads)


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
def test_every_figure_takes_what_was_not_measured_and_says_its_weights(name: str) -> None:
    """Late stages without guidance, tables without second row; weights under the figure and in what is saved of it."""
    log = toy_log(weights="random (seed 5)")
    for group in ("branch-divergence", "token-mse"):
        data = log[group].to_dataset()
        for variable in data.data_vars:
            data[variable][
                {"guidance_row": 1} if "guidance_row" in data[variable].dims else {"stage": slice(3, None)}
            ] = np.nan
        log[group].dataset = data
    figure = style.figure_of(ALL[name](log))
    figure.draw_without_rendering()
    assert "weights: random (seed 5)" in style.kept(figure).line
    assert "weights: random (seed 5) · n = 8 · seed 3" in " ".join(figure.get_supxlabel().split())
    table = merged(style.kept(figure).tables)
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
    assert sorted(os.listdir(tmp_path)) == ["both.csv", "both.pdf", "both.png"]
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
    legend = ax.get_legend()
    assert legend and not any("preview" in text.get_text() for text in legend.get_texts())
    with pytest.raises(VarlabError, match=r"no previews: log it .* without preview=off"):
        draw(log, ["preview change"])


@pytest.mark.parametrize("name", ["residual_spectrum", "explained_share"])
def test_figures_of_previews_say_that_there_are_none(name: str) -> None:
    for function in LINES[name]:
        with pytest.raises(VarlabError, match="no previews"):
            function(without_previews())


# --- tables -------------------------------------------------------------------------------------------------


# --- controls -----------------------------------------------------------------------------------------------


# --- saving, places, names ----------------------------------------------------------------------------------


def test_what_is_said_of_the_line_stands_clear_of_the_legend() -> None:
    """The picture of an untrained model is done late: its curve left the legend no place but on "done: 0.88"."""
    log = toy_log(n=4)
    ssim = log["step-redundancy"]["ssim"]
    log["step-redundancy"]["ssim"] = ssim.where(ssim.stage == ssim.stage[-1], 0.1)
    ax = figures.similarity(log)
    style.figure_of(ax).draw_without_rendering()
    legend = ax.get_legend()
    assert legend is not None and not legend.get_window_extent().overlaps(ax.bbox)
    plt.close()

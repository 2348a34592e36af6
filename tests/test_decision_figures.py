"""Figures of what methods decided: their numbers are the log's, and they draw."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from varlab import figures
from varlab.analysis.decisions import decision_regions
from varlab.claims.methods import matched_baselines
from varlab.claims.published import COLUMNS, published
from varlab.errors import VarlabError
from varlab.figures.decisions import _draw_regions

FACTS = {
    "model": "toy", "weights": "random (seed 0)", "precision": "fp32", "device": "cpu", "prompt_set": "custom",
    "seed": 0, "settings": {"cfg": 2.0}, "schedule": [[1, 1], [2, 2], [4, 4]],
    "prompts": ["a star", "a ring", "a cross"],
}  # fmt: skip
PICTURES = [Image.fromarray(np.full((16, 16, 3), 60 * i, np.uint8)) for i in range(3)]


def maps(side: int, *rows: float) -> tuple[tuple[str, str, str], np.ndarray]:
    """A map a prompt, constant but for its first cell, which is 1."""
    values = np.ones((len(rows), side, side)) * np.array(rows)[:, None, None]
    values[:, 0, 0] = np.where(np.isnan(rows), np.nan, 1)
    return ("prompt", "y", "x"), values


@pytest.fixture
def pruned() -> xr.DataTree:
    """The third image stopped before the last stage."""
    first = xr.Dataset({"kept": maps(2, 0.0, 1.0, 0.0), "score": maps(2, 0.5, 1.0, 2.0)}, {"prompt": range(3)})
    last = xr.Dataset({"kept": maps(4, 0.0, 0.0, np.nan), "score": maps(4, 0.5, 1.0, np.nan)}, {"prompt": range(3)})
    base = xr.Dataset({"share": (("prompt", "stage"), np.ones((3, 3)))}, {"prompt": range(3)})
    tree = xr.DataTree.from_dict({"/sparsevar": base, "/sparsevar/stage-02": first, "/sparsevar/stage-03": last})
    tree.attrs = FACTS
    return tree


@pytest.fixture
def decided() -> xr.DataTree:
    sure = np.array([[0.1, 0.2, 0.7, 0.0], [0.9, 0.1, 0.0, 0.0], [np.nan] * 4])
    data = {
        "hf_diff": ("prompt", [0.1, 0.3, np.nan]), "hf_ratio": ("prompt", [0.4, 0.5, np.nan]),
        "drop": ("prompt", [2, 0, np.nan]), "replace": ("prompt", [0, 3, np.nan]),
        "drop_probability": (("prompt", "stages"), sure),
        "replace_probability": (("prompt", "stages"), np.full((3, 4), 0.25)),
    }  # fmt: skip
    told = {"decision_model": {"accuracy": [{"target": 0.86, "model": "drop", "accuracy": 0.7, "majority": 0.6}]}}
    tree = xr.DataTree.from_dict({"/skipvar": xr.Dataset(data, {"prompt": range(3)}, told)})
    tree.attrs = FACTS
    return tree


def test_the_share_of_a_stage_is_the_mean_over_the_images_that_ran_it(pruned: xr.DataTree) -> None:
    table = figures.kept_share_table(pruned).set_index("stage")
    assert table["mean"].tolist() == pytest.approx([0.5, 1 / 16]) and table.n.tolist() == [3, 2]
    assert matched_baselines(pruned) == [
        f"{name}:keep=0.5/0.062,last=2" for name in ("random-tokens", "uniform-tokens", "oracle-tokens")
    ]


def test_keep_maps_hold_every_cell(pruned: xr.DataTree, tmp_path: Path) -> None:
    table = figures.keep_maps_table(pruned)
    assert len(table) == 3 * (4 + 16) and set(table.columns) >= {"prompt", "stage", "y", "x", "kept", "score"}
    assert table[(table.prompt == 1) & (table.stage == 3)].kept.sum() == 1
    figures.save(figures.keep_maps(pruned, PICTURES, PICTURES), "keep_maps", folder=tmp_path)
    figures.save(figures.keep_maps(pruned, PICTURES, prompts=[2]), "alone", folder=tmp_path)
    pruned.attrs["accelerators"] = ["sparsevar:keep=0.5"]
    titles = [text.get_text() for text in figures.keep_maps(pruned, PICTURES, PICTURES).axes[0].texts]
    assert {"dense", "sparsevar:\nkeep=0.5"} <= set(titles)
    assert (tmp_path / "keep_maps.png").stat().st_size > 5000 and (tmp_path / "alone.png").stat().st_size > 5000


def test_grey_is_explained_where_a_shown_prompt_has_some(pruned: xr.DataTree) -> None:
    pruned["sparsevar/stage-02"].kept[2, 1, 1] = 0.25
    about = [figures.keep_maps(pruned, PICTURES, prompts=[p]).get_suptitle() for p in (0, 2)]
    assert ["grey" in text for text in about] == [False, True] and "sublayers" in about[1]


def test_a_decision_is_told_with_the_probability_of_the_model_that_took_it(
    decided: xr.DataTree, tmp_path: Path
) -> None:
    table = figures.decisions_table(decided)
    assert table.decision.tolist() == ["drop 2", "replace 3"]  # the third image stopped before
    assert table.probability.tolist() == [0.7, 0.25] and table.text.tolist() == ["a star", "a ring"]
    assert figures.accuracy_table(decided).majority.tolist() == [0.6]
    figures.save(figures.decisions(decided), "decisions", folder=tmp_path)
    assert (tmp_path / "decisions.png").stat().st_size > 5000


def test_regions_are_what_the_models_say_of_any_features(decided: xr.DataTree, tmp_path: Path) -> None:
    """The first model drops 2 stages up to hf_diff .2; beyond it the second replaces 3 from hf_ratio .45 on."""
    skip = {"mean": [0.1, 0.0], "scale": [0.5, 1.0], "coef": [[-2.0, 0.0]], "intercept": [0.4], "classes": [0, 2]}
    uncond = {"mean": [0.0, 0.45], "scale": [1.0, 1.0], "coef": [[0.0, 1.0]], "intercept": [0.0], "classes": [0, 3]}
    decided["skipvar"].attrs["decision_model"] |= {"skip": skip, "uncond": uncond}
    table = decision_regions(decided, side=41)
    assert table is not None and len(table) == 41**2
    for row in table.itertuples():
        beyond = "replace 3" if row.hf_ratio > 0.45 else "dense"
        assert row.decision == ("drop 2" if row.hf_diff < 0.2 else beyond), row
    figures.save(figures.decisions(decided), "decisions", folder=tmp_path)
    points = figures.decisions(decided).axes[0]
    assert {text.get_text() for text in points.texts} == {"drop 2", "replace 3", "dense"}
    legend = points.get_legend()  # names each colour behind the points, those without a point too
    assert legend and [text.get_text() for text in legend.get_texts()] == ["dense (0)", "drop 2 (1)", "replace 3 (1)"]


def test_a_log_without_decisions_is_told(pruned: xr.DataTree, decided: xr.DataTree) -> None:
    with pytest.raises(VarlabError, match="nothing of tokens left out"):
        figures.keep_maps(decided, PICTURES)
    with pytest.raises(VarlabError, match="'skipvar'"):
        figures.decisions(pruned)


def test_a_calibration_is_drawn(pruned: xr.DataTree, tmp_path: Path) -> None:
    shares = pd.DataFrame(
        [
            {"norm": norm, "root": False, "block": block, "distance": 0.1 * block}
            | {f"below {tau}{end}": 0.5 for tau in (0.4, 0.6) for end in ("", " low", " high")}
            for norm in ("mean", "max")
            for block in (0, 1)
        ]
    )
    figures.save(figures.readings(shares, (0.2, 0.8), pruned), "readings", folder=tmp_path)
    edges = pd.DataFrame({"block": [0, 1], "correlation": [0.5, -0.2]})
    edges[["correlation low", "correlation high"]] = [[0.4, 0.6], [-0.3, -0.1]]
    figures.save(figures.block_edges(edges, pruned), "block_edges", folder=tmp_path)
    assert (tmp_path / "readings.png").stat().st_size > 5000 and (tmp_path / "block_edges.csv").exists()


def test_readings_that_lie_on_one_another_are_one_line_with_all_names(pruned: xr.DataTree) -> None:
    values = {"mean": 0.0, "computed-mean": 0.004, "max": 0.01, "sigmoid": 0.5}
    rows = [
        {"norm": norm, "root": False, "block": 1, "distance": 0.1}
        | {f"below {tau}{end}": value for tau in (0.4, 0.6) for end in ("", " low", " high")}
        for norm, value in values.items()
    ]
    axes = figures.readings(pd.DataFrame(rows), (0.2, 0.8), pruned).axes[0]
    assert [line.get_label() for line in axes.lines] == [
        "published", "mean (block 1),\ncomputed-mean (block 1),\nmax (block 1)", "sigmoid (block 1)"
    ]  # fmt: skip
    assert [list(line.get_ydata()) for line in axes.lines][1:] == [[0, 0], [0.5, 0.5]]  # type: ignore[arg-type]


def test_what_is_published_has_a_source_and_a_model() -> None:
    table = published()
    assert list(table.columns) == COLUMNS and (table.source != "").all() and (table.model != "").all()
    assert set(published("skipvar").method) == {"skipvar"}
    with pytest.raises(VarlabError, match="Did you mean sparsevar"):
        published("sparsvar")


def test_a_published_speed_up_is_the_ratio_of_the_seconds_in_its_source() -> None:
    timed = published()
    timed = timed.join(timed.source.str.extract(r"\(([\d.]+) -> ([\d.]+) m?s\)").astype(float)).dropna()
    assert len(timed[timed.method == "sparsevar"]) == len(published("sparsevar"))
    for row in timed.itertuples():
        before, after = row[-2:]
        assert float(row[4]) == pytest.approx(before / after, abs=0.01), row.source


def test_the_name_of_a_region_lies_on_no_point() -> None:
    """Where there is no room the legend alone says what the colour means."""
    grid = [(x / 20, y / 20) for x in range(21) for y in range(21)]
    regions = pd.DataFrame(grid, columns=["hf_diff", "hf_ratio"])
    regions["decision"] = np.where((regions.hf_diff < 0.24) & (regions.hf_ratio < 0.24), "drop 3", "drop 2")
    styles = {"drop 2": ("#000000", "s"), "drop 3": ("#0000ff", "s")}
    for points, names in (([(0.1, 0.1)], {"drop 2"}), ([(0.9, 0.9)], {"drop 2", "drop 3"})):
        _, ax = plt.subplots()
        _draw_regions(ax, regions, pd.DataFrame(points, columns=["hf_diff", "hf_ratio"]), styles)
        assert {text.get_text() for text in ax.texts} == names
        plt.close()

"""What a method decided: which tokens it computed, over the picture, and what it left out of which image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from varlab.analysis.decisions import decision_regions, pruned_stages, pruning_method
from varlab.analysis.logs import Images, Log, as_log, dataset, grids, images_of, present
from varlab.figures.mosaic import Mosaic, mosaic
from varlab.figures.style import (
    ENERGY,
    INK,
    MARKERS,
    PAGE,
    SOFT,
    figure_of,
    finish,
    halo,
    panels,
    stage_title,
    theme,
)
from varlab.figures.text import briefer, wrapped

OUT = np.array(to_rgb("#f2f2f2"))  # veil over tokens that were left out
VEIL = 0.85
DROPPED, REPLACED = ("#9ecae1", "#3182bd", "#08306b"), ("#fdbe85", "#e6550d", "#7f2704")  # 1, 2, 3 stages
SHOWN = 14  # prompts that the bars name
ROOM = 0.08  # of the axes, to the next point: less than that a name of a region would lie on


def keep_maps_table(log: Log, prompts: Sequence[int] = (0, 1, 2)) -> pd.DataFrame:
    """The cells of the maps: prompt, stage, y, x, kept (1: computed) and, of methods that score, score."""
    parts = []
    for k in pruned_stages(log):
        for p in present(log, prompts):
            data = dataset(log, f"{pruning_method(log)}/stage-{k:02d}").isel(prompt=p)
            names = [name for name in ("kept", "score") if name in data]
            parts.append(data.to_dataframe().reset_index()[["y", "x", *names]].assign(prompt=p, stage=k))
    return pd.concat(parts, ignore_index=True)


@theme()
def keep_maps(log: Log, images: Images = None, dense: Images = None, prompts: Sequence[int] = (0, 1, 2)) -> Figure:
    """Which tokens did a method compute? The others are veiled; of FastVAR the share of sub-layers that did without.

    One row per prompt: the dense picture, the method's, the tokens of each pruned stage; beside them, of a method that
    scores tokens, the scores that decided: over their mean, or on the scale of tau.
    """
    stages, chosen = pruned_stages(log), present(log, prompts)
    names = [
        name for name in ("kept", "score") if name in dataset(log, f"{pruning_method(log)}/stage-{stages[-1]:02d}")
    ]
    pictures = ([] if dense is None else [images_of(log, dense)]) + [images_of(log, images)]
    columns = [(k, name) for k in stages for name in names]
    scale = _score_scale(log, stages, chosen) if "score" in names else None
    sheet = _fields(len(chosen), len(pictures) + len(columns), pictures[-1][chosen[0]])
    for row, p in enumerate(chosen):
        sheet.name(row, f"prompt {p}")
        for column, whole in enumerate(pictures):
            sheet.picture(row, column, whole[p])
        for column, (k, name) in enumerate(columns, len(pictures)):
            values = _maps(log, k, name).isel(prompt=p).values
            if name == "kept":
                _draw_kept(sheet, row, column, pictures[-1][p], values)
            else:
                sheet.picture(row, column, values, cmap=ENERGY, norm=scale)
    titles = ["dense", _method(log, 16)][-len(pictures) :]
    for k, name in columns:
        titles.append(f"stage {stage_title(k, grids(log))}\n{'computed' if name == 'kept' else name}")
    for column, title in enumerate(titles):
        sheet.title(column, title)
    if scale is not None:
        sheet.bar(scale, ENERGY, "score of a token", "both")
    sheet.figure.suptitle(_about_veil(log, stages, chosen), x=0.01, ha="left", fontsize=6.5)
    return finish(sheet.figure, log, "keep_maps", keep_maps_table(log, chosen))


def _about_veil(log: Log, stages: Sequence[int], prompts: Sequence[int]) -> str:
    kept = np.concatenate([_maps(log, k, "kept").isel(prompt=list(prompts)).values.ravel() for k in stages])
    grey = ", grey: by some blocks or sublayers" if bool(((kept > 0) & (kept < 1)).any()) else ""
    return f"White: tokens left out{grey}; below: share computed"


def _method(log: Log, letters: int) -> str:
    """The spec of the run in lines of so many letters."""
    return wrapped(briefer("+".join(as_log(log).attrs.get("accelerators") or ["method"])), letters, lines=4)


def _score_scale(log: Log, stages: Sequence[int], prompts: Sequence[int]) -> Normalize:
    """One scale for all maps of a figure, from the half per cent of lowest to that of highest scores."""
    shown = [_maps(log, k, "score").isel(prompt=list(prompts)).values.ravel() for k in stages]
    return Normalize(*np.nanquantile(np.concatenate(shown), [0.005, 0.995]))


def _fields(rows: int, columns: int, picture: np.ndarray) -> Mosaic:
    """As large as a page allows and at most an inch and a quarter, with room below each."""
    side = min((PAGE - 0.9) / columns, 1.25)
    return mosaic(rows, columns, side, 0.9, shape=picture.shape, gap=0.03, between=0.11)


def _draw_kept(sheet: Mosaic, row: int, column: int, picture: np.ndarray, kept: np.ndarray) -> None:
    """The picture under a veil where tokens were left out; a stage that did not run is empty."""
    if np.isnan(kept).all():
        sheet.not_run(row, column)
        return
    height, width = picture.shape[:2]
    rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), kept.shape, strict=True))
    out = VEIL * (1 - kept[rows][:, columns, None])
    sheet.picture(row, column, picture * (1 - out) + OUT * out)
    sheet.below(row, column, f"{100 * kept.mean():.0f} %")


def _maps(log: Log, stage: int, name: str) -> Any:
    return dataset(log, f"{pruning_method(log)}/stage-{stage:02d}")[name]


def decisions_table(log: Log) -> pd.DataFrame:
    """SkipVAR by prompt: text, both features, what was decided, and how probable the model found that."""
    data = dataset(log, "skipvar")
    texts, rows = as_log(log).attrs.get("prompts", []), []
    for i, number in enumerate(data.prompt.values.tolist()):
        one = data.isel(prompt=i)
        if np.isnan(float(one["drop"])):  # stopped before the decision
            continue
        drop, replace = int(one["drop"]), int(one["replace"])
        kind, count = ("drop", drop) if drop else ("replace", replace)
        rows.append(
            {
                "prompt": number,
                "text": texts[number] if number < len(texts) else "",
                "hf_diff": float(one.hf_diff),
                "hf_ratio": float(one.hf_ratio),
                "decision": f"{kind} {count}" if count else "dense",
                "probability": float(one[f"{kind}_probability"][count]),
                **{f"drop {n}": float(p) for n, p in enumerate(one.drop_probability.values)},
            }
        )
    return pd.DataFrame(rows)


@theme()
def decisions(log: Log) -> Figure:
    """What does SkipVAR read, and what does it decide? Left: one point per image; right: how sure the first model is.

    Behind the points what the two decision models would say of any pair of features, where the log holds them.
    """
    table = decisions_table(log)
    points, bars = panels(2, width=PAGE, height=3.0)
    regions = decision_regions(log)
    styles = {"dense": (INK, MARKERS[0])}
    styles |= {f"drop {n}": (colour, MARKERS[1]) for n, colour in enumerate(DROPPED, 1)}
    styles |= {f"replace {n}": (colour, MARKERS[2]) for n, colour in enumerate(REPLACED, 1)}
    if regions is not None:
        _draw_regions(points, regions, table, styles)
    possible = set() if regions is None else set(regions.decision)
    for name, (colour, marker) in styles.items():
        part = table[table.decision == name]
        if len(part) or name in possible:
            points.scatter(
                part.hf_diff, part.hf_ratio, s=22, color=colour, marker=marker, ec="white", lw=0.4,
                label=f"{name} ({len(part)})",
            )  # fmt: skip
    points.set(xlabel="HF_Diff: change of edges", ylabel="HF_Ratio: share of high frequencies")
    points.legend(
        title=f"{_method(log, 40)}: decision (images)",
        ncols=3,
        handlelength=1.2,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    shown = table.head(SHOWN)
    left = np.zeros(len(shown))
    for n, colour in enumerate(("#bdbdbd", *DROPPED)):
        width = shown[f"drop {n}"].to_numpy()
        bars.barh(np.arange(len(shown)), width, left=left, color=colour, height=0.74, label=f"{n}")
        left += width
    labels = [wrapped(f"{p}: {text}", 34, lines=1) for p, text in zip(shown.prompt, shown.text, strict=True)]
    bars.set_yticks(range(len(shown)), labels, fontsize=5.5)
    bars.invert_yaxis()
    rest = f" (the first {len(shown)} of {len(table)} prompts)" if len(shown) < len(table) else ""
    bars.set(xlim=(0, 1), xlabel=f"probability{rest}")
    bars.legend(title="final stages dropped", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure_of(finish(points, log, "decisions", table))


def _draw_regions(ax: Axes, regions: pd.DataFrame, points: pd.DataFrame, styles: Mapping[str, tuple[str, str]]) -> None:
    """The decision for every pair of features, faint and named beside the points, with a line where it changes."""
    grid = regions.pivot(index="hf_ratio", columns="hf_diff", values="decision")
    codes = grid.map(list(styles).index).to_numpy(float)
    for code in np.unique(codes):
        tint = ListedColormap([(*to_rgb(list(styles.values())[int(code)][0]), 0.16)])
        ax.pcolormesh(grid.columns, grid.index, np.where(codes == code, 1.0, np.nan), cmap=tint, rasterized=True)
        if len(np.unique(codes)) > 1:
            ax.contour(
                grid.columns, grid.index, (codes == code).astype(float), levels=[0.5], colors=INK, linewidths=0.7
            )
    for decision, part in regions.groupby("decision"):
        if len(part) > 0.02 * len(regions):
            place, room = _freest(part, pd.concat([points, regions[regions.decision != decision]]), regions)
            if room > ROOM:
                ax.annotate(str(decision), place, ha="center", va="center", fontsize=6, color=SOFT, path_effects=halo())


def _freest(cells: pd.DataFrame, taken: pd.DataFrame, whole: pd.DataFrame) -> tuple[tuple[float, float], float]:
    """The cell of a region that is farthest from points, from other regions and from the edges, and how far that is."""
    from scipy.spatial import KDTree

    axes = ["hf_diff", "hf_ratio"]
    low, span = whole[axes].min().to_numpy(), np.ptp(whole[axes].to_numpy(), axis=0)
    spots, others = ((some[axes].to_numpy() - low) / span for some in (cells, taken))
    near, _ = KDTree(others).query(spots, distance_upper_bound=1.0)  # a table of all distances takes a gigabyte
    room = np.minimum(near, np.minimum(spots, 1 - spots).min(1))
    cell = cells.iloc[int(room.argmax())]
    return (float(cell.hf_diff), float(cell.hf_ratio)), float(room.max())

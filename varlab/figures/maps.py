"""Maps beside the picture: where a stage's energy falls, where a block changes its tokens. These return a Figure.

One colour scale serves all maps of a figure: energy over the map's mean (1 is an even spread), the change of
tokens in standard deviations from the map's mean, since blocks differ in contrast by orders of magnitude.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from varlab.analysis.logs import (
    Images,
    Log,
    both_rows,
    dataset,
    edges,
    grids,
    images_of,
    late_stages,
    pick,
    present,
    stage_count,
)
from varlab.analysis.tokens import edge_correlations, extreme_blocks
from varlab.figures.mosaic import Mosaic, mosaic
from varlab.figures.style import (
    ENERGY,
    PAGE,
    finish,
    stage_name,
    stage_title,
    theme,
    two_digits,
)

SOURCES = ("contribution", "preview change")
GAP, NAME = 0.04, 0.14  # inches: between fields, and what a name between them takes
MOST_STAGES = 7  # columns that a page's width can show
ENERGY_SCALE = PowerNorm(0.5, 0, 9)  # over the mean of the map; by the root, since few cells hold most
CHANGE_SCALE = Normalize(-2, 2.5)  # standard deviations


def energy_maps_table(
    log: Log, prompts: Sequence[int] = (0, 1), stages: Sequence[int] | None = None, sources: Sequence[str] = SOURCES
) -> pd.DataFrame:
    """The cells of the maps: prompt, source, stage, y, x, energy (1 is the map's own mean)."""
    shown = present(log, prompts), stages or spread_out(stage_count(log))
    keys = [(p, source, k) for p in shown[0] for source in sources for k in shown[1]]
    return _cells(keys, [_energy(log, *key) for key in keys], ("prompt", "source", "stage"), "energy")


@theme()
def energy_maps(
    log: Log,
    images: Images = None,
    prompts: Sequence[int] = (0, 1),
    stages: Sequence[int] | None = None,
    sources: Sequence[str] = SOURCES[1:],
) -> Figure:
    """Where does the energy of each stage fall? One row per prompt and source, after the final image and its edges.

    The preview change of stage 1 is against mid-grey. The latent contribution of a BSQ tokenizer is flat at the last
    stages whatever the model does; ``sources`` asks for it.
    """
    chosen, shown = present(log, prompts), list(stages or spread_out(stage_count(log)))
    pictures = images_of(log, images)
    rows = [(p, source) for p in chosen for source in sources]
    titles = [f"stage {stage_name(k, grids(log))}" for k in shown]
    sheet = _sheet(len(rows), titles, pictures[chosen[0]], apart={2: NAME} if len(sources) > 1 else {})
    for row, (p, source) in enumerate(rows):
        _picture(sheet, row, pictures[p], p)
        for column, k in enumerate(shown, 2):
            sheet.picture(row, column, _energy(log, p, source, k), cmap=ENERGY, norm=ENERGY_SCALE)
        if len(sources) > 1:
            sheet.name(row, source, column=2)
    sheet.bar(ENERGY_SCALE, ENERGY, "energy over the map's mean", "max", ticks=[0, 1, 4, 9])
    return finish(sheet.figure, log, "energy_maps", energy_maps_table(log, chosen, shown, sources))


def token_maps_table(
    log: Log,
    prompts: Sequence[int] = (0, 1, 2),
    blocks: Sequence[int] | None = None,
    stages: Sequence[int] | None = None,
    guidance_row: str = "both",
) -> pd.DataFrame:
    """The cells of the maps: prompt, block, stage, y, x, change (relative to the map's own mean of 1)."""
    chosen, shown, at = present(log, prompts), blocks or extreme_blocks(log), stages or _last_two(log)
    keys = [(p, b, k) for p in chosen for b in shown for k in at]
    maps = [_change(log, *key, guidance_row) for key in keys]
    return _cells(keys, maps, ("prompt", "block", "stage"), "change")


@theme()
def token_maps(
    log: Log,
    images: Images = None,
    prompts: Sequence[int] = (0, 1, 2),
    blocks: Sequence[int] | None = None,
    stages: Sequence[int] | None = None,
    guidance_row: str = "both",
) -> Figure:
    """Which tokens does a block change most? By default the block closest to edges and the one farthest from them.

    The two blocks are chosen by their mean correlation with edges at the last stages; see
    ``block_edge_correlation`` for all blocks and intervals. ``blocks=vl.figures.poster_blocks(log)`` takes those at
    the depth of the two on SparseVAR's poster.
    """
    chosen, shown = present(log, prompts), list(blocks or extreme_blocks(log))
    at, pictures = list(stages or _last_two(log)), images_of(log, images)
    columns = [(b, k) for b in shown for k in at]
    late = edge_correlations(log).sel(stage=late_stages(stage_count(log)))
    names = ("\nmost on edges", "\nleast on edges") if not blocks and bool(late.notnull().any()) else ()
    about = dict(zip(shown, names, strict=False))
    titles = [f"block {b}{about.get(b, '')}\n{_stage_title(log, k)}" for b, k in columns]
    sheet = _sheet(len(chosen), titles, pictures[chosen[0]], between=0.11)
    for row, p in enumerate(chosen):
        _picture(sheet, row, pictures[p], p)
        for column, (b, k) in enumerate(columns, 2):
            values = _change(log, p, b, k, guidance_row)
            scaled = (values - 1) / max(values.std(), 1e-12)
            sheet.picture(row, column, scaled, cmap=ENERGY, norm=CHANGE_SCALE)
            sheet.below(row, column, f"sd {two_digits(100 * values.std())} %")
    label = "change above the map's mean, in standard deviations (sd: in % of the mean)"
    sheet.bar(CHANGE_SCALE, ENERGY, label, "max")
    return finish(sheet.figure, log, "token_maps", token_maps_table(log, chosen, shown, at, guidance_row))


def spread_out(stages: int, most: int = MOST_STAGES) -> list[int]:
    """At most ``most`` stages, first and last among them, evenly spaced."""
    return sorted({round(float(k)) for k in np.linspace(1, stages, min(most, stages))})


def _last_two(log: Log) -> list[int]:
    return late_stages(stage_count(log))[-2:]


def _energy(log: Log, prompt: int, source: str, k: int) -> np.ndarray:
    name = "energy" if source == "contribution" else "energy_preview"
    return _over_mean(dataset(log, f"residual-spectrum/stage-{k:02d}")[name].isel(prompt=prompt))


def _change(log: Log, prompt: int, block: int, k: int, guidance_row: str) -> np.ndarray:
    maps = pick(dataset(log, f"token-mse/stage-{k:02d}")["mse"].isel(prompt=prompt), sublayer="block")
    return _over_mean(both_rows(maps.sel(block=block), guidance_row))


def _over_mean(values: xr.DataArray) -> np.ndarray:
    return (values / values.mean()).values


def _cells(keys: Sequence[tuple[Any, ...]], maps: Sequence[np.ndarray], axes: Sequence[str], name: str) -> pd.DataFrame:
    parts = []
    for key, values in zip(keys, maps, strict=True):
        y, x = np.indices(values.shape).reshape(2, -1)
        head = {axis: [part] * values.size for axis, part in zip(axes, key, strict=True)}
        parts.append(pd.DataFrame({**head, "y": y, "x": x, name: values.ravel()}))
    return pd.concat(parts, ignore_index=True)


def _sheet(
    rows: int,
    titles: Sequence[str],
    picture: np.ndarray,
    between: float = 0.0,
    apart: Mapping[int, float] | None = None,
) -> Mosaic:
    """Fields of the shape of a picture across a page: a picture, its edges, and maps under their titles."""
    columns = 2 + len(titles)
    side = (PAGE - 0.9 - sum((apart or {}).values())) / columns - GAP
    sheet = mosaic(rows, columns, side, 0.9, shape=picture.shape, gap=GAP, between=between, apart=apart)
    for column, title in enumerate(["image", "its edges", *titles]):
        sheet.title(column, title)
    return sheet


def _picture(sheet: Mosaic, row: int, picture: np.ndarray, prompt: int) -> None:
    sheet.picture(row, 0, picture)
    sheet.picture(row, 1, edges([picture], (picture.shape[0], picture.shape[1]))[0], cmap="gray_r")
    sheet.name(row, f"prompt {prompt}")


def _stage_title(log: Log, k: int) -> str:
    return f"stage {stage_title(k, grids(log))}"

"""``viewer.html`` beside the pictures of a comparison or a run: prompts by methods, differences, maps, stages."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from varlab.analysis.comparisons import read_comparison
from varlab.analysis.logs import as_log, grids, provenance
from varlab.errors import VarlabError
from varlab.markup import brief
from varlab.outputs import refuse_existing, require_picture
from varlab.reports.cards import DRAFT
from varlab.reports.facts import FOLDER_VARIABLE, VIEWER, as_text
from varlab.reports.style import render
from varlab.writing import beside

if TYPE_CHECKING:
    from varlab.comparison import Comparison

SHEETS = "viewer"  # the folder of the maps
KINDS = {  # variables of a stage's maps [prompt, (block,) y, x], by group of the log
    "kept": "tokens left out",
    "score": "score",
    "energy_preview": "energy of the change",
    "mse": "change of the tokens",
}
VEIL = (242, 242, 242, 217)


def write_viewer(folder: Path | str, *, title: str = "", back: str = "", overwrite: bool = False) -> Path:
    """Write ``viewer.html`` and ``viewer/`` into the folder of a saved comparison or of a run; returns the page.

    The page works from the disk and offline, and draws on the pictures beside it: the folder is to be moved whole.
    ``back`` is the address of the page that it leads back to. Maps of tokens and scores, and the picture after each
    stage, are shown where they were kept.

    Raises
    ------
    VarlabError
        For a folder that holds neither, and for a page that is there, unless ``overwrite``.

    Examples
    --------
    >>> vl.compare("nano-infinity", "scenes", ["truncate:last=1"], n=4).save("compared")
    >>> vl.reports.write_viewer("compared")
    """
    place = Path(folder)
    page = place / VIEWER
    is_comparison = (place / "comparison.json").is_file()
    if not is_comparison and not (place / "run.json").is_file():
        raise VarlabError(f"{place} holds neither a comparison nor a run: give the --out of varlab compare or log.")
    refuse_existing(page, place / SHEETS, overwrite=overwrite)
    data = _of_comparison(place) if is_comparison else _of_run(place)
    values = {"title": title or data["facts"][0][1], "back": back, "facts": data.pop("facts")}
    text = render("viewer", values | {"data": _script_data(data)})
    with beside(page) as part:
        part.write_text(text, "utf-8")
    return page


def save_pictures(compared: "Comparison", report_folder: Path | str | None = None) -> None:
    """Save a comparison with its viewer in ``comparison/`` of the report that is being run; by hand nothing is written.

    Examples
    --------
    >>> vl.reports.save_pictures(vl.compare("nano-infinity", "scenes", ["truncate:last=1"], n=4))
    """
    given = report_folder or os.environ.get(FOLDER_VARIABLE)
    if not given:
        return
    folder = Path(given)
    name = folder.parent.name if folder.name == DRAFT else folder.name
    place = compared.save(folder / "comparison")
    write_viewer(place, title=name, back=f"../{quote(name)}.html", overwrite=True)


def _script_data(data: Mapping[str, Any]) -> Any:
    """JSON that no HTML parser ends early: a prompt may hold ``</script>``."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _of_comparison(place: Path) -> dict[str, Any]:
    """What the page knows of a saved comparison."""
    table, facts = read_comparison(place)
    prompts = pd.read_csv(place / "prompts.csv", keep_default_na=False, na_values={"ssim": ["", "nan"]})
    methods = []
    for row, name in enumerate(table.index):
        own = table.loc[name]
        log = place / "decisions" / f"{row:02d}"
        values = prompts.loc[prompts.method == name, "ssim"].astype(float).round(4)
        methods.append(
            {
                "name": "dense" if name == "none" else brief(name),
                "folder": f"images/{row:02d}",
                "about": f"work {own.work_ratio:.2f}, {own.speedup:.2f} times as fast",
                "ssim": [None if math.isnan(value) else value for value in values],
                "maps": list(_sheets(as_log(log), place, row)) if log.is_dir() else [],
                "previewFolder": f"previews/{row:02d}",
                "previews": _previews(place / "previews" / f"{row:02d}"),
            }
        )
    return _page(place, facts, [str(text) for text in facts["prompts"]], methods, digits=4)


def _of_run(place: Path) -> dict[str, Any]:
    """What the page knows of a run: its pictures, and the maps of its probes and methods."""
    log = as_log(place)
    name = " + ".join(log.attrs.get("accelerators") or ()) or "dense"
    own = {"name": name, "folder": "images", "about": "", "maps": list(_sheets(log, place, 0)), "previewFolder": ""}
    return _page(
        place,
        {str(key): value for key, value in log.attrs.items()},
        list(map(str, log.attrs["prompts"])),
        [own],
        digits=6,
    )


def _page(place: Path, facts: dict[str, Any], prompts: list[str], methods: list[Any], digits: int) -> dict[str, Any]:
    first = place / methods[0]["folder"] / f"{0:0{digits}d}.png"
    require_picture(first, "The command that made the folder draws it again.")
    with Image.open(first) as picture:
        width, height = picture.size
    log = xr.DataTree(xr.Dataset(coords={"prompt": range(len(prompts))}, attrs=facts))
    shown = [(name, value) for name, value in provenance(log).items() if name != "preview"]
    sides = [f"{h}x{w}" for h, w in grids(log)]
    data = {"prompts": prompts, "methods": methods, "stages": sides, "digits": digits, "ratio": f"{width} / {height}"}
    return {"facts": [(name, as_text(value)) for name, value in shown]} | data


def _previews(folder: Path) -> list[list[int]] | None:
    """The stages kept of each prompt."""
    found: dict[int, list[int]] = {}
    for file in sorted(folder.glob("*-*.png")):
        prompt, stage = map(int, file.stem.split("-"))
        found.setdefault(prompt, []).append(stage)
    return [found.get(prompt, []) for prompt in range(max(found) + 1)] if found else None


# Maps -----------------------------------------------------------------------------------------------


def _sheets(log: xr.DataTree, place: Path, row: int) -> Iterator[dict[str, Any]]:
    """The maps of a log, all prompts of one kind and stage on one sheet, which is written."""
    for node in log.subtree:
        if not node.name or not str(node.name).startswith("stage-"):
            continue
        stage = int(str(node.name).removeprefix("stage-"))
        for variable, kind in KINDS.items():
            if variable not in node.data_vars:
                continue
            maps = _flat(node.data_vars[variable])
            colours = _veil(maps) if variable == "kept" else _heat(maps)
            picture, columns, rows = _sheet(colours)
            file = f"{SHEETS}/{row:02d}-{variable}-{stage:02d}.png"
            (place / SHEETS).mkdir(exist_ok=True)
            picture.save(place / file)
            yield {"kind": kind, "stage": stage, "source": file, "columns": columns, "rows": rows}


def _flat(values: xr.DataArray) -> np.ndarray:
    """[prompt, y, x]: of a block's sublayers the whole block, of blocks and guidance rows their mean."""
    if "sublayer" in values.dims:
        values = values.sel(sublayer="block")
    height, width = (next(axis for axis in values.dims if str(axis).startswith(letter)) for letter in "yx")
    others = [axis for axis in values.dims if axis not in ("prompt", height, width)]
    return values.mean(others).transpose("prompt", height, width).values


def _veil(kept: np.ndarray) -> np.ndarray:
    """[prompt, y, x, rgba]: a veil where tokens were left out, thinner where only some sublayers did without."""
    veil = np.zeros((*kept.shape, 4), np.uint8)
    veil[..., :3] = VEIL[:3]
    veil[..., 3] = VEIL[3] * (1 - np.nan_to_num(kept, nan=0.0).clip(0, 1))
    return veil


def _heat(values: np.ndarray) -> np.ndarray:
    """[prompt, y, x, rgba]: one scale for all prompts, from the lowest to the highest half per cent."""
    from matplotlib import colormaps

    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 1.0)
    scaled = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-12)
    colours = (colormaps["magma"](scaled.clip(0, 1)) * 255).astype(np.uint8)
    colours[..., 3] = np.where(np.isfinite(values), 190, 0)
    return colours


def _sheet(maps: np.ndarray) -> tuple[Image.Image, int, int]:
    """All maps [prompt, y, x, rgba] on one picture, row by row."""
    n, height, width, _ = maps.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    full = np.zeros((columns * rows, height, width, 4), np.uint8)
    full[:n] = maps
    grid = full.reshape(rows, columns, height, width, 4).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(grid.reshape(rows * height, columns * width, 4)), columns, rows

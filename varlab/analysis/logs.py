"""Reading a log for figures: datasets by probe, means over prompts with intervals, images, provenance."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from varlab.errors import VarlabError, unknown
from varlab.measures.statistics import bootstrap_interval
from varlab.measures.stored import edge_energy
from varlab.outputs import require_picture

Log = xr.DataTree | Path | str
Images = Path | str | Sequence[Image.Image] | None


def as_log(log: Log) -> xr.DataTree:
    """The tree itself, or the log of a run folder."""
    if isinstance(log, xr.DataTree):
        return log
    from varlab.runs.folders import open_log  # waits for zarr, which a tree does not need

    return open_log(Path(log))


def groups(log: Log) -> set[str]:
    """Paths of all groups and variables (``sparsevar/stage-08/kept``), of a folder also of coordinates.

    The log of a whole run is not opened. Errors: those of ``as_log``.
    """
    if not isinstance(log, xr.DataTree):
        from varlab.runs.folders import stored_groups

        if (found := stored_groups(Path(log))) is not None:
            return found
    nodes = ((node.path.strip("/"), node) for node in as_log(log).subtree)
    return {f"{path}/{name}".strip("/") for path, node in nodes for name in ("", *map(str, node.data_vars))} - {""}


def read_ahead(log: xr.DataTree, most: int = 2**28) -> xr.DataTree:
    """The log in memory where it takes at most so many bytes there: its store is slow to give values one by one."""
    if log.nbytes <= most:
        import dask  # which opened it

        with dask.config.set(scheduler="synchronous"):
            log.load()
    return log


def dataset(log: Log, group: str) -> xr.Dataset:
    """The dataset of a probe, or of a stage's maps (``token-mse/stage-06``).

    Errors: the log has no such group.
    """
    tree = as_log(log)
    found: xr.DataTree | None = tree
    for name in group.strip("/").split("/"):
        found = found and found.children.get(name)
    if found is None or not found.data_vars:
        raise unknown("group of the log", group, [str(name) for name in tree.children])
    return found.to_dataset()


def variable(log: Log, group: str, name: str) -> xr.DataArray:
    """One variable of a probe; errors name what is there (previews may have been off)."""
    data = dataset(log, group)
    if name not in data:
        raise unknown(f"variable of {group}", name, [str(key) for key in data.data_vars])
    return data[name]


def names(data: xr.DataArray | xr.Dataset, axis: str) -> list[str]:
    """The names along an axis."""
    return [str(name) for name in data[axis].values]


def pick(data: xr.DataArray, **chosen: str) -> xr.DataArray:
    """The slice of named axes by name: ``pick(power, source="preview")``."""
    for axis, name in chosen.items():
        known = names(data, axis)
        if name not in known:
            raise unknown(axis, name, known)
        data = data.sel({axis: name}, drop=True)
    return data


def both_rows(data: xr.DataArray, guidance_row: str = "both") -> xr.DataArray:
    """The mean of the conditional and the unconditional row, or one of them; an unguided stage has one."""
    return data.mean("guidance_row", skipna=True) if guidance_row == "both" else pick(data, guidance_row=guidance_row)


def summary(values: xr.DataArray, level: float = 0.95) -> pd.DataFrame:
    """Long form over all axes but ``prompt``: mean over prompts, bootstrap bounds low and high, n prompts.

    Values that are missing or infinite (the PSNR of equal images) are left out, and n says how many stayed.
    The bounds are NaN for fewer than two.
    """
    values = values.transpose("prompt", ...)
    finite = values.values.astype(float)
    finite = np.where(np.isfinite(finite), finite, np.nan)
    mean, low, high = bootstrap_interval(finite, level=level)
    columns: dict[str, Any] = {"mean": mean, "low": low, "high": high, "n": np.isfinite(finite).sum(0)}
    axes = {str(axis): values[axis].values.tolist() for axis in values.dims[1:]}
    if not axes:
        return pd.DataFrame({name: [value] for name, value in columns.items()})
    index = pd.MultiIndex.from_product(list(axes.values()), names=list(axes))
    return pd.DataFrame({name: np.ravel(column) for name, column in columns.items()}, index=index).reset_index()


def summaries(column: str, measures: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """``summary`` of several, one below the other; ``column``, the second, names them."""
    parts = [summary(values) for values in measures.values()]
    for part, name in zip(parts, measures, strict=True):
        part.insert(1, column, name)
    return pd.concat(parts, ignore_index=True)


# --- the schedule -------------------------------------------------------------------------------------------


def grids(log: Log) -> list[tuple[int, int]]:
    """(h, w) of every stage; none where the log does not say."""
    return [(int(h), int(w)) for h, w in as_log(log).attrs.get("schedule", [])]


def stage_count(log: Log) -> int:
    tree = as_log(log)
    return next(int(node.sizes["stage"]) for node in tree.subtree if "stage" in node.sizes)


def late_stages(stages: int) -> list[int]:
    """The last quarter of the stages, at least one: 11 to 13 of 13, 5 and 6 of 6."""
    return list(range(stages - max(1, int(stages / 4 + 0.5)) + 1, stages + 1))


def early_stages(stages: int) -> list[int]:
    """The first half of the stages."""
    return list(range(1, max(1, stages // 2) + 1))


def predicted(log: Log) -> str:
    """What one prediction of the model is: a "bit" of a code, or a "label" of a codebook."""
    units = variable(log, "branch-divergence", "kl").attrs.get("units")
    return "label" if units == "nats/label" else "bit"


# --- images and provenance ----------------------------------------------------------------------------------


def prompt_count(log: Log) -> int:
    """How many prompts the log holds; an unfinished run has fewer than it was asked for."""
    return next((int(node.sizes["prompt"]) for node in as_log(log).subtree if "prompt" in node.sizes), 0)


def present(log: Log, prompts: Sequence[int]) -> list[int]:
    """Those of some prompts that the log has; its first where it has none of them."""
    return [p for p in prompts if p < prompt_count(log)] or [0]


AGAIN = "The command that made the run (varlab log ... --out FOLDER) draws it again; or give images=FOLDER."


class Pictures(Sequence[np.ndarray]):
    """Pictures [H, W, 3] in [0, 1], each read when it is asked for: all of a large run would fill the memory."""

    def __init__(self, sources: Sequence[Path | Image.Image]) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Pictures(self.sources[i])
        source = self.sources[i]
        if isinstance(source, Path):
            require_picture(source, AGAIN)
        picture = Image.open(source) if isinstance(source, Path) else source
        return np.asarray(picture.convert("RGB"), np.float32) / 255


def images_of(log: Log, images: Images = None) -> Pictures:
    """The final images in prompt order.

    ``images`` is the run's folder or the pictures themselves; None looks in the folder the log was opened from.
    Errors: the images are not found.
    """
    if images is None or isinstance(images, str | Path):
        folder = run_folder(log, images)
        numbers = next(node.to_dataset()["prompt"].values for node in as_log(log).subtree if "prompt" in node.coords)
        places = [folder / "images" / f"{int(i):06d}.png" for i in numbers]
        if missing := [place for place in places if not place.is_file()]:
            raise VarlabError(
                f"The image {missing[0]} of this log is missing. Give images=FOLDER or a list of pictures."
            )
        return Pictures(places)
    return Pictures(list(images))


def has_images(log: Log, images: Images = None) -> bool:
    """Whether ``images_of`` finds them."""
    try:
        return bool(images) or (run_folder(log) / "images").is_dir()
    except VarlabError:
        return False


def run_folder(log: Log, given: Path | str | None = None) -> Path:
    """Where the run of a log lies: as given, or as the opened store tells. Errors: a log that was never stored."""
    if given is not None:
        return Path(given)
    if isinstance(log, Path | str):
        return Path(log)
    source = log.encoding.get("source") or log.attrs.get("folder")
    if not source:
        raise VarlabError("The log does not say where its images are. Give them: images=FOLDER or a list of pictures.")
    place = Path(str(source))
    return place if place.suffix != ".zarr" else place.parent


def edges(images: Iterable[np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    """Edge energy [n, h, w] of n images [H, W, 3]: Sobel magnitude of the luma, resized by area."""
    return np.concatenate([edge_energy(image[None], grid) for image in images])


PROVENANCE = ("model", "weights", "precision", "device", "prompt_set", "seed")


def provenance(log: Log) -> dict[str, str]:
    """What every figure says of its data; "not recorded" where the log does not know."""
    tree = as_log(log)
    facts = {name: str(tree.attrs.get(name, "not recorded")) for name in PROVENANCE}
    facts["n"] = str(prompt_count(tree))
    settings = tree.attrs.get("settings") or {}
    facts["cfg"] = str(settings.get("cfg", "not recorded"))
    facts["preview"] = preview_note(tree)
    return facts


def provenance_line(log: Log) -> str:
    """One line under a figure."""
    facts = provenance(log)
    parts = [facts["model"], f"weights: {facts['weights']}", f"n = {facts['n']}", f"seed {facts['seed']}"]
    return " · ".join([*parts, f"cfg {facts['cfg']}", facts["precision"], facts["device"]])


def preview_note(log: Log) -> str:
    """``full 64 x 64`` or ``reduced 128 x 128`` pixels; "none" where no probe kept previews."""
    for node in as_log(log).subtree:
        if side := node.attrs.get("preview_pixels"):
            return f"{node.attrs['preview']} {side[0]} x {side[1]} px"
    return "none"


def stage_range(log: Log, stages: Sequence[int] | None = None) -> str:
    """``stages 5 and 6`` or ``stages 11 to 13``; the late stages when none are given."""
    chosen = list(stages or late_stages(stage_count(log)))
    if len(chosen) == 1:
        return f"stage {chosen[0]}"
    return f"stages {chosen[0]} {'and' if len(chosen) == 2 else 'to'} {chosen[-1]}"

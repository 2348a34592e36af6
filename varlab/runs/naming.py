"""Names along the axes of a log: coordinates of text in memory, numbers with names beside them on disk.

Zarr has no settled form for text, which other readers would warn of or refuse.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from varlab.probes.log import LOG_VERSION, interval_names

NAMES = "names"  # attribute of a coordinate of numbers
RENAMED = {"branch": "guidance_row", "site": "sublayer"}  # axes of version 1


def numbered(tree: xr.DataTree) -> xr.DataTree:
    """The log as zarr keeps it."""
    return _each(tree, _numbered)


def named(tree: xr.DataTree, version: int | None = None) -> xr.DataTree:
    """The log as it was in memory, with the axes of today. The root tells its version where none is given."""
    version = int(tree.attrs.get("log_version", 1)) if version is None else version
    tree = _each(tree, lambda data: _named(_modern(data) if version == 1 else data))
    tree.attrs["log_version"] = LOG_VERSION
    return tree


def _each(tree: xr.DataTree, change: Callable[[xr.Dataset], xr.Dataset]) -> xr.DataTree:
    changed = xr.DataTree.from_dict({node.path: change(node.to_dataset(inherit=False)) for node in tree.subtree})
    changed.encoding = dict(tree.encoding)  # where it was opened from
    return changed


def _numbered(data: xr.Dataset) -> xr.Dataset:
    texts = {axis: index.tolist() for axis, index in data.indexes.items() if index.dtype.kind in "OU"}
    return data.assign_coords({axis: (axis, np.arange(len(names)), {NAMES: names}) for axis, names in texts.items()})


def _named(data: xr.Dataset) -> xr.Dataset:
    names = {axis: data[axis].attrs[NAMES] for axis in data.indexes if NAMES in data[axis].attrs}
    return data.assign_coords({axis: (axis, np.array(list(texts))) for axis, texts in names.items()})


def _modern(data: xr.Dataset) -> xr.Dataset:
    """A group of version 1, in which the bands of frequency were nameless."""
    if "frequency_band" in data.indexes and "band_edges" in data.attrs:
        edges = [float(edge) for edge in data.attrs["band_edges"]]
        data = data.assign_coords(frequency_band=interval_names(edges))
    return data.rename({old: new for old, new in RENAMED.items() if old in data.dims})

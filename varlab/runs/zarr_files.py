"""A log as zarr's files, a region at a time.

Zarr's own writer passes every array and attribute through an event loop and threads: for the hundred small arrays of a
log that takes a second and more. The files are the same (format 3, one file a chunk), and zarr reads them.
"""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from varlab.runs.parts import CHUNK, chunk_of

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
# Bytes of one place together, since those of rounded values repeat.
BLOSC = {"cname": "zstd", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}


def write_store(tree: xr.DataTree, folder: Path) -> None:
    """Write groups of numbers into a new folder, at most one chunk of a large variable in memory."""
    for node in tree.subtree:
        place = folder / node.path.strip("/")
        place.mkdir(parents=True)
        _describe(place, "group", node.attrs)
        data = node.to_dataset(inherit=False)
        data = data.compute() if data.nbytes <= CHUNK else data  # one graph in place of one a variable
        for name, variable in data.variables.items():
            _write_array(place / str(name), variable)


def _write_array(place: Path, variable: xr.Variable) -> None:
    from numcodecs import Blosc

    codec = Blosc(cname=BLOSC["cname"], clevel=BLOSC["clevel"], shuffle=Blosc.SHUFFLE)
    shape, dtype = variable.shape, variable.dtype.newbyteorder("<")
    chunk = tuple(max(sizes) for sizes in variable.chunks) if variable.chunks else chunk_of(shape, dtype.itemsize)
    fill = np.array(np.nan if dtype.kind == "f" else 0, dtype)
    place.mkdir()
    _describe(
        place,
        "array",
        variable.attrs,
        shape=shape,
        data_type=dtype.name,
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk}},
        chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
        fill_value="NaN" if dtype.kind == "f" else 0,
        codecs=[BYTES, {"name": "blosc", "configuration": {"typesize": dtype.itemsize, **BLOSC}}],
        dimension_names=variable.dims,
    )
    for index, region in _regions(shape, chunk):
        values = np.asarray(variable[region].values, dtype)
        if values.shape != chunk:  # at an end; zarr's chunks are all of one size
            whole = np.full(chunk, fill)
            whole[tuple(map(slice, values.shape))] = values
            values = whole
        place.joinpath(".".join(["c", *map(str, index)])).write_bytes(codec.encode(np.ascontiguousarray(values)))


def _regions(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """The number of each chunk along the axes, and where it lies."""
    for index in product(*(range(-(-size // each)) for size, each in zip(shape, chunk, strict=True))):
        yield index, tuple(slice(i * each, (i + 1) * each) for i, each in zip(index, chunk, strict=True))


def _describe(place: Path, kind: str, attributes: Any, **facts: Any) -> None:
    text = json.dumps(
        {"zarr_format": 3, "node_type": kind, **facts, "attributes": attributes}, indent=1, default=_plain
    )
    (place / "zarr.json").write_text(text, "utf-8")


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as JSON takes them."""
    return value.tolist()

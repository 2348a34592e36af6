"""A log of thousands of prompts takes no more memory than one of a few dozen, and holds the same values."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from varlab.probes import log as logs
from varlab.probes.log import Group
from varlab.runs import parts as parts_module
from varlab.runs.folders import open_log, write_log
from varlab.runs.naming import numbered
from varlab.runs.parts import joined_lazily
from varlab.runs.zarr_files import write_store

SIDE = 32
ROOT = Path(__file__).parents[1]

WRITE = """
import sys
from pathlib import Path
from tests.test_log_memory import part, record
from varlab.machine import peak_mib
from varlab.probes import log as logs
from varlab.runs.folders import write_log
from varlab.runs.parts import joined_lazily

folder, n = Path(sys.argv[1]), int(sys.argv[2])
import torch
paths = []
for first in range(0, n, 16):
    paths.append(folder / "parts" / f"{first:06d}.npz")
    paths[-1].parent.mkdir(parents=True, exist_ok=True)
    logs.save(paths[-1], part(range(first, min(n, first + 16))))
write_log(folder, logs.tree(joined_lazily(paths), record(n)))
print(peak_mib(torch.device("cpu"), True))
"""

READ = """
import sys
import torch
from varlab.machine import peak_mib
from varlab.runs.folders import open_log
from varlab.analysis.logs import summary

log = open_log(sys.argv[1])
table = summary(log["maps/stage-06"].mse.mean(["y", "x"]))
summary(log["maps"].share)
print(peak_mib(torch.device("cpu"), True), len(table))
"""


def part(samples: range) -> logs.Log:
    """Of every image a megabyte: maps that are large enough to be rounded, and a few numbers."""
    drawn = np.random.default_rng(samples.start)
    maps = drawn.random((len(samples), 8, 24, SIDE, SIDE), np.float32)
    shares = drawn.random((len(samples), 6), np.float32)
    mse = (("block", "head", "y", "x"), maps, "1")
    numbers = tuple(samples)
    return {
        "maps": Group(numbers, {"share": (("stage",), shares, "1")}),
        "maps/stage-06": Group(numbers, {"mse": mse}, {"head": [f"head {i}" for i in range(24)]}, {"grid": [SIDE] * 2}),
    }


def record(n: int) -> dict[str, object]:
    return {"key": "0", "n": n, "model": "synthetic", "prompts": [f"prompt {i}" for i in range(n)]}


def spent(code: str, *arguments: object) -> float:
    """MiB that a process of this code held at most."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0])


@pytest.mark.slow
def test_the_peak_of_writing_and_reading_does_not_grow_with_the_prompts(tmp_path: Path) -> None:
    written = {n: spent(WRITE, tmp_path / str(n), n) for n in (64, 512)}
    assert written[512] < 1.1 * written[64]
    read = {n: spent(READ, tmp_path / str(n)) for n in (64, 512)}
    assert read[512] < read[64] + 100  # of 400 MB


def test_values_are_those_of_a_join_in_memory_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that end within a batch, a batch that lacks a group, and NaN among the values."""
    monkeypatch.setattr(parts_module, "CHUNK", 5 * 8 * 24 * SIDE * SIDE * 4)
    batches = [part(range(0, 4)), part(range(4, 8)), part(range(8, 11))]
    del batches[1]["maps/stage-06"]
    batches[2]["maps/stage-06"].variables["mse"][1][0, 0] = np.nan
    paths = [tmp_path / "parts" / f"{i}.npz" for i in range(3)]
    paths[0].parent.mkdir()
    for path, batch in zip(paths, batches, strict=True):
        logs.save(path, batch)
    joined = {place: group.rounded() for place, group in logs.join(batches).items()}
    lazy = logs.tree(joined_lazily(paths), record(11))
    write_log(tmp_path, lazy)
    stored = open_log(tmp_path)
    assert stored["maps/stage-06"].mse.chunks[0] == (5, 5, 1)
    for place, group in joined.items():
        for tree in (lazy, stored):
            own = tree[place].to_dataset()[list(group.variables)]  # without coordinates of other groups
            xr.testing.assert_identical(own.drop_attrs().load(), group.dataset().drop_attrs())
        assert stored[place].attrs == group.attrs
    maps = stored["maps/stage-06"].mse
    plain = joined["maps/stage-06"].dataset().mse
    for rows in (slice(3, 6), slice(None, None, -1), [7, 2, 9], 4, slice(0, 0)):
        xr.testing.assert_identical(lazy["maps/stage-06"].mse.isel(prompt=rows).load(), plain.isel(prompt=rows))
        assert np.array_equal(maps.isel(prompt=rows).values, plain.isel(prompt=rows).values, equal_nan=True)


def test_the_record_of_the_store_is_that_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "parts" / "0.npz"
    path.parent.mkdir()
    logs.save(path, part(range(2)))
    write_log(tmp_path, logs.tree(joined_lazily([path]), record(2)))
    assert json.loads((tmp_path / "log.zarr" / "zarr.json").read_text())["attributes"]["model"] == "synthetic"


def test_the_files_are_those_that_xarray_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a chunk ends early, with NaN among the values, and axes with names."""
    from zarr.codecs import BloscCodec

    monkeypatch.setattr(parts_module, "CHUNK", 5 * 24 * SIDE * SIDE * 4)
    (tmp_path / "parts").mkdir()
    paths = [tmp_path / "parts" / "0.npz", tmp_path / "parts" / "1.npz"]
    for path, samples in zip(paths, (range(4), range(4, 7)), strict=True):
        batch = part(samples)
        dims, maps, unit = batch["maps/stage-06"].variables["mse"]
        maps[0, 0, 3] = np.nan
        batch["maps/stage-06"].variables["mse"] = (dims, maps[:, :1], unit)
        logs.save(path, batch)
    tree = numbered(logs.tree(joined_lazily(paths), record(7)))
    assert tree["maps/stage-06"].mse.chunks[0] == (5, 2)
    write_store(tree, tmp_path / "own")

    def encoding(values: xr.Variable) -> dict[str, object]:
        codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=values.dtype.itemsize)
        keys = {"name": "default", "separator": "."}
        return {"compressors": [codec], "chunk_key_encoding": keys, "write_empty_chunks": True}

    groups = {node.path: node.to_dataset(inherit=False).variables for node in tree.subtree}
    encodings = {path: {name: encoding(values) for name, values in group.items()} for path, group in groups.items()}
    tree.to_zarr(tmp_path / "theirs", consolidated=False, encoding=encodings)

    def files(folder: Path) -> dict[str, object]:
        return {str(path.relative_to(folder)): held(path) for path in folder.rglob("*") if path.is_file()}

    def held(path: Path) -> object:
        if path.name != "zarr.json":
            return path.read_bytes()
        facts = json.loads(path.read_text())
        assert facts.pop("storage_transformers", []) == []
        facts["attributes"].pop("_FillValue", None)  # xarray's own, beside the fill value of zarr
        return facts

    assert files(tmp_path / "own") == files(tmp_path / "theirs")

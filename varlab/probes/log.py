"""What probes and methods hand over: plain arrays with named axes, cheap to join, to store, to turn into xarray."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

LOG_VERSION = 2  # raised when what a probe logs changes its names or meaning: older logs are not taken for new ones
Variables = dict[str, tuple[tuple[str, ...], np.ndarray, str]]  # name -> dimensions after prompt, values [n, ...], unit
COUNTED = ("stage", "block")  # axes that count from 1, as the papers do


@dataclass
class Group:
    """Variables of some images. ``names`` are the coordinates of axes with names; ``attrs`` facts about all of it."""

    samples: tuple[int, ...]
    variables: Variables
    names: dict[str, list[str]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)

    def rounded(self) -> "Group":
        """Large maps with fewer bits, so that the log of a large model stays small on disk.

        A map [..., y, x] of more than ``LARGE`` values an image keeps 6 bits of mantissa, a relative error of at most
        0.8 %, which the disk then stores in half the bytes. All other values stay as they are.
        """
        variables = {
            name: (dims, fewer_bits(values) if is_large_map(dims, values) else values, unit)
            for name, (dims, values, unit) in self.variables.items()
        }
        lossy = [name for name, (dims, values, _) in self.variables.items() if is_large_map(dims, values)]
        facts = {"rounded": f"{', '.join(lossy)}: relative error at most 0.8 %"} if lossy else {}
        return replace(self, variables=variables, attrs=self.attrs | facts)

    def dataset(self) -> xr.Dataset:
        data, coordinates = {}, {"prompt": np.array(self.samples)}
        for name, (dims, values, unit) in self.variables.items():
            data[name] = (("prompt", *dims), values.astype(np.float32, copy=False), {"units": unit})
            for d, size in zip(dims, values.shape[1:], strict=True):
                coordinates[d] = np.array(self.names[d]) if d in self.names else np.arange(size) + (d in COUNTED)
        return xr.Dataset(data, coordinates, self.attrs)


def interval_names(edges: Sequence[float]) -> list[str]:
    """``0 to 0.0625``, ..., ``above 0.5``: the intervals between edges."""
    return [f"above {low:g}" if math.isinf(high) else f"{low:g} to {high:g}" for low, high in pairwise(edges)]


LARGE = 1 << 15  # values an image
MANTISSA = 6  # bits that are kept of 23


def is_large_map(dims: tuple[str, ...], values: np.ndarray) -> bool:
    return dims[-1:] != () and dims[-1].startswith("x") and values[0].size > LARGE


def fewer_bits(values: np.ndarray) -> np.ndarray:
    """Values in fp32 rounded to ``MANTISSA`` bits, to nearest; NaN and infinities stay."""
    bits = values.astype(np.float32, copy=False).view(np.uint32)
    drop = np.uint32(23 - MANTISSA)
    rounded = ((bits + (np.uint32(1) << (drop - np.uint32(1)))) >> drop << drop).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)


Log = dict[str, Group]  # path of the group -> group


def join(logs: Sequence[Log]) -> Log:
    """Batches one after another; NaN where a batch lacks a group (it skipped a stage that others ran)."""
    joined: Log = {}
    logs = [log for log in logs if log]
    for path in dict.fromkeys(path for log in logs for path in log):
        first = next(log[path] for log in logs if path in log)
        groups = [log.get(path) or _missing(first, next(iter(log.values())).samples) for log in logs]
        variables = {
            name: (dims, np.concatenate([group.variables[name][1] for group in groups]), unit)
            for name, (dims, _, unit) in first.variables.items()
        }
        samples = tuple(sample for group in groups for sample in group.samples)
        joined[path] = Group(samples, variables, first.names, first.attrs)
    return joined


def _missing(like: Group, samples: tuple[int, ...]) -> Group:
    variables = {
        name: (dims, np.full((len(samples), *values.shape[1:]), np.nan, np.float32), unit)
        for name, (dims, values, unit) in like.variables.items()
    }
    return Group(samples, variables, like.names, like.attrs)


def of_methods(reports: Mapping[tuple[int, ...], Mapping[str, Mapping[str, Any]]], samples: Sequence[int]) -> Log:
    """What the methods tell of a batch, whose groups may have gone their own ways; NaN for an image without a value.

    ``reports``: images of a group -> method -> what ``Accelerator.report`` says.
    """
    log: Log = {}
    row = {image: i for i, image in enumerate(samples)}
    for images, by_method in reports.items():
        rows = [row[image] for image in images]
        for method, told in by_method.items():
            for name, value in told.items():
                stage, _, short = name.rpartition("/")
                group = log.setdefault(f"{method}/{stage}".rstrip("/"), Group(tuple(samples), {}))
                if not isinstance(value, tuple):
                    group.attrs.setdefault(short, value)
                    continue
                axes, values, unit = value
                empty = np.full((len(row), *values.shape[1:]), np.nan, np.float32)
                group.variables.setdefault(short, (axes, empty, unit))[1][rows] = values
    return log


def tree(log: Log, attrs: dict[str, Any]) -> xr.DataTree:
    """The groups as an xarray tree; ``attrs`` go to its root."""
    made = xr.DataTree.from_dict({f"/{path}": group.dataset() for path, group in log.items()})
    made.attrs = attrs | {"log_version": LOG_VERSION}
    return made


def save(path: Path, log: Log) -> None:
    """One uncompressed archive: written in milliseconds between two batches."""
    arrays: dict[str, np.ndarray] = {}
    meta: dict[str, Any] = {}
    for place, group in log.items():
        described = {name: [list(dims), unit] for name, (dims, _, unit) in group.variables.items()}
        meta[place] = {"samples": group.samples, "variables": described, "names": group.names, "attrs": group.attrs}
        arrays |= {f"{place}::{name}": values for name, (_, values, _) in group.variables.items()}
    with path.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]


def load(path: Path, only: str | None = None) -> Log:
    """The groups of an archive, or one of them."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
        return {
            place: Group(
                tuple(entry["samples"]),
                {
                    name: (tuple(dims), stored[f"{place}::{name}"], unit)
                    for name, (dims, unit) in entry["variables"].items()
                },
                entry["names"],
                entry["attrs"],
            )
            for place, entry in meta.items()
            if only in (None, place)
        }


def contents(path: Path) -> tuple[tuple[int, ...], dict[str, dict[str, Any]]]:
    """The images of an archive, and the paths of its groups with their facts, without their values."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
    samples = next((tuple(entry["samples"]) for entry in meta.values()), ())
    return samples, {place: entry["attrs"] for place, entry in meta.items()}

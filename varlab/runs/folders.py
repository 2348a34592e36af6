"""Run folders: what is in one, whether it holds the run that is asked for, and its log."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from zarr.codecs import BloscCodec

from varlab.errors import VarlabError
from varlab.probes import log as logs

STORE = "log.zarr"
CLAIM = "run.json.part"


def keep(folder: Path, tree: xr.DataTree) -> None:
    """Write a log so that ``open_log`` reads it: whole or not at all."""
    draft = folder / "draft.zarr"
    shutil.rmtree(draft, ignore_errors=True)
    tree.to_zarr(draft, consolidated=False, encoding=packed(tree))
    shutil.rmtree(folder / STORE, ignore_errors=True)
    draft.rename(folder / STORE)


def packed(tree: xr.DataTree) -> dict[str, dict[str, Any]]:
    """How zarr stores maps: bytes of one place together, since those of rounded values repeat."""
    codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=4)
    return {
        node.path: {str(name): {"compressors": [codec]} for name in node.data_vars}
        for node in tree.subtree
        if node.data_vars
    }


def open_log(folder: Path | str) -> xr.DataTree:
    """The log of a run folder; an unfinished run gives the prompts it has.

    Raises VarlabError for a folder without a log, and for a damaged one.
    """
    folder = Path(folder)
    if (folder / STORE).exists():
        return _open_store(folder / STORE)
    parts, record = sorted((folder / "parts").glob("*.npz")), read_record(folder)
    if record is None or not parts:
        raise VarlabError(f"{folder} holds no log. Make one: varlab log MODEL --out {folder}.")
    return logs.tree(logs.join([logs.load(path) for path in parts]), record)


def _open_store(store: Path) -> xr.DataTree:
    try:
        return xr.open_datatree(store, engine="zarr", consolidated=False)
    except Exception as error:  # zarr, its codecs and xarray have a dozen unrelated classes for a damaged store
        raise VarlabError(
            f"{store} is damaged ({type(error).__name__}). Remove the folder {store.parent} and run it again."
        ) from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """``run.json`` of a run folder; None where there is none. Raises VarlabError when it is damaged."""
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise VarlabError(f"{path} is damaged ({error}). Remove the folder {folder} and run it again.") from error
    return record


SAME = (
    "model", "weights", "architecture", "text_encoder", "precision", "schedule", "prompts", "negative", "seed",
    "settings", "probes", "accelerators", "options", "log_version",
)  # fmt: skip


def run_key(record: dict[str, Any]) -> str:
    """16 hexadecimal digits of all that decides the log."""
    text = json.dumps({name: record[name] for name in SAME}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_run(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the run in a folder, None where one may begin.

    Raises VarlabError for another run, a damaged record, and a folder that holds something else.
    """
    found = read_record(folder)
    if found is None:
        if folder.exists() and any(item.name != CLAIM for item in folder.iterdir()):
            raise VarlabError(f"{folder} is not empty and holds no run. Give another folder.")
        return None
    refuse_another(folder, found, asked)
    return found


def refuse_another(folder: Path, found: Mapping[Any, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a run whose record differs in what ``asked`` names, of ``SAME``."""
    different = [name for name in SAME if name in asked and found.get(name) != asked[name]]
    if different:
        held = ", ".join(f"{name} {found.get(name)}" for name in ("model", "prompt_set", "n", "seed"))
        raise VarlabError(
            f"{folder} holds another run (different: {', '.join(different)}; there: {held}). Give another folder."
        )

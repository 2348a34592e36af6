"""Run folders: what is in one, whether it holds the run that is asked for, and its log."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import xarray as xr

from varlab.errors import VarlabError
from varlab.locks import LOCK, OWNER
from varlab.probes import log as logs
from varlab.runs.manifest import MANIFEST, STORE, damaged, faults, write_manifest
from varlab.runs.naming import named, numbered
from varlab.runs.parts import joined_lazily
from varlab.runs.zarr_files import write_store
from varlab.writing import DRAFT, draft_of, write_text

RECORD = "run.json"
PARTS = "[0-9]*.npz"


def write_log(folder: Path, tree: xr.DataTree) -> None:
    """Write a log so that ``open_log`` reads the same again: whole or not at all."""
    import dask  # half a second that a run without a log need not wait

    tree = numbered(tree)
    folder.mkdir(parents=True, exist_ok=True)
    draft, former = draft_of(folder / STORE), draft_of(folder / STORE)
    try:
        with dask.config.set(scheduler="synchronous"):  # a region at a time, whoever else computes in this process
            write_store(tree, draft)
        (folder / MANIFEST).unlink(missing_ok=True)
        if (folder / STORE).exists():
            (folder / STORE).rename(former)
        draft.rename(folder / STORE)
        write_manifest(folder)
    finally:
        for left in (draft, former):
            shutil.rmtree(left, ignore_errors=True)


def parts_of(folder: Path) -> list[Path]:
    """The finished batches of an unfinished run."""
    return sorted((folder / "parts").glob(PARTS))


def is_finished(folder: Path) -> bool:
    """Whether the log is whole: its manifest is written last. A log of older versions has none, and no parts."""
    store, parts = (folder / STORE).exists(), (folder / "parts").exists()
    return store and ((folder / MANIFEST).exists() or not parts)


def open_log(folder: Path | str) -> xr.DataTree:
    """The log of a run folder; an unfinished run gives the prompts it has.

    Parameters
    ----------
    folder
        What ``vl.log`` was given, or made.

    Returns
    -------
    xr.DataTree
        Values are read when they are used, chunk by chunk (dask arrays): a log may be larger than memory.
        ``encoding["source"]`` is the folder.

    Raises
    ------
    VarlabError
        For a folder without a log, and for a damaged one.

    Examples
    --------
    >>> log = vl.open_log("runs/mine")
    >>> vl.figures.high_frequency_share(log)
    """
    tree = _open(Path(folder))
    tree.encoding["source"] = str(folder)
    return tree


def _open(folder: Path) -> xr.DataTree:
    if is_finished(folder):
        return _open_store(folder)
    parts, record = parts_of(folder), read_record(folder)
    if record is None or not parts:
        raise VarlabError(f"{folder} holds no log. Make one: varlab log MODEL --out {quote(str(folder))}.")
    try:
        tree = logs.tree(joined_lazily(parts), record)
        return named(tree, record.get("log_version", 1))
    except VarlabError:
        if is_finished(folder):  # its writer ended in between, and the parts are in the log now
            return _open_store(folder)
        raise


def stored_groups(folder: Path) -> set[str] | None:
    """Paths of all groups, variables and coordinates of a whole log, without opening it.

    None where no manifest says that it is whole.
    Raises VarlabError for a log that is not what its manifest says.
    """
    if not (is_finished(folder) and (folder / MANIFEST).exists()):
        return None
    _check_store(folder)
    store = folder / STORE
    return {record.parent.relative_to(store).as_posix() for record in store.rglob("zarr.json")} - {"."}


def _check_store(folder: Path) -> None:
    if wrong := faults(folder, beginning=STORE):
        raise damaged(folder / STORE, "; ".join(wrong[:3]), folder)


def _open_store(folder: Path) -> xr.DataTree:
    store = folder / STORE
    _check_store(folder)
    try:
        tree = xr.open_datatree(store, engine="zarr", consolidated=False, chunks={})
    except Exception as error:  # zarr, its codecs and xarray have a dozen unrelated classes for a damaged store
        raise damaged(store, error, folder) from error
    if not (folder / MANIFEST).exists() and (missing := lacks(tree)):
        raise damaged(store, missing, folder)
    return named(tree)


def lacks(tree: xr.DataTree) -> str:
    """What a log without a manifest lacks of what its own record promises; nothing where it is whole.

    Reads every value. Logs beside tables (decisions of methods) have no ``key`` and are only read.
    """
    if "n" not in tree.attrs:
        return "it has no record of its run"
    for probe in tree.attrs.get("probes", ()) if "key" in tree.attrs else ():
        name = probe.partition(":")[0]
        if name not in tree.children:
            return f"it has nothing of {name}"
    try:
        for node in tree.subtree:
            if node.data_vars and (count := node.sizes.get("prompt")) != tree.attrs["n"]:
                return f"{node.path} has {count} prompts, not {tree.attrs['n']}"
            for values in node.data_vars.values():
                values.count().load()
    except Exception as error:  # zarr and its codecs have a dozen unrelated classes for damaged values
        return f"{type(error).__name__}: {error}"
    return ""


def read_record(folder: Path) -> dict[str, Any] | None:
    """``run.json`` of a run folder; None where there is none. Raises VarlabError when it is damaged."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        if not isinstance(record, dict) or "key" not in record:
            raise ValueError("no record of a run")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise damaged(path, error, folder) from error
    return record


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_text(folder / RECORD, json.dumps(record, indent=1))


SAME = (
    "model", "weights", "architecture", "text_encoder", "precision", "schedule", "prompts", "negative", "seed",
    "settings", "probes", "accelerators", "options", "log_version",
    "contents",
)  # fmt: skip


def run_key(record: dict[str, Any]) -> str:
    """16 hexadecimal digits of all that decides the log."""
    deciding = {name: record[name] for name in SAME if name != "contents" or record[name]}
    text = json.dumps(deciding, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_run(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the run in a folder, None where one may begin: also in place of one that finished nothing.

    Raises VarlabError for another run, a damaged record, and a folder that holds something else.
    """
    found = read_record(folder)
    if found is None:
        if not all(is_passing(item) for item in _items(folder)):
            raise VarlabError(f"{folder} is not empty and holds no run. Give another folder.")
        return None
    if _different(found, asked) and not has_begun(folder):
        return None
    if is_finished(folder):
        found |= {"log_version": logs.LOG_VERSION}  # ``open_log`` reads finished ones of any version
    refuse_another(folder, found, asked)
    return found


def _items(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_passing(item: Path) -> bool:
    """Files of a lock, and what a killed process left of a write."""
    return item.name.startswith((LOCK, OWNER, DRAFT))


def has_begun(folder: Path) -> bool:
    """Whether a run finished something: a batch, or an image of one."""
    return bool(parts_of(folder)) or (folder / STORE).exists() or any((folder / "images").glob("[0-9]*.png"))


def forget(folder: Path) -> None:
    """Remove what a run that finished nothing has left."""
    for name in ("parts", "images"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / RECORD).unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove what killed processes have left of their writes; for the folder's only writer. Returns how many."""
    drafts = [item for place in (folder, folder / "parts", folder / "images") for item in place.glob(f"{DRAFT}*")]
    for draft in drafts:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
    return len(drafts)


def _different(found: Mapping[Any, Any], asked: Mapping[str, Any]) -> list[str]:
    found = {"contents": {}} | dict(found)  # of older versions
    return [name for name in SAME if name in asked and found.get(name) != asked[name]]


def refuse_another(folder: Path, found: Mapping[Any, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a run whose record differs in what ``asked`` names, of ``SAME``."""
    if different := _different(found, asked):
        held = ", ".join(f"{name} {found.get(name)}" for name in ("model", "prompt_set", "n", "seed"))
        raise VarlabError(
            f"{folder} holds another run (different: {', '.join(different)}; there: {held}). Give another folder."
        )

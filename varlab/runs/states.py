"""What run folders hold and in which state they are: listed, verified, repaired, removed."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from varlab.errors import VarlabError
from varlab.locks import LOCK, OWNER, one_writer, owner_of
from varlab.runs.folders import RECORD, lacks, open_log, parts_of, read_record, sweep, write_record
from varlab.runs.kinds import State, kind_at, others_in
from varlab.runs.manifest import MANIFEST, STORE, faults, read_manifest, unreadable_images, write_manifest
from varlab.runs.parts import load_part

LOG, LOG_FILES = "log", (RECORD, STORE, MANIFEST, "parts", "images")


def progress_of(folder: Path) -> str:
    """How many images of a run are there, in words; nothing before its record is written."""
    try:
        record = read_record(folder)
    except VarlabError:
        return ""
    count = len(list((folder / "images").glob("[0-9]*.png")))
    return f"{count} of {record['n']} images" if record else ""


def verify(folder: Path | str, full: bool = True) -> State:
    """The state of a run folder; ``full`` reads all of it, else sizes and the record decide.

    Raises VarlabError where there is no run.
    """
    folder = Path(folder)
    _require_kind(folder)
    if owner := owner_of(folder):
        return State("running", tuple(filter(None, (str(owner), progress_of(folder)))))
    try:
        if (kind := kind_at(folder)) is not None:
            kind.record(folder)
            return kind.state(folder, full)
        wrong = _wrong(folder, full)
    except VarlabError as error:
        return State("damaged", (str(error),))
    if wrong:
        return State("damaged", tuple(wrong))
    if (folder / STORE).exists():
        return State("complete")
    return State("partial", (progress_of(folder),))


def _wrong(folder: Path, full: bool) -> list[str]:
    """What is wrong with a run that nobody writes. Raises VarlabError for a file that cannot be read."""
    record = read_record(folder)
    if record is None:
        return [f"{RECORD} is missing"]
    if read_manifest(folder) is not None:
        return faults(folder, full)
    parts = parts_of(folder)
    if (folder / STORE).exists() and not parts:
        return [text] if (text := lacks(open_log(folder))) else []
    for part in parts if full else ():
        load_part(part)
    return []


def kind_of(folder: Path) -> str | None:
    """log, comparison, benchmark, sweep, tuning or frontier; None for a folder of something else."""
    if (kind := kind_at(folder)) is not None:
        return kind.name
    return LOG if (folder / RECORD).is_file() or (folder / STORE).is_dir() or parts_of(folder) else None


def _require_kind(folder: Path) -> str:
    if (kind := kind_of(folder)) is None:
        raise VarlabError(f"{folder} holds no run. `varlab runs ls` lists those that are here.")
    return kind


def repair(folder: Path | str, *, wait: bool = True) -> list[str]:
    """Mend what can be mended without sampling; returns what was done, line by line.

    Drafts of killed processes go. A damaged record is written again from the log; a damaged batch is removed, and so
    is a damaged log: the command that made the run then makes these again. An older log without a manifest that is
    whole gets one. Images are removed where they cannot be read.
    Of other kinds only the drafts go: their commands make again what is damaged.
    Raises VarlabError where there is no run, and where nothing is left that says what the run was.
    """
    folder = Path(folder)
    kind = _require_kind(folder)
    with one_writer(folder, wait=wait):
        done = [f"removed {count} unfinished files"] if (count := sweep(folder)) else []
        if kind != LOG:
            return done
        done += [*_repair_record(folder), *_repair_parts(folder), *_repair_images(folder), *_repair_log(folder)]
    return done


def _repair_record(folder: Path) -> Iterator[str]:
    try:
        if read_record(folder) is not None:
            return
    except VarlabError:
        pass
    record = _record_of_log(folder)
    if record is None:
        raise VarlabError(
            f"{folder / RECORD} cannot be restored: no whole log says what the run was. "
            f"Remove the folder (varlab runs rm {quote(str(folder))}) and run it again."
        )
    write_record(folder, record)
    yield f"wrote {RECORD} again from the log"


def _record_of_log(folder: Path) -> dict[str, Any] | None:
    """The record as the root of the log holds it."""
    try:
        held = json.loads((folder / STORE / "zarr.json").read_text("utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return held if isinstance(held, dict) and "key" in held else None


def _repair_parts(folder: Path) -> Iterator[str]:
    for part in parts_of(folder):
        try:
            load_part(part)
        except VarlabError:
            part.unlink()
            yield f"removed the damaged batch {part.name}: the same command makes it again"


def _repair_images(folder: Path) -> Iterator[str]:
    for image in unreadable_images(folder):
        image.unlink()
        yield f"removed {image.relative_to(folder).as_posix()}, which cannot be read: the same command draws it again"


def _repair_log(folder: Path) -> Iterator[str]:
    if not (folder / STORE).exists():
        return
    if parts_of(folder) and not (folder / MANIFEST).exists():
        shutil.rmtree(folder / STORE)
        yield f"removed the unfinished {STORE}: the same command makes it again from its batches"
        return
    try:
        wrong = next(iter(faults(folder, full=True, beginning=STORE)), "") or lacks(open_log(folder))
    except VarlabError as error:
        wrong = str(error).split("damaged (")[-1].split("). `")[0]
    if wrong:
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder / STORE)
        yield f"removed the damaged {STORE} ({wrong}): the same command makes it again"
    elif missing := _image_faults(folder):
        yield f"{missing}: the log is whole; the command that made the run draws images that are not there again"
    elif not (folder / MANIFEST).exists():
        write_manifest(folder)
        yield f"wrote {MANIFEST} after reading the whole log"


def _image_faults(folder: Path) -> str:
    wrong = faults(folder, full=True, beginning="images/")
    return f"{wrong[0]}{f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''}" if wrong else ""


# Lists


def runs_in(root: Path | str) -> list[Path]:
    """Folders of any kind of run at ``root`` and one level below."""
    root = Path(root)
    places = [root, *sorted(root.iterdir())] if root.is_dir() else []
    return [place for place in places if place.is_dir() and kind_of(place)]


def table(folders: list[Path]) -> pd.DataFrame:
    """One row a run: kind, model, methods, n, state, MB on disk, age of the last write, folder."""
    return pd.DataFrame([_row(folder) for folder in folders])


def _row(folder: Path) -> dict[str, Any]:
    kind = kind_at(folder)
    model, methods, n = _of_log(folder) if kind is None else kind.row(folder)
    return {
        "kind": str(kind_of(folder)),
        "model": model,
        "methods": methods,
        "n": n,
        "state": verify(folder, full=False).word,
        "MB": f"{size(folder) / 1e6:.1f}",
        "age": age(folder),
        "folder": str(folder),
    }


def _of_log(folder: Path) -> tuple[str, str, str]:
    """Model, methods and n."""
    record = _record_of(folder)
    return record.get("model", "?"), "+".join(record.get("accelerators", ())) or "none", str(record.get("n", "?"))


def _record_of(folder: Path) -> dict[str, Any]:
    """What a folder says of itself; nothing where that cannot be read."""
    kind = kind_at(folder)
    try:
        record = kind.record(folder) if kind is not None else read_record(folder) or {}
    except VarlabError:
        return {}
    return dict(record.get("facts", record))


def shown(folder: Path | str) -> dict[str, str]:
    """What a run was, for people. Raises VarlabError where there is no run."""
    folder = Path(folder)
    state = verify(folder, full=False)
    record = _record_of(folder)
    names = ("model", "weights", "precision", "prompt_set", "n", "negative", "seed", "settings", "accelerators",
             "probes", "device", "date", "key")  # fmt: skip
    found = {name: str(record[name]) for name in names if record.get(name) not in (None, [], "")}
    return {
        "kind": str(kind_of(folder)),
        "state": str(state),
        "size": f"{size(folder) / 1e6:.1f} MB, written {age(folder)} ago",
    } | found


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def age(folder: Path) -> str:
    """Since the last write, in the largest unit that fits."""
    last = max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)
    seconds = max(0.0, time.time() - last)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def remove(folder: Path | str) -> int:
    """Remove a run folder that nobody writes in; returns the bytes freed.

    Only the files of a run go. Raises VarlabError for a folder without a run, one that is being written, and one with
    other files in it.
    """
    folder = Path(folder)
    if kind_of(folder) is None:
        raise VarlabError(f"{folder} holds no run; nothing was removed.")
    kind = kind_at(folder)
    records, own = ((MANIFEST, RECORD), LOG_FILES) if kind is None else (kind.records, kind.own)
    with one_writer(folder, wait=False):
        sweep(folder)
        if other := list(others_in(folder, (*own, LOCK, OWNER))):
            raise VarlabError(
                f"{folder} also holds {', '.join(other)}, which is no part of a run; nothing was removed."
            )
        freed = size(folder)
        for name in records:  # first: what is left of a removal that is cut is no run
            (folder / name).unlink(missing_ok=True)
        for item in [item for item in folder.iterdir() if item.name not in (LOCK, OWNER)]:
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    folder.rmdir()
    return freed

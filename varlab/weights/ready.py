"""Models that a process loaded before it was forked: each fork takes its own from memory, where they lie once."""

from pathlib import Path
from typing import Any

from varlab.weights.official import ModelEntry

_ready: dict[str, tuple[Any, Any]] = {}  # what the folder held, and the model


def add(entry: ModelEntry, model: Any) -> None:
    """For the next who asks for this mini as it is."""
    _ready[entry.name] = _stamp(entry.folder), model


def take(entry: ModelEntry) -> Any:
    """The model, once; None where there is none, or its files are others now."""
    stamp, _ = _ready.get(entry.name, (None, None))
    return _ready.pop(entry.name)[1] if stamp is not None and stamp == _stamp(entry.folder) else None


def _stamp(folder: Path | None) -> Any:
    """None where the folder is gone."""
    try:
        stats = {} if folder is None else {file: file.stat() for file in sorted(folder.iterdir())}
    except OSError:
        return None
    return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()]

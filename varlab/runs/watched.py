"""How far a run within a report is, for whoever makes the report: a file with the prompts done and all of them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from varlab.writing import beside

WATCHED = "VARLAB_PROGRESS"  # names the file
LOADED = "VARLAB_LOADED"  # names the models that the process which a batch's are forked from has loaded
EVERY = 0.5  # seconds


def watched() -> Callable[[float, int], None] | None:
    """What takes (prompts done, all of them) and writes them down; None where nobody looks."""
    if not (place := os.environ.get(WATCHED)):
        return None
    last = 0.0

    def write(done: float, total: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= EVERY:
            last = now
            with beside(Path(place)) as part:
                part.write_text(f"{done:.2f} {total}")

    return write

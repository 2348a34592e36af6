"""How far long work is where no bar is drawn: lines, for logs of jobs and for notebooks."""

import sys
import time
from datetime import timedelta


def in_notebook() -> bool:
    """Whether this runs in a cell that a person may watch."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Lines:
    """Progress as lines on stderr, for logs of jobs and for notebooks: at most one in ``EVERY`` seconds."""

    EVERY = 5.0

    def __init__(self) -> None:
        self.started: dict[str, tuple[float, float]] = {}  # label -> when, and how much was done before
        self.last = time.monotonic()

    def __call__(self, label: str, done: float, total: int) -> None:
        now = time.monotonic()
        since, before = self.started.setdefault(label, (now, done))
        if now - self.last < self.EVERY or not total:
            return
        self.last = now
        left = (now - since) / (done - before) * (total - done) if done > before else None
        ending = "" if left is None else f", {timedelta(seconds=round(left))} left"
        sys.stderr.write(f"{label} {int(done)} of {total} done, {100 * done / total:.0f} % of the work{ending}\n")
        sys.stderr.flush()

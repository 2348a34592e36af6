"""Runs: what is given to one, the run itself, its folder, and what its records say. A log is opened without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from varlab.probes.log import LOG_VERSION
    from varlab.runs.job import Job, Progress, default_batch, to_pil, work_shares
    from varlab.runs.run import MADE, Accelerators, Probes, RunResult, log_run, runs_folder, sample

_PLACES = "varlab.probes.log", "varlab.runs.job", "varlab.runs.run"
__all__ = [
    "LOG_VERSION", "MADE", "Accelerators", "Job", "Probes", "Progress", "RunResult", "default_batch", "log_run",
    "runs_folder", "sample", "to_pil", "work_shares",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return next(getattr(place, name) for place in map(import_module, _PLACES) if hasattr(place, name))

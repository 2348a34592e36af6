"""Runs: what is given to one, the run itself, its folder, and what its records say. A log is opened without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from varlab.probes.log import LOG_VERSION
    from varlab.runs.job import Job, Progress, default_batch, to_pil, work_shares
    from varlab.runs.run import MADE, Accelerators, Probes, RunResult, log_run, runs_folder, sample

_PLACES = {
    **dict.fromkeys(("LOG_VERSION",), "varlab.probes.log"),
    **dict.fromkeys(("Job", "Progress", "default_batch", "to_pil", "work_shares"), "varlab.runs.job"),
    **dict.fromkeys(
        ("MADE", "Accelerators", "Probes", "RunResult", "log_run", "runs_folder", "sample"), "varlab.runs.run"
    ),
}
__all__ = [
    "LOG_VERSION",
    "MADE",
    "Accelerators",
    "Job",
    "Probes",
    "Progress",
    "RunResult",
    "default_batch",
    "log_run",
    "runs_folder",
    "sample",
    "to_pil",
    "work_shares",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)

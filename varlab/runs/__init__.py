"""Runs: what is given to one, the run itself, its folder, and what its records say."""

from varlab.runs.run import (
    LOG_VERSION,
    MADE,
    Accelerators,
    Job,
    Probes,
    Progress,
    RunResult,
    default_batch,
    log_run,
    provenance,
    runs_folder,
    sample,
    to_pil,
    work_shares,
)

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
    "provenance",
    "runs_folder",
    "sample",
    "to_pil",
    "work_shares",
]

"""Runs: what is given to one, the run itself, its folder, and what its records say."""

from varlab.probes.log import LOG_VERSION
from varlab.runs.job import Job, Progress, default_batch, to_pil, work_shares
from varlab.runs.provenance import provenance
from varlab.runs.run import MADE, Accelerators, Probes, RunResult, log_run, runs_folder, sample

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

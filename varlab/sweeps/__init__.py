"""Sweeps: many models, methods, settings, prompts and seeds in shards, on dask."""

from varlab.sweeps.file import Plan, read_plan
from varlab.sweeps.predict import Forecast, forecast
from varlab.sweeps.rehearsal import rehearse
from varlab.sweeps.run import Sweep, sweep
from varlab.sweeps.scheduler import Failure, Tally

__all__ = ["Failure", "Forecast", "Plan", "Sweep", "Tally", "forecast", "read_plan", "rehearse", "sweep"]

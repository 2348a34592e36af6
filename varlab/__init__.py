"""Workbench for next-scale visual autoregressive image models.

>>> import varlab as vl
>>> run = vl.sample("nano-infinity", ["a red star above a blue ring"], probes=["residual-spectrum"])
>>> run.images[0]
>>> vl.figures.high_frequency_share(run.log)
"""

from importlib import import_module
from typing import Any

_PLACES = {
    **dict.fromkeys(("compare", "control", "load", "log", "open_log", "prompts", "sample"), "varlab.api"),
    **dict.fromkeys(("figures", "reports"), None),
}
__all__ = ["compare", "control", "figures", "load", "log", "open_log", "prompts", "reports", "sample"]


def __getattr__(name: str) -> Any:
    """Loaded on first use, so that ``varlab --help`` does not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'varlab' has no attribute {name!r}")
    place = _PLACES[name]
    return import_module(f"varlab.{name}") if place is None else getattr(import_module(place), name)

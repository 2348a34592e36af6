"""Workbench for next-scale visual autoregressive image models.

>>> import varlab as vl
>>> run = vl.sample("nano-infinity", ["a red star above a blue ring"], probes=["residual-spectrum"])
>>> run.images[0]
>>> vl.figures.high_frequency_share(run.log)
"""

import importlib as _importlib
from typing import Any as _Any

_OF_API = "compare", "control", "frontier", "load", "log", "open_log", "prompts", "sample"
_PLACES = {
    **dict.fromkeys(_OF_API, "varlab.api"),
    **dict.fromkeys(("compare_images", "compare_saved"), "varlab.comparison"),
    **dict.fromkeys(("attach", "same_model"), "varlab.attached"),
    **dict.fromkeys(("figures", "reports"), None),
    "explore": "varlab.figures.explore",
    "sweep": "varlab.sweeps",
}
__version__ = "0.1.0"
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> _Any:
    """Loaded on first use, so that ``varlab --help`` does not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'varlab' has no attribute {name!r}")
    place = _PLACES[name]
    module = _importlib.import_module(place or f"varlab.{name}")
    return getattr(module, name) if place else module


def __dir__() -> list[str]:
    """What tab completion offers."""
    return [*__all__, "__version__"]

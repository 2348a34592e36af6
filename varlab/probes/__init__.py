"""Probes by name, with options: ``residual-spectrum:preview=full``. ``probes.log`` does not wait for torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from varlab.probes.registry import PROBES, LoggingProbe, build

__all__ = ["PROBES", "LoggingProbe", "build"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from varlab.probes import registry

    return getattr(registry, name)

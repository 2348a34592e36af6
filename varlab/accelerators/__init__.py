"""Accelerators by name. A new one needs an entry here; the contract tests then cover it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from varlab.accelerators.controls import CfgOff, Truncate
from varlab.accelerators.sparsevar import SparseVAR
from varlab.accelerators.tokens import OracleTokens, RandomTokens, UniformTokens
from varlab.engine.hooks import Accelerator
from varlab.specs import make


@dataclass(frozen=True)
class Entry:
    """How a method is made. ``neutral`` changes nothing; ``engaging`` is sure to save work on any schedule."""

    make: Callable[..., Accelerator]
    neutral: str
    engaging: str | None = None


def _tokens(control: type[Accelerator]) -> Entry:
    return Entry(control, neutral=f"{control.name}:keep=1", engaging=f"{control.name}:keep=0.3,last=2")


ACCELERATORS = {
    "none": Entry(Accelerator, neutral="none"),
    "sparsevar": Entry(SparseVAR, neutral="sparsevar:tau=0", engaging="sparsevar:keep=0.3,last=2"),
    "truncate": Entry(Truncate, neutral="truncate:last=0", engaging="truncate:last=1"),
    "cfg-off": Entry(CfgOff, neutral="cfg-off:last=0", engaging="cfg-off:last=2"),
    "random-tokens": _tokens(RandomTokens),
    "uniform-tokens": _tokens(UniformTokens),
    "oracle-tokens": _tokens(OracleTokens),
}


def build(specs: Sequence[str | Accelerator]) -> list[Accelerator]:
    """Methods from specs such as ``truncate:last=1``; they run together and the stricter plan wins."""
    registry = {name: entry.make for name, entry in ACCELERATORS.items()}
    return [make("accelerator", spec, registry) if isinstance(spec, str) else spec for spec in specs]


__all__ = ["ACCELERATORS", "Entry", "build"]

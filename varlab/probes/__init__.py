"""Probes by name, and the small language that sets their options: ``residual-spectrum:preview=full``."""

import inspect
from collections.abc import Callable, Sequence

from varlab.errors import VarlabError, unknown
from varlab.probes.base import Log, LoggingProbe
from varlab.probes.branch_divergence import BranchDivergence
from varlab.probes.residual_spectrum import ResidualSpectrum
from varlab.probes.step_redundancy import StepRedundancy
from varlab.probes.token_mse import TokenMSE

PROBES: dict[str, Callable[..., LoggingProbe]] = {
    probe.name: probe for probe in (ResidualSpectrum, TokenMSE, BranchDivergence, StepRedundancy)
}


def probe(spec: str) -> LoggingProbe:
    """A probe from ``name`` or ``name:option=value,...``."""
    name, _, rest = spec.partition(":")
    if name not in PROBES:
        raise unknown("probe", name, PROBES)
    known = inspect.signature(PROBES[name]).parameters
    options: dict[str, object] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        if not equals:
            raise VarlabError(f"{spec!r}: option {key} has no value. Write {name}:{key}=VALUE.")
        options[key] = _flag(spec, key, value) if isinstance(known[key].default, bool) else value
    return PROBES[name](**options)


def _flag(spec: str, key: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise VarlabError(f"{spec!r}: {key} is true or false, not {value!r}.")
    return value == "true"


def build(specs: Sequence[str | LoggingProbe]) -> list[LoggingProbe]:
    """Probes from specs; a name may appear once."""
    made = [probe(spec) if isinstance(spec, str) else spec for spec in specs]
    names = [p.name for p in made]
    for name in names:
        if names.count(name) > 1:
            raise VarlabError(f"The probe {name!r} is given twice.")
    return made


__all__ = ["PROBES", "Log", "LoggingProbe", "build", "probe"]

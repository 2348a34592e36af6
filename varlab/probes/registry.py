"""Probes by name, with options: ``residual-spectrum:preview=full``."""

from collections.abc import Sequence

from varlab.errors import VarlabError, quoted
from varlab.probes.base import LoggingProbe
from varlab.probes.branch_divergence import BranchDivergence
from varlab.probes.residual_spectrum import ResidualSpectrum
from varlab.probes.step_redundancy import StepRedundancy
from varlab.probes.token_mse import TokenMSE
from varlab.specs import make

PROBES: dict[str, type[LoggingProbe]] = {
    probe.name: probe for probe in (ResidualSpectrum, TokenMSE, BranchDivergence, StepRedundancy)
}


def build(specs: Sequence[str | LoggingProbe] | str) -> list[LoggingProbe]:
    """Probes from specs, or from a single one; a name may appear once."""
    specs = [specs] if isinstance(specs, str) else specs
    made = [make("probe", spec, PROBES) if isinstance(spec, str) else spec for spec in specs]
    names = [p.name for p in made]
    for name in names:
        if names.count(name) > 1:
            raise VarlabError(f"The probe {quoted(name)} is given twice.")
    return made


__all__ = ["PROBES", "LoggingProbe", "build"]

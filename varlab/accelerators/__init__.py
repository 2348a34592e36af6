"""Methods by name. A new one needs an entry here; the contract tests then cover it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from varlab.accelerators.baselines import CfgOff, Truncate
from varlab.accelerators.decisions import always
from varlab.accelerators.fastvar import FastVAR, FastVARAllScales
from varlab.accelerators.freqexit import FreqExit
from varlab.accelerators.skipvar import LEAST, SkipVAR, SkipVARHybrid
from varlab.accelerators.sparsevar import SparseVAR, SparseVARLogits
from varlab.accelerators.tokens import OracleTokens, RandomTokens, UniformTokens
from varlab.engine.checks import refuse_clashes
from varlab.engine.hooks import Accelerator
from varlab.specs import make


@dataclass(frozen=True)
class Entry:
    """The class of a method. ``neutral`` changes nothing; ``engaging`` is sure to save work on any schedule of at
    least ``stages``. Either is a spec, or makes the method where no spec can say it."""

    kind: type[Accelerator]
    neutral: str | Callable[[], Accelerator]
    engaging: str | Callable[[], Accelerator] | None = None
    stages: int = 3


def _tokens(baseline: type[Accelerator]) -> Entry:
    return Entry(baseline, neutral=f"{baseline.name}:keep=1", engaging=f"{baseline.name}:keep=0.3,last=2")


DENSE = "none"  # the method that changes nothing

ACCELERATORS = {
    DENSE: Entry(Accelerator, neutral=DENSE),
    "sparsevar": Entry(SparseVAR, neutral="sparsevar:tau=0", engaging="sparsevar:keep=0.3,last=2"),
    "fastvar": Entry(FastVAR, neutral="fastvar:ratios=0,drop=0", engaging="fastvar:ratios=0.5,drop=1,first=1"),
    "fastvar-all-scales": Entry(
        FastVARAllScales, neutral="fastvar-all-scales:ratios=0", engaging="fastvar-all-scales:ratios=0.5,first=1"
    ),
    "truncate": Entry(Truncate, neutral="truncate:last=0", engaging="truncate:last=1"),
    "cfg-off": Entry(CfgOff, neutral="cfg-off:last=0", engaging="cfg-off:last=2"),
    "sparsevar-logits": Entry(
        SparseVARLogits, neutral="sparsevar-logits:tau=0", engaging="sparsevar-logits:keep=0.3,last=2"
    ),
    "skipvar": Entry(
        SkipVAR, neutral=lambda: SkipVAR(model=always(0, 0)), engaging=lambda: SkipVAR(model=always(0, 2)), stages=LEAST
    ),
    "skipvar-hybrid": Entry(
        SkipVARHybrid, neutral="skipvar-hybrid:drop=0,replace=0", engaging="skipvar-hybrid:drop=1,replace=1"
    ),
    "freqexit": Entry(FreqExit, neutral="freqexit:row=full", engaging="freqexit:row=d"),
    "random-tokens": _tokens(RandomTokens),
    "uniform-tokens": _tokens(UniformTokens),
    "oracle-tokens": _tokens(OracleTokens),
}


def build(specs: Sequence[str | Accelerator]) -> list[Accelerator]:
    """Methods from specs such as ``truncate:last=1``; they run together and the stricter plan wins.

    Raises VarlabError for unknown names and options, and for methods that cannot run together.
    """
    registry = {name: entry.kind for name, entry in ACCELERATORS.items()}
    methods = [make("method", spec, registry) if isinstance(spec, str) else spec for spec in specs]
    refuse_clashes(methods)
    return methods


__all__ = ["ACCELERATORS", "Entry", "build"]

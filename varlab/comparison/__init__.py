"""Methods against each other and against the dense run, on one engine."""

from varlab.comparison.bench import StageClock, methods_of
from varlab.comparison.interleaved import compare
from varlab.comparison.result import Comparison

__all__ = ["Comparison", "StageClock", "compare", "methods_of"]

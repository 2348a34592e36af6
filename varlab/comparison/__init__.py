"""Methods against each other and against the dense run, on one engine."""

from varlab.comparison.bench import StageClock, methods_of
from varlab.comparison.interleaved import PROMPTS, compare
from varlab.comparison.result import Comparison

__all__ = ["PROMPTS", "Comparison", "StageClock", "compare", "methods_of"]

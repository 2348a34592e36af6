"""Methods against each other and against the dense run, on one engine."""

from varlab.comparison.baselines import frontier
from varlab.comparison.bench import PROMPTS, methods_of
from varlab.comparison.interleaved import compare
from varlab.comparison.result import Comparison

__all__ = ["PROMPTS", "Comparison", "compare", "frontier", "methods_of"]

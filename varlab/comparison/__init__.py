"""Methods against each other and against the dense run: on one engine, as saved, or as pictures of any origin."""

from varlab.comparison.baselines import frontier
from varlab.comparison.bench import PROMPTS, methods_of
from varlab.comparison.image_result import ImageComparison
from varlab.comparison.images import compare_images
from varlab.comparison.interleaved import compare
from varlab.comparison.pairing import Paired, compare_saved
from varlab.comparison.result import Comparison

__all__ = [
    "PROMPTS", "Comparison", "ImageComparison", "Paired", "compare", "compare_images", "compare_saved", "frontier",
    "methods_of",
]  # fmt: skip

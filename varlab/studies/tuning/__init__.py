"""Which setting keeps most at a given work: a space of methods and compositions, halved prompt by prompt."""

from varlab.studies.tuning.halving import Tuned, tune
from varlab.studies.tuning.space import space_of

__all__ = ["Tuned", "space_of", "tune"]

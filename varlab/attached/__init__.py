"""Hooks on samplers of others: forks of Infinity, HART and VAR heard by the same probes, held against our models."""

from varlab.attached.attach import attach
from varlab.attached.hooked import Attached
from varlab.attached.same import Same, same_model

__all__ = ["Attached", "Same", "attach", "same_model"]

"""Early exits end to end: what they save, what they cost, and what training for them changes."""

from collections.abc import Sequence
from typing import Any

from varlab.models.base import NextScaleModel
from varlab.runs import Job
from varlab.runs.provenance import provenance


def facts_of(model: NextScaleModel, prompts: Sequence[str], seed: int) -> dict[str, Any]:
    """What a table over classes must say of itself."""
    return provenance(Job(model, tuple(prompts), model.settings, seed), "classes")

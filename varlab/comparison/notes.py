"""What a reader of a comparison must know: decision models that were fitted on its prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from varlab.errors import VarlabError
from varlab.scenes.prompt_sets import dealt, digest_of


def fitted_on(record: Mapping[str, Any], model: str | None) -> set[str] | None:
    """The texts that a decision model was fitted on, by its ``facts``; None where these or its file do not tell."""
    try:
        seen, _ = dealt(record["prompt_set"], record["n"], record["held_out"], record["seed"], model)
    except (KeyError, VarlabError):  # an older record; a file that is gone
        return None
    return set(seen) if digest_of(seen) == record.get("texts") else None


def fitted_notes(logs: Mapping[str, xr.DataTree], texts: Sequence[str]) -> list[str]:
    """A line on every row whose decision model was fitted on prompts of this comparison, whatever the seed."""
    found = []
    for name, log in logs.items():
        for node in log.children.values():
            fitted = node.attrs.get("decision_model", {})
            if "prompt_set" not in fitted:  # the official ones do not say
                continue
            seen = fitted_on(fitted, log.attrs.get("model"))
            if seen is None:
                found.append(f"{name}: the prompts that its decision model was fitted on cannot be told.")
            elif known := sum(text in seen for text in texts):
                found.append(
                    f"{name}: {known} of these {len(texts)} prompts are among the {fitted['n']} that its decision "
                    "model was fitted on, which flatters it."
                )
    return found

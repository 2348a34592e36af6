"""Tables that are measured once: read where the same inputs were measured before, here or before the weights shipped.

Only for what no clock measured: pictures, and scores of them, which depend on the inputs alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from varlab.analysis.measured import Measured, read_measured
from varlab.locks import one_writer
from varlab.models.base import NextScaleModel
from varlab.outputs import key_of
from varlab.runs import runs_folder
from varlab.runs.origins import contents
from varlab.weights.places import data_folder

VERSION = 1  # raised when a measure changes its meaning: tables of before are measured again
TABLE = "table"


def kept(make: Callable[..., Measured], *inputs: Any, again: bool = False) -> Measured:
    """What ``make(*inputs)`` measures: read where it is known, else measured and kept under ``runs/``.

    Parameters
    ----------
    make
        Measures a table whose rows depend on ``inputs`` alone.
    *inputs
        Models, mappings to models, and what JSON holds.
    again
        Measure anew what is known, in place of what is kept under ``runs/``.

    Returns
    -------
    Measured
        Its facts say on which device and when it was measured; ``origin`` says it in a sentence.

    Raises
    ------
    VarlabError
        For a table that is damaged.
    """
    name = f"{make.__name__}-{key_of({'version': VERSION, 'inputs': [_as_key(item) for item in inputs]})}"
    own = runs_folder() / name
    for place in () if again else (own, *(data_folder() / model.name / name for model in _models(inputs))):
        if (place / f"{TABLE}.csv").is_file():  # written last: a folder without it was begun, or is being filled
            return read_measured(place, TABLE)
    with one_writer(own):
        if again or not (own / f"{TABLE}.csv").is_file():  # a second process finds what the first one measured
            make(*inputs).save(own, TABLE)
    return read_measured(own, TABLE)


def origin(found: Measured) -> str:
    """Where and when a table was measured, for the page that shows it."""
    facts, versions = found.facts, found.facts["versions"]
    return (
        f"Measured on {facts['device']}, {facts['date'][:10]} (varlab {versions['varlab']}, git {facts['git']}, torch "
        f"{versions['torch']}), and kept: a report on the same inputs reads it."
    )


def _models(inputs: Any) -> Iterator[NextScaleModel]:
    for item in inputs:
        if isinstance(item, NextScaleModel):
            yield item
        elif isinstance(item, Mapping):
            yield from _models(item.values())


def _as_key(item: Any) -> Any:
    """An input as it goes into the key; of a model all that decides its pictures but the device."""
    if isinstance(item, Mapping):
        return {name: _as_key(value) for name, value in item.items()}
    if not isinstance(item, NextScaleModel):
        return item
    content = getattr(item.weights, "content", {})
    facts = [
        item.name,
        type(item).__name__,
        str(item.weights),
        content,
        item.precision,
        item.schedule.grids,
        asdict(item.settings),
    ]
    return [*facts, contents(item)]

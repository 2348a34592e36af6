"""Whether a model can run methods: each is started once, on shapes alone where the weights are not loaded yet."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from varlab.engine.checks import refuse_unfit
from varlab.engine.hooks import Accelerator
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.runs.inputs import at_least, with_overrides
from varlab.runs.inputs import keywords as own_keywords
from varlab.weights.official import ModelEntry
from varlab.weights.options import LoadOptions
from varlab.weights.registry import find
from varlab.weights.zoo import assemble, check_captions, load, shipped_weights

Groups = Iterable[Sequence[Accelerator]]  # methods; those of a group run together


def try_methods(model: NextScaleModel, settings: Settings, methods: Sequence[Accelerator]) -> None:
    """Raises VarlabError for methods that this model cannot run together with these settings; draws nothing."""
    run = Run(model, settings, SeededNoise(0))
    for method in methods:
        method.start(run.context)
    refuse_unfit(run.context, methods)


def shapes_of(
    entry: ModelEntry, *, pixels: str | None = None, ratio: float = 1.0, trained: bool = True
) -> NextScaleModel:
    """A model without its weights; ``trained``: under their label, where they ship."""
    shapes: Any = assemble(entry, LoadOptions("empty", pixels=pixels, ratio=ratio))
    if trained and (label := shipped_weights(entry)):
        shapes.weights = label
    return shapes  # type: ignore[no-any-return]


def check_methods(
    entry: ModelEntry,
    groups: Groups,
    settings: Mapping[str, Any],
    *,
    keywords: Sequence[str] = (),
    pixels: str | None = None,
    ratio: float = 1.0,
    trained: bool = True,
) -> None:
    """Refuse settings, and methods in groups that run together, which the model of an entry cannot run.

    Reads no weights, which may take minutes.

    Parameters
    ----------
    settings, keywords: as ``with_overrides`` takes them.
    pixels, ratio: the schedule asked for.
    trained: whether the entry's own trained weights would be loaded.

    Raises
    ------
    VarlabError: as the run would.
    """
    chosen = with_overrides(entry.settings, keywords, **settings)
    chosen.check(len(entry.schedule(pixels, ratio)), entry.transformer.depth)
    if not any(groups := [list(group) for group in groups]):
        return
    shapes = shapes_of(entry, pixels=pixels, ratio=ratio, trained=trained)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when it runs
        for methods in groups:
            try_methods(shapes, chosen, methods)


def load_for(
    function: Callable[..., Any], model: NextScaleModel | str, captions: Sequence[str], groups: Groups,
    options: Mapping[str, Any],
) -> NextScaleModel:  # fmt: skip
    """The model; one given by name only where it can run ``function`` with these, since weights may take minutes."""
    if not isinstance(model, str):
        return model
    at_least(0, seed=options.get("seed"), stages_of=options.get("stages_of"))
    at_least(1, batch=options.get("batch"), timed=options.get("timed"))
    entry, keywords = find(model), own_keywords(function)
    check_captions(entry, captions)
    settings = {name: value for name, value in options.items() if name not in keywords}
    check_methods(entry, groups, settings, keywords=keywords)
    return load(model)

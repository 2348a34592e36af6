"""The way in: ``vl.attach``."""

from pathlib import Path
from typing import Any

from torch import nn

from varlab.attached.hooked import Attached
from varlab.attached.places import Places
from varlab.errors import VarlabError
from varlab.probes import PROBES, build
from varlab.runs.inputs import as_hooks, at_least

SETTINGS = ("cfg", "tau", "cfg_layers", "top_k", "top_p")


def attach(
    model: nn.Module,
    vae: nn.Module | None = None,
    *,
    probes: Any = None,
    places: Places | None = None,
    folder: Path | str | None = None,
    seed: int | None = None,
    name: str | None = None,
    **settings: Any,
) -> Attached:
    """Listen to a module that has the structure of the released Infinity, HART or VAR, such as a fork of one.

    Nothing is changed in what it computes: hooks are placed on entering the context and undone on leaving it, after an
    error too. What cannot be seen is missing in the log, and named in ``log.attrs["unseen"]``.

    Parameters
    ----------
    model
        The transformer, in evaluation mode.
    vae
        Infinity's tokenizer, where it is not given to the sampler. VAR and HART hold their own.
    probes
        Names or objects, as for ``vl.log``; all of them by default. They cost time and memory as in a run of ours.
    places
        For forks that hand blocks a part of the tokens: ``places(stage, block)``, both counted from 0, gives their
        positions on the stage's grid [n] or [B, n], or a boolean mask. Without it the tokens have no maps.
    folder
        A run folder that keeps pictures and log, and that a later session goes on with.
    seed
        For the record; by default the ``g_seed`` of the first call.
    name
        Of the model in tables and figures; "attached-" and the class by default.
    **settings
        cfg, tau, cfg_layers of a sampler that is not ``autoregressive_infer_cfg``: without them nothing can be said of
        guided predictions.

    Returns
    -------
    Attached
        A context, and a decorator around a function that draws one prompt.

    Raises
    ------
    VarlabError
        For a module of no known structure, one that is compiled, sharded, empty or in training mode, and unknown
        probes; on entering, for a module that is attached already.

    Examples
    --------
    >>> with vl.attach(model, vae=vae) as hooked:
    ...     picture = model.autoregressive_infer_cfg(vae=vae, B=1, g_seed=0, **arguments)
    >>> vl.figures.high_frequency_share(hooked.log)
    """
    at_least(0, seed=seed)
    unknown = set(settings) - set(SETTINGS)
    if unknown:
        raise VarlabError(
            f"vl.attach takes no {', '.join(sorted(unknown))}. Settings are cfg, tau, cfg_layers, top_k, top_p."
        )
    built = build(as_hooks(tuple(PROBES) if probes is None else probes))
    place = None if folder is None else Path(folder)
    return Attached(model, vae, built, places, place, seed, name, settings)

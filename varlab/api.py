"""The four-line face of the package: what ``import varlab as vl`` offers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import xarray as xr

from varlab import comparison, runs
from varlab.accelerators import build
from varlab.analysis.frontier import Frontier
from varlab.comparison import Comparison
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.probes import PROBES
from varlab.probes import build as build_probes
from varlab.runs import RunResult, folders, inputs
from varlab.runs.folders import open_log
from varlab.runs.inputs import check_counts
from varlab.runs.trial import Groups, load_for
from varlab.scenes.prompt_files import is_prompt_file
from varlab.scenes.prompt_sets import CUSTOM, Given, PromptSet, choose, prompts
from varlab.specs import spec_of
from varlab.weights.registry import MODELS
from varlab.weights.zoo import load

NO_PART_OF_A_RUN = ("batch", "progress", "wait")  # options of ``log`` that change nothing in a run


def sample(model: NextScaleModel | str, texts: inputs.Prompts, **options: Any) -> RunResult:
    """Images of prompts, with probes if asked.

    Parameters
    ----------
    model
        A model or its name.
    texts
        A prompt, or several; class names or numbers of a class-conditional model; or text features.
    **options
        Those of ``varlab.runs.sample``: ``seed``, ``probes``, ``accelerators``, ``negative``, ``batch``, ``progress``,
        and settings in place of the model's own (``cfg``, ``tau``, ``top_k``, ``top_p``, ``cfg_layers``).

    Returns
    -------
    RunResult
        ``images`` in the order of the prompts, the ``log`` of the probes, and the ``ledger`` of the work.

    Raises
    ------
    VarlabError
        Before any work, for what does not fit: names, numbers, prompts that the model cannot read.

    Examples
    --------
    >>> run = vl.sample("nano-infinity", ["a red star"], probes=["residual-spectrum"])
    >>> run.images[0].save("star.png")
    >>> run.log["residual-spectrum"].power.sel(source="preview change")
    """
    items = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Sequence) else []
    captions = [item for item in items if isinstance(item, str)]
    return runs.sample(load_for(runs.sample, model, captions, _together(options), options), texts, **options)


def log(
    model: NextScaleModel | str,
    prompt_set: Given = None,
    *,
    n: int | None = None,
    seed: int | None = None,
    folder: Path | str | None = None,
    probes: runs.Probes | None = None,
    **options: Any,
) -> xr.DataTree:
    """The log of a run: opened if the folder holds it, finished if it was interrupted, else made.

    A finished run is opened for a model given by name without loading that: only what is given here is compared with
    it, so a run may have other options (precision, device, tau).

    Parameters
    ----------
    model
        A model or its name.
    prompt_set
        A name or a file for ``prompts``, or the texts themselves. None is the set that every model of this kind can
        read: "scenes", or "classes" of a class-conditional one.
    n
        Prompts; time and disk grow in proportion. None is the whole set.
    seed
        Image i depends on (seed, i) alone. 0 by default.
    folder
        By default one under ``runs/`` that is named after the run and its key, so that other weights or settings get
        another one.
    probes
        Names, specs or objects; all of them by default.
    **options
        Those of ``varlab.runs.log_run``: ``batch``, ``accelerators``, ``negative``, ``wait``, ``progress`` and
        settings (``cfg``, ``tau``, ``top_k``, ``top_p``, ``cfg_layers``).

    Returns
    -------
    xr.DataTree
        A group for each probe, read chunk by chunk; ``attrs`` say how the run was made.

    Raises
    ------
    VarlabError
        For inputs that do not fit each other, and for a folder that holds another run or is damaged.

    Examples
    --------
    >>> log = vl.log("nano-infinity", "scenes", n=8)
    >>> log["token-mse"].mse.sel(sublayer="ffn", guidance_row="conditional").mean("prompt")
    """
    check_counts(n=n)
    if isinstance(model, str) and folder and is_finished(folder):
        tree = open_log(folder)
        asked = asked_of(tree.attrs, model, prompt_set, n, seed=seed, probes=probes, **options)
        folders.refuse_another(Path(folder), tree.attrs, asked)
        return tree
    chosen = choose(prompt_set, n, model)
    return runs.log_run(
        load_for(runs.log_run, model, chosen, _together(options), options),
        list(chosen),
        Path(folder) if folder else None,
        probes=tuple(PROBES) if probes is None else probes,
        prompt_set=chosen.name,
        seed=0 if seed is None else seed,
        **options,
    )


def compare(
    model: NextScaleModel | str, prompt_set: Given = None, specs: Sequence[str] = (), **options: Any
) -> Comparison:
    """Methods against the dense run in one table, interleaved in one run.

    Parameters
    ----------
    model
        A model or its name.
    prompt_set
        As for ``log``.
    specs
        Methods as text; those joined by ``+`` run together. The dense run is always there.
    **options
        Those of ``varlab.comparison.compare``: ``n`` (32, or all of a shorter file; intervals narrow with its root,
        time grows with it), ``seed``, ``batch``, ``timed``, ``lpips``, ``frontier``, ``stages_of``, ``progress`` and
        settings; ``folder``, where it is kept as it grows and goes on after a stop, with ``overwrite`` and ``wait``;
        ``dense``, where dense images are kept for others too; ``foreign``, folders of pictures that other code drew of
        these prompts and seed, with ``foreign_latency``, a CSV of their seconds.

    Returns
    -------
    Comparison
        ``speed()`` and ``fidelity()`` with intervals; figures and verdicts take it as it is.

    Raises
    ------
    VarlabError
        Before any work, for unknown names, needs that are not met, methods that cannot run together, and a folder that
        holds something else.

    Examples
    --------
    >>> found = vl.compare("mini-infinity", "scenes", ["sparsevar:tau=0.6", "truncate:last=1"], n=16)
    >>> found.fidelity()
    """
    methods = [comparison.methods_of(spec) for spec in specs]
    return comparison.compare(*_loaded_with(model, prompt_set, comparison.compare, methods, options), specs, **options)


def frontier(model: NextScaleModel | str, prompt_set: Given = None, **options: Any) -> Frontier:
    """The best of leaving out work blindly, which ``compare`` judges methods by.

    Parameters
    ----------
    model, prompt_set
        As for ``compare``.
    **options
        Those of ``varlab.comparison.frontier``: ``n``, ``seed``, ``folder``, ``lpips``, ``batch``, ``dense``,
        ``progress`` and settings.

    Returns
    -------
    Frontier
        Drawn once for these inputs, kept in a folder, and read from there afterwards.

    Examples
    --------
    >>> vl.frontier("mini-infinity", "scenes", n=16).works()
    """
    return comparison.frontier(*_loaded_with(model, prompt_set, comparison.frontier, (), options), **options)


def control(log: xr.DataTree, n: int, folder: Path | str | None = None) -> xr.DataTree:
    """The first n prompts of a log once more, on random weights of the same model: what shows here too was not learnt.

    Parameters
    ----------
    log
        Of a run of a model that is known here.
    n
        Prompts; time grows in proportion.
    folder
        As for ``log``.

    Returns
    -------
    xr.DataTree
        A log with the same settings and seed.

    Raises
    ------
    VarlabError
        The model of the log is not known here, or has another schedule than the log.

    Examples
    --------
    >>> untrained = vl.control(vl.log("nano-infinity", n=32), n=8)
    """
    known = log.attrs
    model = load(known["model"], init="random")
    if [list(grid) for grid in model.schedule.grids] != known["schedule"]:
        raise VarlabError(f"The log is of another schedule than {model.name} has by default; it has no control.")
    return runs.log_run(
        model,
        known["prompts"][:n],
        Path(folder) if folder else None,
        probes=tuple(PROBES),
        prompt_set=known["prompt_set"],
        seed=known["seed"],
        **known["settings"],
    )


def _together(options: Mapping[str, Any]) -> Groups:
    return [build(inputs.as_hooks(options.get("accelerators", ())))]


def _loaded_with(
    model: NextScaleModel | str, prompt_set: Given, function: Callable[..., Any], methods: Groups,
    options: Mapping[str, Any],
) -> tuple[NextScaleModel, Given | PromptSet]:  # fmt: skip
    """The model and the prompts of a comparison, which are chosen first where the model is only a name."""
    if not isinstance(model, str):
        return model, prompt_set
    check_counts(n=options.get("n"))
    chosen = choose(prompt_set, options.get("n"), model, comparison.PROMPTS)
    return load_for(function, model, chosen, methods, options), chosen


# Run folders


def is_finished(folder: Path | str) -> bool:
    """Whether a folder holds a finished run: its log needs no model."""
    return folders.is_finished(Path(folder))


def asked_of(found: Mapping[Any, Any], model: str, prompt_set: Given, n: int | None, **options: Any) -> dict[str, Any]:
    """The part of a finished run's record that these inputs of ``log`` decide; None is not asked."""
    given = {name: value for name, value in options.items() if value is not None and name not in NO_PART_OF_A_RUN}
    asked: dict[str, Any] = {"model": model, "prompts": _texts(found, model, prompt_set, n)}
    if "probes" in given:
        asked["probes"] = [spec_of(hook) for hook in build_probes(inputs.as_hooks(given.pop("probes")))]
    if "accelerators" in given:
        asked["accelerators"] = [spec_of(hook) for hook in build(inputs.as_hooks(given.pop("accelerators")))]
    asked |= {name: given.pop(name) for name in ("seed", "negative") if name in given}
    entry = MODELS.get(model)  # a model that is gone still has its runs
    own = Settings() if entry is None else entry.settings
    settings = asdict(inputs.with_overrides(own, inputs.keywords(runs.log_run), **given))
    asked["settings"] = found.get("settings", {}) | {name: settings[name] for name in given}
    return dict(json.loads(json.dumps(asked)))


def _texts(found: Mapping[Any, Any], model: str, prompt_set: Given, n: int | None) -> list[str]:
    """The prompts asked for: None is the run's own set; of one that only the run still holds (texts of its own, a
    removed file) those there."""
    held = found.get("prompt_set", CUSTOM)
    name = held if prompt_set is None else prompt_set
    if not isinstance(name, str | PathLike):
        return choose(name, n).texts
    if str(name) == held and (name == CUSTOM or (is_prompt_file(str(name)) and not Path(name).is_file())):
        return list(found["prompts"][:n])
    return choose(name, found.get("n") if n is None else n, model if model in MODELS else None).texts


__all__ = ["compare", "control", "frontier", "load", "log", "open_log", "prompts", "sample"]

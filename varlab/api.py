"""The four-line face of the package: what ``import varlab as vl`` offers."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import xarray as xr

from varlab import comparison, runs
from varlab.accelerators import build
from varlab.accelerators.skipvar import read_decisions
from varlab.analysis.frontier import Frontier
from varlab.comparison import Comparison, ImageComparison, Paired
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.probes import PROBES
from varlab.probes import build as build_probes
from varlab.runs import RunResult, folders, inputs
from varlab.runs.folders import open_log
from varlab.runs.inputs import at_least
from varlab.runs.origins import plugin_options
from varlab.runs.trial import Groups, check_methods, load_for
from varlab.scenes.prompt_files import is_prompt_file
from varlab.scenes.prompt_sets import CUSTOM, Given, PromptSet, choose, prompts
from varlab.specs import spec_of
from varlab.weights.official import ModelEntry
from varlab.weights.registry import MODELS, find
from varlab.weights.zoo import check_captions, load, require, shipped_weights

NO_PART_OF_A_RUN = ("batch", "progress", "wait")  # options of ``log`` that change nothing in a run
COUNTS = ("n", "removal_n", "rounds", "batch")
SPECS = ("methods", "shown", "dropping", "pruning")  # inputs of a notebook that hold methods
OF_A_RUN = ("model", "prompt_set", "n", "seed")  # inputs of a notebook that a run folder knows


def sample(model: NextScaleModel | str, texts: inputs.Prompts, **options: Any) -> RunResult:
    """Images of prompts, with probes if asked: see ``varlab.runs.sample``. A model may be given by name.

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

    ``prompt_set`` is a name or a file for ``prompts``, or the texts themselves; None is the set that every model of
    this kind can read: "scenes", or "classes" of a class-conditional one. ``folder`` defaults to one under
    ``runs/`` that is named after the run and its key, so that other weights or settings get another one. ``seed``
    defaults to 0, ``probes`` to all. ``options`` are those of ``varlab.runs.log_run`` (batch, cfg, tau, top_k, top_p,
    accelerators, negative, wait). More prompts cost time and disk in proportion.
    A finished run is opened for a model given by name without loading that: only what is given here is compared with
    it, so a run may have other options (precision, device, tau).
    Raises VarlabError for inputs that do not fit each other, and for a folder that holds another run or is damaged.

    Examples
    --------
    >>> log = vl.log("nano-infinity", "scenes", n=8)
    >>> log["token-mse"].mse.sel(sublayer="ffn", guidance_row="conditional").mean("prompt")
    """
    at_least(1, n=n)
    if isinstance(model, str) and folder and is_finished(folder):
        tree = open_log(folder)
        asked = _asked(tree.attrs, model, prompt_set, n, seed=seed, probes=probes, **options)
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
    """Methods against the dense run in one table: see ``varlab.comparison.compare``. A model may be given by name.

    Examples
    --------
    >>> found = vl.compare("mini-infinity", "scenes", ["sparsevar:tau=0.6", "truncate:last=1"], n=16)
    >>> found.fidelity()
    """
    methods = [comparison.methods_of(spec) for spec in specs]
    return comparison.compare(*_loaded_with(model, prompt_set, comparison.compare, methods, options), specs, **options)


def frontier(model: NextScaleModel | str, prompt_set: Given = None, **options: Any) -> Frontier:
    """The best of leaving out work blindly, which ``compare`` judges by: see ``varlab.comparison.frontier``.

    Examples
    --------
    >>> vl.frontier("mini-infinity", "scenes", n=16).works()
    """
    return comparison.frontier(*_loaded_with(model, prompt_set, comparison.frontier, (), options), **options)


def compare_images(dense: Path | str, others: Sequence[Path | str] | Path | str, **options: Any) -> ImageComparison:
    """Folders of pictures of any origin against those of a dense run: see ``varlab.comparison.compare_images``.

    Examples
    --------
    >>> vl.compare_images("outputs/dense", ["outputs/fastvar", "outputs/skipvar"]).table
    """
    return comparison.compare_images(dense, others, **options)


def compare_saved(a: Path | str, b: Path | str, **options: Any) -> Paired:
    """Two saved comparisons or scores, paired image by image: see ``varlab.comparison.compare_saved``.

    Examples
    --------
    >>> vl.compare_saved("runs/a", "runs/b", margin={"ssim": 0.005}).table
    """
    return comparison.compare_saved(a, b, **options)


def control(log: xr.DataTree, n: int, folder: Path | str | None = None) -> xr.DataTree:
    """The first n prompts of a log once more, on random weights of the same model: what shows here too was not learnt.

    Raises VarlabError where the model of the log is not known here, or has another schedule than the log.

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
    at_least(1, n=options.get("n"))
    chosen = choose(prompt_set, options.get("n"), model, comparison.PROMPTS)
    return load_for(function, model, chosen, methods, options), chosen


# Run folders


def is_finished(folder: Path | str) -> bool:
    """Whether a folder holds a finished run: its log needs no model."""
    return folders.is_finished(Path(folder))


def _asked(found: Mapping[Any, Any], model: str, prompt_set: Given, n: int | None, **options: Any) -> dict[str, Any]:
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


# Notebooks


def absent_models(declared: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Models that a notebook takes by default, without which it cannot run: minis that are not trained yet.

    ``declared``: its parameters, of which ``model`` and ``trained`` name models; those given decide for themselves.
    """
    names = [declared[key].default for key in ("model", "trained") if key in declared and key not in given]
    return [name for name in names if name not in MODELS]


def check_inputs(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs for a notebook with these parameters: those given, and where they are silent those of its run.

    A finished run in ``run_folder`` decides what was not given, and a file of prompts that is shorter than the default
    ``n`` decides that. Looked at are the names that the shipped notebooks share: model, prompt_set, n, seed, cfg,
    run_folder, control_n, map_prompts, methods (also shown, dropping and pruning), targets and decision_model.
    Raises VarlabError for what the notebook would fail on after its kernel has started.
    """
    values = {**defaults, **given}
    folder, cfg = values.get("run_folder"), values.get("cfg")
    at_least(1, **{name: values.get(name) for name in COUNTS})
    at_least(0, seed=values.get("seed"), control_n=values.get("control_n"))
    if isinstance(cfg, float) and not math.isfinite(cfg):
        raise VarlabError(f"cfg must be a finite number, not {cfg}.")
    specs = [spec for name in SPECS if isinstance(text := values.get(name), str) for spec in text.split()]
    if "last" in values:  # of a calibration
        specs.append(f"sparsevar:last={values['last']}")
    if (methods := [comparison.methods_of(spec) for spec in specs]) and values.get("model"):
        check_methods(find(values["model"]), methods, {"cfg": cfg})
    if folder and is_finished(folder):
        found = open_log(folder).attrs
        values |= {name: found[name] for name in OF_A_RUN if name in found and name in defaults and name not in given}
        model, prompt_set, n, seed = (values.get(name) for name in OF_A_RUN)
        asked = _asked(found, str(model), prompt_set, n, seed=seed, cfg=cfg)
        folders.refuse_another(Path(folder), found, asked)
    else:
        values |= _check_new(values, "n" in given)
    if n := values.get("n"):
        for number in given.get("map_prompts") or ():
            if not 0 <= number < n:
                raise VarlabError(f"map_prompts: {number} is none of the {n} prompts, which count from 0 to {n - 1}.")
    return {name: value for name, value in values.items() if name in given or value != defaults[name]}


def _check_new(values: Mapping[str, Any], n_given: bool) -> dict[str, Any]:
    """Refuses a run that cannot be made or finished; returns ``n`` where a file of prompts is shorter than that."""
    name, prompt_set, n = values.get("model"), values.get("prompt_set"), values.get("n")
    entry = find(name) if name else None
    chosen = None
    if "prompt_set" in values:
        short = not n_given and prompt_set is not None and is_prompt_file(prompt_set)
        chosen = choose(prompt_set, model=name, most=n) if short else choose(prompt_set, n, name)
    if entry is not None:
        require(entry)
        check_captions(entry, chosen or ())
        _check_decisions(entry, values)
        if folder := values.get("run_folder"):
            folders.find_run(Path(folder), _planned(entry, chosen, values))
    return {} if n is None or chosen is None else {"n": len(chosen)}


def _check_decisions(entry: ModelEntry, values: Mapping[str, Any]) -> None:
    """Refuses targets without a decision model for this model."""
    for target in values.get("targets") or ():
        model = read_decisions(values.get("decision_model"), entry.name, target)
        model.check(entry.family, len(entry.schedule(None, 1.0)), shipped_weights(entry))


def _planned(entry: ModelEntry, chosen: PromptSet | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the run that a notebook would make, as far as it is known without loading the model."""
    planned = {
        "model": entry.name,
        "precision": "fp32",
        "schedule": entry.schedule(None, 1.0).grids,
        "negative": None,
        "seed": values.get("seed", 0),
        "settings": asdict(inputs.with_overrides(entry.settings, cfg=values.get("cfg"))),
        "probes": tuple(PROBES),
        "accelerators": (),
        "options": plugin_options(tuple(PROBES), ()),
        "log_version": runs.LOG_VERSION,
    }
    if chosen is not None:
        planned["prompts"] = chosen.texts
    return dict(json.loads(json.dumps(planned)))


__all__ = ["compare", "control", "frontier", "load", "log", "open_log", "prompts", "sample"]

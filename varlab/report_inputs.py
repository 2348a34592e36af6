"""The inputs of a notebook, checked before its kernel starts."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from varlab import comparison, runs
from varlab.accelerators.skipvar import read_decisions
from varlab.api import asked_of, is_finished
from varlab.claims.ledger import claims_folder
from varlab.comparison.layouts import read_layout
from varlab.errors import VarlabError
from varlab.evaluation.distances import check_enough
from varlab.probes import PROBES
from varlab.reports.orders import Order
from varlab.runs import folders, inputs
from varlab.runs.folders import open_log
from varlab.runs.inputs import at_least, check_counts
from varlab.runs.origins import plugin_options
from varlab.runs.trial import check_methods
from varlab.scenes.prompt_files import is_prompt_file
from varlab.scenes.prompt_sets import PromptSet, choose
from varlab.weights.content import digest_of_files
from varlab.weights.embedded import data_folder
from varlab.weights.official import ModelEntry
from varlab.weights.registry import MODELS, find
from varlab.weights.zoo import check_captions, files_of, require, shipped_weights

COUNTS = ("n", "removal_n")
SPECS = ("methods", "shown", "dropping", "pruning")  # inputs that hold methods
FILLED = ("run_folder", "report_folder")  # that a report fills itself: a run knows what it is of
OF_A_RUN = ("model", "prompt_set", "n", "seed")  # inputs that a run folder knows


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
    run_folder, control_n, map_prompts, methods (also shown, dropping and pruning), foreign, targets and decision_model.
    Raises VarlabError for what the notebook would fail on after its kernel has started.
    """
    values = {**defaults, **given}
    folder, cfg = values.get("run_folder"), values.get("cfg")
    at_least(0, seed=values.get("seed"), control_n=values.get("control_n"))
    at_least(1, **{name: values.get(name) for name in ("rounds", "timed", "batch")})
    check_counts(**{name: values.get(name) for name in COUNTS}, control_n=values.get("control_n") or None)
    if compared := values.get("n" if "trained" in values else "removal_n"):
        check_enough(compared)  # images whose distance to scenes is told
    if isinstance(cfg, float) and not math.isfinite(cfg):
        raise VarlabError(f"cfg must be a finite number, not {cfg}.")
    specs = [spec for name in SPECS if isinstance(text := values.get(name), str) for spec in text.split()]
    for place in values.get("foreign") or ():
        read_layout(Path(place))
    if "last" in values:  # of a calibration
        specs.append(f"sparsevar:last={values['last']}")
    if (methods := [comparison.methods_of(spec) for spec in specs]) and values.get("model"):
        check_methods(find(values["model"]), methods, {"cfg": cfg})
    if folder and is_finished(folder):
        found = open_log(folder).attrs
        values |= {name: found[name] for name in OF_A_RUN if name in found and name in defaults and name not in given}
        model, prompt_set, n, seed = (values.get(name) for name in OF_A_RUN)
        asked = asked_of(found, str(model), prompt_set, n, seed=seed, cfg=cfg)
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


def digests(inputs: Mapping[str, Any]) -> dict[str, str]:
    """What a report reads besides its inputs: models and files, by the words that name them, all that ships where no
    model is named, and the stored claims. ``inputs``: all, with the defaults."""
    words = dict.fromkeys(word for name, value in inputs.items() if name not in FILLED for word in _words(value))
    models = [MODELS[word] for word in words if word in MODELS]
    found = {entry.name: digest_of_files([*{data_folder() / entry.name, *files_of(entry)}]) for entry in models}
    found = found or {"all": digest_of_files([data_folder()])}
    found["claims"] = digest_of_files([claims_folder()])
    return found | {word: digest for word in words if word not in found and (digest := _digest(word))}


def shared_minis(orders: Sequence[Order]) -> list[str]:
    """The minis that several reports read, which a batch then loads once."""
    named = Counter(name for order in orders for name in order.read if name in MODELS and MODELS[name].folder)
    return [name for name, count in named.items() if count > 1]


def _digest(word: str) -> str:
    """Of the file or folder of this name; empty where there is none."""
    try:
        return digest_of_files([Path(word)])
    except OSError:  # a text that is too long for a name
        return ""


def _words(value: Any) -> Iterator[str]:
    """Texts, also those in lists, and what in them a path may be: a spec names files too."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str):
            yield from (text, *(word for word in re.split(r"[\s:=,+]+", text) if Path(word).suffix))

"""The file of a sweep: what it may say, read and checked as a whole before any work."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from varlab.comparison.bench import methods_of
from varlab.errors import VarlabError, cause, quoted, unknown
from varlab.runs.inputs import at_least, check_counts
from varlab.runs.trial import check_methods
from varlab.scenes.prompt_sets import PromptSet, choose
from varlab.weights.options import check_precision
from varlab.weights.registry import find
from varlab.weights.zoo import check_captions, require

AXES = ("models", "specs", "settings", "prompts", "seeds")  # may grow on a resume with ``extend``
INITS = ("checkpoint", "random")


@dataclass(frozen=True)
class Plan:
    """Models x specs x settings x prompt sets x seeds, in shards of ``shard`` prompts.

    settings: overrides of the model's own (cfg, tau, top_k, top_p), a mapping each. prompts: names or files of prompt
    sets, each with its ``n`` and the number of its ``first`` one. threads: of torch in a worker; part of what decides
    the last bits. init, precision, device, pixels: as ``varlab.load`` takes them.
    """

    models: tuple[str, ...]
    specs: tuple[str, ...]
    settings: tuple[dict[str, Any], ...] = ({},)
    prompts: tuple[dict[str, Any], ...] = ({"set": None, "n": 64, "first": 0},)
    seeds: tuple[int, ...] = (0,)
    shard: int = 16
    threads: int = 1
    init: str = "checkpoint"
    precision: str = "fp32"
    device: str = "cpu"
    pixels: str | None = None

    def chosen(self, prompts: Mapping[str, Any], model: str) -> PromptSet:
        first, n = prompts["first"], prompts["n"]
        return choose(prompts["set"], None if n is None else first + n, model)[first:]

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def read_plan(given: Path | str | Mapping[str, Any]) -> Plan:
    """A checked plan, from a YAML file or what one would hold.

    Raises VarlabError, before any work, for a file that cannot be read and for whatever in it does not fit.
    """
    plan = _plan(_load(given))
    _check(plan)
    return plan


def _load(given: Path | str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    try:
        found = yaml.safe_load(Path(given).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise VarlabError(f"{given} cannot be read ({cause(error)}).") from error
    except yaml.YAMLError as error:
        raise VarlabError(f"{given} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise VarlabError(f"{given} must hold keys with values, such as `models: [mini-infinity]`.")
    return found


def _plan(given: dict[str, Any]) -> Plan:
    known = [field.name for field in fields(Plan)]
    for key in given:
        if key not in known:
            raise unknown("key of a sweep", key, known)
    for key in ("models", "specs"):
        if not given.get(key):
            raise VarlabError(
                f"A sweep needs {key}: a list, such as `{key}: [{'mini-infinity' if key == 'models' else 'none'}]`."
            )
    values: dict[str, Any] = {key: _listed(key, value) if key in AXES else value for key, value in given.items()}
    if "prompts" in values:
        values["prompts"] = tuple(_prompts(item) for item in values["prompts"])
    for item in values.get("settings", ()):
        if not isinstance(item, dict):
            raise VarlabError(f"settings takes mappings such as `cfg: 3`, not {quoted(item)}.")
    return Plan(**values)


def _listed(key: str, value: Any) -> tuple[Any, ...]:
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items:
        raise VarlabError(f"{key} is empty. Give at least one.")
    kind: Any = {"models": str, "specs": str, "seeds": int}.get(key, object)
    for i, item in enumerate(items):
        if not isinstance(item, kind) or isinstance(item, bool):
            raise VarlabError(f"{key} takes {'whole numbers' if kind is int else 'texts'}, not {quoted(item)}.")
        if item in items[:i]:
            raise VarlabError(f"{key} holds {quoted(item)} twice.")
    return tuple(items)


def _prompts(item: Any) -> dict[str, Any]:
    given = {"set": item} if not isinstance(item, dict) else item
    for key in given:
        if key not in ("set", "n", "first"):
            raise unknown("key of prompts", key, ("set", "n", "first"))
    if not isinstance(given.get("set"), str | None):
        raise VarlabError(f"prompts takes names and files of prompt sets, not {quoted(given['set'])}.")
    return {"set": given.get("set"), "n": given.get("n"), "first": given.get("first", 0)}


def _check(plan: Plan) -> None:
    at_least(1, shard=plan.shard, threads=plan.threads)
    check_counts(**{f"n of {item['set']}": item["n"] for item in plan.prompts})
    for seed in plan.seeds:
        at_least(0, seeds=seed)
    for item in plan.prompts:
        at_least(0, **{f"first of {item['set']}": item["first"]})
    if plan.init not in INITS:
        raise unknown("init", plan.init, INITS)
    methods = [methods_of(spec) for spec in plan.specs]
    for name in plan.models:
        check_precision(plan.precision, entry := find(name))
        if plan.init == "checkpoint":
            require(entry)
        for settings in plan.settings:
            check_methods(entry, methods, settings, pixels=plan.pixels, trained=plan.init == "checkpoint")
        for prompts in plan.prompts:
            check_captions(entry, plan.chosen(prompts, name))


def refuse_changes(found: Mapping[str, Any], asked: Plan, extend: bool, place: str) -> None:
    """Refuse to go on with another plan than the one that a store was begun with, by field.

    With ``extend`` the axes may hold more than before, and a prompt set more prompts.
    """
    new = asked.as_dict()
    changed = [name for name in new if found.get(name) != new[name]]
    grown = [name for name in changed if name in AXES and all(_within(item, new[name]) for item in found.get(name, []))]
    if wrong := [name for name in changed if not (extend and name in grown)]:
        hint = " --extend (extend=True) adds rows to it." if wrong == grown else ""
        first = wrong[0]
        raise VarlabError(
            f"{place} holds another sweep (different: {', '.join(wrong)}; {first} there: {found.get(first)}). "
            f"Give another folder.{hint}"
        )


def _within(item: Any, values: Sequence[Any]) -> bool:
    """Whether an axis still holds what it held: of prompts as many, from the same first one on."""
    if not (isinstance(item, dict) and "first" in item):
        return item in values
    n = item["n"]
    return any(item | {"n": v["n"]} == v and (v["n"] is None or (n is not None and v["n"] >= n)) for v in values)

"""The small language that names a method or a probe with its options: ``name:option=value,...``.

The options of a plug-in are the fields of its dataclass and nothing else. From these fields a spec is read, an object
is written down again, and help is printed. A field that is itself a dataclass is a group of options: its own fields
are options of the plug-in.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from varlab.errors import VarlabError, quoted, unknown


@dataclass(frozen=True)
class Option:
    """One option: its type, its default (``MISSING`` where it must be given), one line of help, and the field of the
    plug-in that groups it, if any."""

    name: str
    kind: Any
    default: Any
    help: str
    group: str | None = None

    @property
    def choices(self) -> str:
        """What may be written after the equals sign."""
        return _choices(self.kind)


def option(default: Any = MISSING, help: str = "") -> Any:
    """A field with a line of help. Without a default the option must be given."""
    return field(default=default, metadata={"help": help})


def options_of(kind: type) -> dict[str, Option]:
    """The options of a plug-in, by name. Raises VarlabError for a class whose constructor is not its dataclass's."""
    home = next(base for base in kind.__mro__ if "__init__" in vars(base))
    if home is object:
        return {}
    if "__dataclass_fields__" not in vars(home):
        raise VarlabError(
            f"{kind.__name__} has a constructor of its own, so its options cannot be written down. "
            "Make it a dataclass: each option a field."
        )
    listed: dict[str, Option] = {}
    for item in fields(home):
        if item.init and is_dataclass(item.type):
            if presets := _presets(item.type):
                listed[item.name] = Option(item.name, Literal[tuple(presets)], None, "a named set of the options below")
            listed |= {f.name: _option(f, item.name) for f in fields(item.type)}
        elif item.init:
            listed[item.name] = _option(item)
    return listed


def make(kind: str, spec: str, registry: Mapping[str, type]) -> Any:
    """The plug-in that ``spec`` names. Raises VarlabError for unknown names, options and values."""
    name = spec.partition(":")[0]
    if name not in registry:
        raise unknown(kind, name, registry)
    target = registry[name]
    known = options_of(target)
    given = read_options(spec, known)
    for item in known.values():
        if item.default is MISSING and item.name not in given:
            raise VarlabError(f"{quoted(spec)} lacks {item.name}. Write {name}:{item.name}=VALUE.")
    kinds: dict[str, Any] = {item.name: item.type for item in fields(target)} if given else {}
    for group in {item.group for item in known.values() if item.group}:
        values = {key: given.pop(key) for key in list(given) if known[key].group == group}
        base = _presets(kinds[group]).get(given.pop(group, "")) if given or values else None
        if values or base is not None:
            given[group] = replace(base or kinds[group](), **values)
    return target(**given)


def read_options(spec: str, known: Mapping[str, Option]) -> dict[str, Any]:
    """The options that a spec gives, each turned into its type."""
    name, _, rest = spec.partition(":")
    given: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, text = item.partition("=")
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        if not equals:
            raise VarlabError(f"{quoted(spec)}: option {key} has no value. Write {name}:{key}=VALUE.")
        if key in given:
            raise VarlabError(f"{quoted(spec)} gives {key} twice.")
        given[key] = _value(spec, key, text, known[key].kind)
    return given


def written(plugin: Any) -> dict[str, str]:
    """Every option of a plug-in as a spec writes it, defaults included: what tells two of them apart.

    Raises VarlabError for a value that no spec can hold, naming it.
    """
    texts = {}
    known = options_of(type(plugin))
    groups = {item.group for item in known.values()}
    for item in (item for item in known.values() if item.name not in groups):
        value = getattr(getattr(plugin, item.group) if item.group else plugin, item.name)
        texts[item.name] = _text(f"{plugin.name}: {item.name}", value, item.kind)
    return texts


def spec_of(plugin: Any) -> str:
    """The spec of a plug-in: its name and the options that differ from their defaults.

    ``make`` turns it into an equal plug-in again. Raises VarlabError as ``written`` does.
    """
    known = options_of(type(plugin))
    texts = written(plugin)
    defaults = {key: known[key].default for key in texts}
    plain = {key: _text(key, value, known[key].kind) for key, value in defaults.items() if value is not MISSING}
    given = ",".join(f"{key}={text}" for key, text in texts.items() if text != plain.get(key))
    return f"{plugin.name}:{given}" if given else str(plugin.name)


def _presets(kind: Any) -> Mapping[str, Any]:
    return getattr(kind, "presets", dict)()


def _option(item: Field[Any], group: str | None = None) -> Option:
    return Option(item.name, item.type, item.default, item.metadata.get("help", ""), group)


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _value(spec: str, key: str, text: str, kind: Any) -> Any:
    """``text`` as the annotation has it: a plain type, one of some words, none, or numbers joined by slashes."""
    kinds = _kinds(kind)
    if NoneType in kinds and text == "none":
        return None
    lists = [k for k in kinds if get_origin(k) is tuple]
    if lists and (len(lists) == len(kinds) or "/" in text):
        return tuple(_value(spec, key, part, get_args(lists[0])[0]) for part in text.split("/") if part)
    plain = kinds[0]
    if get_origin(plain) is Literal:
        if text not in get_args(plain):
            raise unknown(f"{key} in {quoted(spec)}", text, get_args(plain))
        return text
    if plain is bool:
        if text not in ("true", "false"):
            raise VarlabError(f"{quoted(spec)}: {key} is true or false, not {quoted(text)}.")
        return text == "true"
    try:
        return plain(text)
    except ValueError:
        raise VarlabError(f"{quoted(spec)}: {key} takes a {_choices(plain)}, not {quoted(text)}.") from None


def _text(name: str, value: Any, kind: Any) -> str:
    """A value as a spec writes it, so that reading it gives the value again."""
    if isinstance(value, tuple | list):
        text = "/".join(_text(name, part, type(part)) for part in value)
        single = len(value) == 1 and any(get_origin(part) is not tuple for part in _kinds(kind))
        text += "/" if single else ""  # one share for the only stage is not one share for all stages
    elif isinstance(value, bool):
        text = str(value).lower()
    elif value is None:
        text = "none"
    elif isinstance(value, float) and float in _kinds(kind):
        text = repr(float(value)).removesuffix(".0").replace("e+", "e")
    else:
        text = str(value)
    try:
        same = not set(text) & set(",+") and (not isinstance(value, str) or (bool(text) and text == text.strip()))
        same = same and _value(text, name, text, kind) == (tuple(value) if isinstance(value, list) else value)
    except VarlabError:
        same = False
    if not same:
        shown = (
            f"{quoted(value)}" if isinstance(value, str | int | float | tuple | list | Path) else type(value).__name__
        )
        raise VarlabError(
            f"{name} = {shown} cannot be written down in a spec, so that a run with it could not be told from another. "
            "Give a value that a spec can hold (a decision model: save it, and give its file)."
        )
    return text


def _choices(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_choices(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"{_choices(get_args(kind)[0])}s joined by /"
    names = {NoneType: "none", bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
    return names.get(kind, "") or getattr(kind, "__name__", str(kind))

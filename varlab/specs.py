"""The small language that names a probe or an accelerator with its options: ``name:option=value,...``."""

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from varlab.errors import VarlabError, unknown


def make(kind: str, spec: str, registry: Mapping[str, Callable[..., Any]]) -> Any:
    """The thing that ``spec`` names. Options are checked against the signature and turned into its types."""
    name, _, rest = spec.partition(":")
    if name not in registry:
        raise unknown(kind, name, registry)
    known = _options(registry[name])
    given: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, text = item.partition("=")
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        if not equals:
            raise VarlabError(f"{spec!r}: option {key} has no value. Write {name}:{key}=VALUE.")
        given[key] = _value(spec, key, text, known[key].annotation)
    for key, option in known.items():
        if option.default is inspect.Parameter.empty and key not in given:
            raise VarlabError(f"{spec!r} lacks {key}. Write {name}:{key}=VALUE.")
    return registry[name](**given)


def _options(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    if isinstance(target, type) and "__init__" not in {name for kind in target.__mro__[:-1] for name in vars(kind)}:
        return {}
    return inspect.signature(target).parameters


def _value(spec: str, key: str, text: str, kind: Any) -> Any:
    """``text`` as the annotation has it: a plain type, one of some words, none, or numbers joined by slashes."""
    if get_origin(kind) in (Union, UnionType):
        kinds = get_args(kind)
        if NoneType in kinds and text == "none":
            return None
        lists = [k for k in kinds if get_origin(k) is tuple]
        return _value(spec, key, text, lists[0] if lists and "/" in text else kinds[0])
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise unknown(f"{key} in {spec!r}", text, get_args(kind))
        return text
    if get_origin(kind) is tuple:
        return tuple(_value(spec, key, part, get_args(kind)[0]) for part in text.split("/"))
    if kind is bool:
        if text not in ("true", "false"):
            raise VarlabError(f"{spec!r}: {key} is true or false, not {text!r}.")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise VarlabError(f"{spec!r}: {key} takes a {kind.__name__}, not {text!r}.") from None

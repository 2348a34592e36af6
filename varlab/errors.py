"""Errors meant for people: one sentence of what is wrong, then how to mend it."""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class VarlabError(Exception):
    """A mistake of the caller or of a file. The command line prints it without a traceback."""


def quoted(value: object) -> str:
    """A text as typed, in quotation marks and on one line; anything but text as Python writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    if not isinstance(value, str):
        return repr(value)
    mark = '"' if "'" in value and '"' not in value else "'"
    return mark + re.sub(r"[\r\n]", lambda sign: f"⟨U+{ord(sign[0]):04X}⟩", value) + mark


def cause(error: BaseException) -> str:
    """What went wrong, without the path, which the sentence around it names as typed."""
    if type(error).__name__ == "UnidentifiedImageError":  # of Pillow
        return "it is no image"
    return getattr(error, "strerror", None) or str(error)


def all_at_once(*checks: Callable[[], Any]) -> list[Any]:
    """What all checks return; what several of them find missing is one error, so that it can be mended in one go."""
    found, missing = [], []
    for check in checks:
        try:
            found.append(check())
        except VarlabError as error:
            missing.append(str(error))
    if missing:
        raise VarlabError(" ".join(dict.fromkeys(missing)))
    return found


def unknown(kind: str, name: object, known: Iterable[str]) -> VarlabError:
    """The error for a name that is not in a registry: near names first, then all of them."""
    names = sorted(known)
    near = near_names(str(name), names)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return VarlabError(f"Unknown {kind} {quoted(str(name))}. {hint}Known: {', '.join(names) or 'none'}.")


def require_words(words: Sequence[str], known: Sequence[str], text: str, reader: str) -> None:
    """Refuse a text with words that its reader does not know; all of them are named, with those near them."""
    strange = [word for word in dict.fromkeys(words) if word not in known]
    if not strange:
        return
    near = [name for word in strange for name in get_close_matches(word, known, n=3, cutoff=0.5)]
    hint = f"near words: {', '.join(dict.fromkeys(near))}" if near else f"known words: {', '.join(known)}"
    named = f"word{'s' if len(strange) > 1 else ''} {', '.join(map(quoted, strange))}"
    raise VarlabError(f"{reader} does not know the {named} in {quoted(text)}; {hint}.")


def names_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """The function, but a keyword that it does not take is a VarlabError that names those near it."""
    known = list(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*args: P.args, **given: P.kwargs) -> T:
        for name in given:
            if name not in known:
                raise unknown(f"keyword of {function.__name__}", name, known)
        return function(*args, **given)

    return checked


def near_names(name: str, names: list[str], most: int = 3) -> list[str]:
    """Names spelt alike, then those that hold the given one or lie within it: "nano" means nano-infinity."""
    alike = get_close_matches(name, names, n=most, cutoff=0.5)
    word = name.lower()
    shared = [(known, known.lower()) for known in names if min(len(word), len(known)) > 2]
    within = [known for known, lower in shared if word in lower or lower in word]
    return list(dict.fromkeys([*alike, *within]))[:most]

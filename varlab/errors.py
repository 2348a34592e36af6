"""Errors meant for people: one sentence of what is wrong, then how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches


class VarlabError(Exception):
    """A mistake of the caller or of a file. The command line prints it without a traceback."""


def unknown(kind: str, name: object, known: Iterable[str]) -> VarlabError:
    """The error for a name that is not in a registry: near names first, then all of them."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return VarlabError(f"Unknown {kind} {str(name)!r}. {hint}Known: {', '.join(names) or 'none'}.")

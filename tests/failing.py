"""A worker that refuses, in a module that its processes import in no time."""

from varlab.errors import VarlabError


def failing(rank: int, world: int) -> None:
    raise VarlabError(f"no room in any of {world} workers")

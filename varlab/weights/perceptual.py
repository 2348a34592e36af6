"""Weights of learned distances between pictures, from the user's own files: nothing is shipped or fetched."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from varlab.errors import VarlabError
from varlab.weights.places import SUFFIXES
from varlab.weights.reading import listing, read


def perceptual_tensors(
    what: str, folder: Path | str | None, variable: str, shapes: Mapping[str, tuple[int, ...]], files: str
) -> dict[str, Tensor] | None:
    """Tensors of these names and shapes in fp32 from the files of a folder, by default that of an environment variable.

    None where neither is given. A folder may hold the files of several distances: what fits in name and shape is taken.

    Raises
    ------
    VarlabError
        The folder lacks some; ``files`` tells which files hold them.
    """
    given = folder or os.environ.get(variable)
    if not given:
        return None
    place = Path(given).expanduser()
    found: dict[str, Tensor] = {}
    for path in sorted(place.glob("*")) if place.is_dir() else []:
        held = read(path).tensors if path.suffix in SUFFIXES else {}
        found |= {name: value for name, value in held.items() if shapes.get(name) == tuple(value.shape)}
    if missing := [name for name in shapes if name not in found]:
        raise VarlabError(
            f"{place} does not hold the weights of {what} (missing or of another shape: {listing(missing, 3)}). Put "
            f"{files} there."
        )
    return {name: found[name].float() for name in shapes}

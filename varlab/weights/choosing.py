"""Which of a file's tensors are a model's: those under the prefix where most of its names are found.

So no program's way to wrap a model has to be known: ``state_dict``, ``model.``, ``module.``, ``trainer.var_wo_ddp.``
and whatever comes next, as dictionaries or as prefixes, are all read the same way.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from varlab.errors import VarlabError, quoted
from varlab.weights.reading import Checkpoint, listing

AVERAGED = re.compile(r"(^|[._])ema([._]|$)|averag")
# Beside a model's own names, what only its training used.
LEFTOVERS = re.compile(r"(loss|disc|discriminator|perceptual_loss|lpips)\.")
Score = tuple[int, int]  # names found with the wanted shape, names found


def short(name: str) -> str:
    """The name of a wrapped convolution or norm without its wrapper, as some files have it."""
    return re.sub(r"\.(conv|norm)\.(weight|bias)$", r".\2", name)


def prefixes(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Score]:
    """Every prefix under which wanted names are found, with how many."""
    shapes = {short(name): tensor.shape for name, tensor in wanted.items()} | {n: t.shape for n, t in wanted.items()}
    fitting, named = Counter[str](), Counter[str]()
    for name, tensor in tensors.items():
        for cut in (0, *(match.end() for match in re.finditer(r"\.", name))):
            if name[cut:] in shapes:
                named[name[:cut]] += 1
                fitting[name[:cut]] += tensor.shape == shapes[name[cut:]]
    return {prefix: (fitting[prefix], count) for prefix, count in named.items()}


def coverage(stored: Checkpoint, wanted: Mapping[str, Tensor]) -> float:
    """The largest share of the wanted names that lie under one prefix."""
    under = f"{stored.part}." if stored.part else ""
    named = [n for prefix, (_, n) in prefixes(stored.tensors, wanted).items() if prefix.startswith(under)]
    return max(named, default=0) / max(len(wanted), 1)


def choose(stored: Checkpoint, wanted: Mapping[str, Tensor], ema: bool = False) -> Checkpoint:
    """The part of a file that has the wanted names, under these names; said where there were others.

    Where a file holds trained weights and averaged ones ("ema"), the former are taken, as the official programs of
    Infinity and VAR do; with ``ema``, or where there are no others, the averaged ones.
    Raises VarlabError where two parts are equally good, and for ``ema`` where nothing is averaged.
    """
    scores = prefixes(stored.tensors, wanted)
    if stored.part:
        return _under(stored, _asked(stored, scores), scores)
    good = [prefix for prefix, score in scores.items() if 2 * score[1] >= max(s[1] for s in scores.values())]
    averaged = [prefix for prefix in good if AVERAGED.search(prefix)]
    plain = [prefix for prefix in good if prefix not in averaged]
    if ema and not averaged:
        raise VarlabError(f"{stored.label} holds no averaged weights, only {_names(good)}. Read it without ema.")
    usable = averaged if ema or not plain else plain
    if not usable:
        return stored  # has none of the names; what it is instead, ``fit`` says
    most = max(scores[prefix] for prefix in usable)
    best = [prefix for prefix in usable if scores[prefix] == most]
    first = _under(stored, best[0], scores)
    if any(not _same(first, _under(stored, prefix, scores)) for prefix in best[1:]):
        raise VarlabError(
            f"{stored.label} holds {_names(best)}, equally good. Say which, e.g. {stored.name}#{_bare(best[0])}."
        )
    if others := [prefix for prefix in good if prefix != best[0]]:
        warnings.warn(
            f"{stored.label}: {_names([best[0]])} was taken; it also holds {_names(others)}. For another give e.g. "
            f"{stored.name}#{_bare(others[0])}.",
            stacklevel=2,
        )
    return first


def _bare(prefix: str) -> str:
    return prefix.removesuffix(".")


def _names(found: Iterable[str]) -> str:
    return listing(_bare(prefix) or "tensors at its top" for prefix in found) or "none of this model"


def _asked(stored: Checkpoint, scores: Mapping[str, Score]) -> str:
    """The prefix of the part asked for, or the best below it."""
    under = f"{stored.part}."
    if below := [prefix for prefix in scores if prefix.startswith(under)]:
        return max(below, key=lambda prefix: scores[prefix])
    if any(name.startswith(under) for name in stored.tensors):
        return under
    raise VarlabError(f"{stored.name} has no part {quoted(stored.part)}. With names of this model: {_names(scores)}.")


def _under(stored: Checkpoint, prefix: str, scores: Mapping[str, Score]) -> Checkpoint:
    """What lies under a prefix, but for other whole models and for leftovers of training."""
    most = scores.get(prefix, (0, 0))[1]
    inner = tuple(p for p, s in scores.items() if p != prefix and p.startswith(prefix) and 2 * s[1] >= most)
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in stored.tensors.items()
        if name.startswith(prefix) and not name.startswith(inner)
    }
    kept = {name: tensor for name, tensor in own.items() if not LEFTOVERS.match(name)}
    return replace(stored, tensors=kept, part=_bare(prefix))


def _same(first: Checkpoint, second: Checkpoint) -> bool:
    a, b = first.tensors, second.tensors
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

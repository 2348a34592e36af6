"""GenEval without its oddities: is there a choice of distinct objects of which every clause is true?

Against ``geneval.judge``: a score on the threshold counts, of equal scores the earlier row comes first, any objects of
the class may be chosen and not only its first, no object serves two clauses, a target may be named before its turn, and
what is wrong with a position is said even where a colour failed.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from varlab.errors import VarlabError
from varlab.evaluation.geneval import Clause, Labels, Objects, Options, Rows, Verdict, overlap, relations

Choice = tuple[int, ...]


def selected(rows: Rows, threshold: float, options: Options) -> list[int]:
    """As ``geneval.selected``, with scores on the threshold, and ties in the order of the rows."""
    scores = rows[:, 4]
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for i in order[scores[order] >= np.float32(threshold)].tolist():
        alone = options.max_overlap == 1 or all(overlap(rows[i], rows[j]) < options.max_overlap for j in kept)
        if alone and len(kept) < options.max_objects:
            kept.append(i)
    return kept


def judge(metadata: Mapping[str, Any], objects: Objects, colours: Labels, options: Options) -> Verdict:
    """Whether some choice of distinct objects satisfies every clause, and no excluded number is reached.

    Raises VarlabError for a position whose target clause does not exist.
    """
    clauses = list(metadata.get("include", []))
    fitting = [_fitting(clause, objects, colours) for clause in clauses]
    reasons = [
        _short(clause, len(fits), objects)
        for clause, fits in zip(clauses, fitting, strict=True)
        if len(fits) < clause["count"]
    ]
    targets = [_target(clauses, i) for i in range(len(clauses))]
    if not reasons:
        near = _Near(clauses, objects, options.position_threshold)
        if not _exists(clauses, fitting, targets, near, ()):
            reasons += list(_alone(clauses, fitting, targets, near)) or [
                "no choice of distinct objects fits all clauses"
            ]
    for clause in metadata.get("exclude", []):
        count = len(objects.get(clause["class"], ()))
        if count >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {count}")
    return Verdict(not reasons, tuple(reasons))


def _fitting(clause: Clause, objects: Objects, colours: Labels) -> list[int]:
    """Objects of the clause's class and colour, best first."""
    name = clause["class"]
    count = len(objects.get(name, ()))
    if "color" not in clause:
        return list(range(count))
    return [i for i, label in enumerate(list(colours.get(name, ()))[:count]) if label == clause["color"]]


def _short(clause: Clause, fits: int, objects: Objects) -> str:
    name, colour = clause["class"], clause.get("color")
    named = f"{colour} {name}" if colour else name
    return f"expected {named}>={clause['count']}, found {fits} of {len(objects.get(name, ()))}"


def _target(clauses: Sequence[Clause], i: int) -> int | None:
    """The clause that a position refers to, from 0; a negative number counts back from the clause itself."""
    if "position" not in clauses[i]:
        return None
    number = clauses[i]["position"][1]
    target = int(number) if number >= 0 else i + int(number)
    if not 0 <= target < len(clauses):
        raise VarlabError(f"Clause {i} stands in relation to clause {number}, and there are {len(clauses)}.")
    return target


class _Near:
    """Relations of objects, looked up once."""

    def __init__(self, clauses: Sequence[Clause], objects: Objects, threshold: float) -> None:
        self.clauses, self.objects, self.threshold = clauses, objects, threshold
        self.known: dict[tuple[str, int, str, int], set[str]] = {}

    def holds(self, clause: int, one: int, target: int, other: int) -> bool:
        own, their = self.clauses[clause]["class"], self.clauses[target]["class"]
        key = (own, one, their, other)
        if key not in self.known:
            self.known[key] = relations(self.objects[own][one], self.objects[their][other], self.threshold)
        return self.clauses[clause]["position"][0] in self.known[key]


def _exists(
    clauses: Sequence[Clause], fitting: Sequence[list[int]], targets: Sequence[int | None], near: _Near,
    chosen: tuple[Choice, ...],
) -> bool:  # fmt: skip
    """Whether the clauses after those that are chosen can be chosen too."""
    i = len(chosen)
    if i == len(clauses):
        return True
    name = clauses[i]["class"]
    taken = {one for j, choice in enumerate(chosen) if clauses[j]["class"] == name for one in choice}
    free = [one for one in fitting[i] if one not in taken]
    for choice in combinations(free, clauses[i]["count"]):
        now = (*chosen, choice)
        if _placed(targets, near, now) and _exists(clauses, fitting, targets, near, now):
            return True
    return False


def _placed(targets: Sequence[int | None], near: _Near, chosen: tuple[Choice, ...]) -> bool:
    """Whether the relations hold that the clause chosen last takes part in."""
    last = len(chosen) - 1
    for i, target in enumerate(targets[: last + 1]):
        if target is None or target > last or last not in (i, target):
            continue
        if not all(near.holds(i, one, target, other) for one in chosen[i] for other in chosen[target]):
            return False
    return True


def _alone(
    clauses: Sequence[Clause], fitting: Sequence[list[int]], targets: Sequence[int | None], near: _Near
) -> Iterator[str]:
    """Positions that no pair of objects has."""
    for i, target in enumerate(targets):
        if target is not None and not any(
            near.holds(i, one, target, other) for one in fitting[i] for other in fitting[target]
        ):
            yield f"expected {clauses[i]['class']} {clauses[i]['position'][0]} target, found none"

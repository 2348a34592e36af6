"""GenEval's verdict on what a detector saw, as github.com/djghosh13/geneval gives it.

Detections of a class are rows [x1, y1, x2, y2, score] in pixels, float32 as the detector writes them. ``judge`` repeats
the official rules with all their oddities; ``geneval_matching`` mends them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from varlab.errors import VarlabError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("above", "below", "left of", "right of")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
OFFICIAL_NAME = r"\d+\.png"  # of the files that are read; matched at the front alone, so 0001.png.bak is read too
LEAST_OFFSET = 1e-3  # pixels, below which two boxes have no relation

Rows = npt.NDArray[np.float32]  # [n, 5]
Objects = Mapping[str, Rows]
Labels = Mapping[str, Sequence[str | None]]  # the colour of each row
Clause = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """The official evaluator's options, with its defaults; thresholds are shares, of scores and of summed sizes."""

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "Options":
        """From names and texts, as on the official command line."""
        known = [field.name for field in fields(cls)]
        if strange := sorted(given.keys() - set(known)):
            raise VarlabError(f"GenEval has no option {', '.join(strange)}. It has {', '.join(known)}.")
        values: dict[str, Any] = {name: float(value) for name, value in given.items()}
        return cls(**(values | ({"max_objects": int(given["max_objects"])} if "max_objects" in given else {})))

    def threshold_of(self, tag: str) -> float:
        return self.counting_threshold if tag == "counting" else self.threshold


class Verdict(NamedTuple):
    """``reasons``: a line for each clause that failed. ``asked``: class and colours of each question for colours."""

    correct: bool
    reasons: tuple[str, ...]
    asked: tuple[tuple[str, tuple[str, ...]], ...] = ()


def as_rows(values: Any) -> Rows:
    """[n, 5] in float32, also of an empty list."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 5)


def selected(rows: Rows, threshold: float, options: Options) -> list[int]:
    """Which detections of a class count, best first.

    Of equal scores the later row comes first: the official order of ties depends on the processor, and this is the one
    of numpy's stable sort. The score is compared in float32, and must be above the threshold.
    """
    scores = rows[:, 4]
    order = np.argsort(scores, kind="stable")[::-1]
    left = order[scores[order] > np.float32(threshold)][: options.max_objects].tolist()
    if options.max_overlap == 1:
        return left
    kept: list[int] = []
    for i in left:
        if all(overlap(rows[i], rows[j]) < options.max_overlap for j in kept):
            kept.append(i)
    return kept


def overlap(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Intersection over union of two boxes whose last pixels count."""

    def area(x1: Any, y1: Any, x2: Any, y2: Any) -> float:
        return max(float(x2 - x1) + 1, 0.0) * max(float(y2 - y1) + 1, 0.0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a[:4]) + area(*b[:4]) - shared
    return shared / union if union else 0.0


def relations(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], threshold: float) -> set[str]:
    """Where box a lies, seen from box b; up to two relations, in float32 as the official code."""
    boxes = np.stack([a[:4], b[:4]]).reshape(2, 2, 2)
    centre_a, centre_b = boxes.mean(axis=-2)
    size_a, size_b = np.abs(np.diff(boxes, axis=-2))[..., 0, :]
    offset = centre_a - centre_b
    shrunk = np.maximum(np.abs(offset) - np.float32(threshold) * (size_a + size_b), 0) * np.sign(offset)
    if np.all(np.abs(shrunk) < np.float32(LEAST_OFFSET)):
        return set()
    x, y = shrunk / np.linalg.norm(offset)
    seen = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, true in seen.items() if true}


def judge(metadata: Mapping[str, Any], objects: Objects, colours: Labels, options: Options) -> Verdict:
    """The official verdict on objects that are kept and in order; ``colours`` has a label for each of them.

    A clause looks at the first ``count`` objects of its class, for colours too; every one of them must stand in the
    relation to every one of the target's, and only if count and colour passed; clauses do not know of each other.

    Raises
    ------
    KeyError, IndexError : where the official code does: an exclude count of 0 with the class absent, a target clause
        that comes later.
    """
    reasons: list[str] = []
    asked: list[tuple[str, tuple[str, ...]]] = []
    groups: list[Rows | None] = []
    for clause in metadata.get("include", []):
        name, count = clause["class"], clause["count"]
        found = objects.get(name, as_rows([]))[:count]
        matched = len(found) >= count
        if not matched:
            reasons.append(f"expected {name}>={count}, found {len(found)}")
        elif "color" in clause:
            labels = tuple(str(label) for label in list(colours.get(name, ()))[:count])
            asked.append((name, labels))
            matched = labels.count(clause["color"]) >= count
            if not matched:
                reasons.append(colour_line(clause, labels))
        if matched and "position" in clause:
            line = _misplaced(clause, found, groups, options.position_threshold)
            matched = line is None
            reasons += [] if line is None else [line]
        groups.append(found if matched else None)
    for clause in metadata.get("exclude", []):
        name, count = clause["class"], clause["count"]
        if len(objects.get(name, ())) >= count:
            reasons.append(f"expected {name}<{count}, found {len(objects[name])}")
    return Verdict(not reasons, tuple(reasons), tuple(asked))


def colour_line(clause: Clause, labels: Sequence[str]) -> str:
    """The reason why colours failed."""
    colour, name = clause["color"], clause["class"]
    seen = ", ".join(f"{labels.count(other)} {other}" for other in COLOURS if other in labels)
    return f"expected {colour} {name}>={clause['count']}, found {labels.count(colour)} {colour}; and {seen}"


def _misplaced(clause: Clause, found: Rows, groups: Sequence[Rows | None], threshold: float) -> str | None:
    """The reason why a position failed, of the first pair that lacks it."""
    relation, target = clause["position"]
    others = groups[target]
    if others is None:
        return f"no target for {clause['class']} to be {relation}"
    for one in found:
        for other in others:
            seen = relations(one, other, threshold)
            if relation not in seen:
                return f"expected {clause['class']} {relation} target, found {' and '.join(sorted(seen))} target"
    return None


@dataclass(frozen=True)
class Summary:
    """``tags``: (correct, total) by tag in order of first appearance. Shares are of 1."""

    images: int
    prompts: int
    correct_images: float
    correct_prompts: float
    tags: Mapping[str, tuple[int, int]]

    @property
    def rates(self) -> dict[str, float]:
        return {tag: correct / total for tag, (correct, total) in self.tags.items()}

    @property
    def overall(self) -> float:
        """The plain mean of the tags' rates."""
        return overall(self.rates.values())

    @property
    def lines(self) -> list[str]:
        """What the official script prints, sorted."""
        rows = [f"{tag:<16} = {c / n:.2%} ({c} / {n})" for tag, (c, n) in self.tags.items()]
        return sorted([
            f"Total images: {self.images}", f"Total prompts: {self.prompts}",
            f"% correct images: {self.correct_images:.2%}", f"% correct prompts: {self.correct_prompts:.2%}",
            f"Overall score (avg. over tasks): {self.overall:.5f}", *rows,
        ])  # fmt: skip


def overall(rates: Any) -> float:
    """GenEval's score of the rates of its tags."""
    return float(np.mean(list(rates)))


def summarise(correct: Sequence[bool], tags: Sequence[str], prompts: Sequence[str]) -> Summary:
    """Counts of images; ``prompts``: the metadata text, which tells one prompt from another wherever its images lie."""
    if not correct:
        raise VarlabError("There are no images to summarise.")
    by_tag: dict[str, list[int]] = {}
    by_prompt: dict[str, bool] = {}
    for right, tag, prompt in zip(correct, tags, prompts, strict=True):
        counts = by_tag.setdefault(tag, [0, 0])
        counts[0] += bool(right)
        counts[1] += 1
        by_prompt[prompt] = by_prompt.get(prompt, False) or bool(right)
    return Summary(
        len(correct),
        len(by_prompt),
        sum(map(bool, correct)) / len(correct),
        sum(by_prompt.values()) / len(by_prompt),
        {tag: (right, total) for tag, (right, total) in by_tag.items()},
    )

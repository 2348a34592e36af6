"""Judges images against prompts as GenEval does: everything after `detect` is a pure function of its list.

Measured on renders of scenes that fulfil their prompt (`sample_scenes`, seed 21), in each of the six categories: 64
px: 400 of 400 judged right, also blurred with sigma 1 px; 128 px: 200 of 200; 256 px: 200 of 200. The tests ask for at
least 99 % of 30 a category at 64 px, the slow ones of 400. Version 2 of the scenes, seeds 501 to 503, none of which
any threshold was chosen on: 510 of 510 in each category at 64 px. Wrong pictures that pass are not in these numbers.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from varlab.errors import VarlabError
from varlab.measures.statistics import Design, clustered_draws, means
from varlab.scenes.detector import Detection, detect
from varlab.scenes.grammar import SCENE_VERSION
from varlab.scenes.parsing import Clause, Requirement, parse

__all__ = ["Detection", "Judgement", "detect", "judge", "judge_detections", "score_images", "shape_recall", "summarise"]

POSITION_SLACK = 0.1
"""GenEval's: an offset counts from a tenth of both objects' sizes on."""


@dataclass(frozen=True)
class Judgement:
    """Whether an image shows what was asked, why not (empty when it does), and what was seen."""

    correct: bool
    reason: str
    detections: tuple[Detection, ...]


def judge(image: np.ndarray, requirement: Requirement | str, version: str = SCENE_VERSION) -> Judgement:
    """Detects the objects of an image uint8 [height, width, 3] and checks a requirement or prompt.

    `version`: of the scenes that the image shows, or that the model which drew it was trained on.
    """
    wanted = parse(requirement) if isinstance(requirement, str) else requirement
    return judge_detections(detect(image, version), wanted)


def judge_detections(detections: Sequence[Detection], requirement: Requirement) -> Judgement:
    """Checks counts, then colours, then positions; each detection serves one clause only.

    Counts above one are exact, counts of one are "at least"; surplus objects of other shapes do no harm.
    """
    seen = tuple(detections)
    reasons = [reason for clause in requirement.clauses if (reason := _shortage(clause, seen))]
    reasons = reasons or [reason for clause in requirement.clauses if (reason := _surplus(clause, requirement, seen))]
    if not reasons and not _assign(requirement.clauses, seen, related=False):
        reasons = ["expected more objects: the same one would have to serve two parts of the prompt"]
    if not reasons and not _assign(requirement.clauses, seen, related=True):
        relations = [c.position[0] for c in requirement.clauses if c.position]
        reasons = [f"expected {' and '.join(relations)}, found the objects placed otherwise"]
    return Judgement(not reasons, "; ".join(reasons), seen)


def direction(first: Detection, second: Detection) -> set[str]:
    """GenEval's relations of the first to the second: none when close, two on a diagonal."""
    offset = np.array([first.x - second.x, first.y - second.y])
    sizes = 2 * (first.radius + second.radius)
    revised = np.maximum(np.abs(offset) - POSITION_SLACK * sizes, 0) * np.sign(offset)
    if np.all(np.abs(revised) < 1e-3):
        return set()
    dx, dy = revised / np.linalg.norm(offset)
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, true in holds.items() if true}


def _fits(clause: Clause, detection: Detection) -> bool:
    return detection.shape == clause.shape and clause.color in (None, detection.color)


def _shortage(clause: Clause, seen: tuple[Detection, ...]) -> str:
    alike = [d for d in seen if d.shape == clause.shape]
    if len(alike) < clause.count:
        return f"expected {clause.shape}>={clause.count}, found {len(alike)}"
    fitting = [d for d in alike if _fits(clause, d)]
    if len(fitting) < clause.count:
        colors = ", ".join(d.color for d in alike)
        return f"expected {clause.color} {clause.shape}>={clause.count}, found {len(fitting)} ({colors})"
    return ""


def _surplus(clause: Clause, requirement: Requirement, seen: tuple[Detection, ...]) -> str:
    if clause.count == 1:
        return ""
    found = sum(_fits(clause, d) for d in seen)
    most = sum(
        other.count
        for other in requirement.clauses
        if other.shape == clause.shape and clause.color in (None, other.color)
    )
    return f"expected {clause.shape}<={most}, found {found}" if found > most else ""


def _assign(clauses: tuple[Clause, ...], seen: tuple[Detection, ...], related: bool) -> bool:
    """Whether distinct detections can serve all clauses (and, if asked, stand in their relations)."""

    def extend(chosen: list[tuple[int, ...]]) -> bool:
        if len(chosen) == len(clauses):
            return not related or all(_related(clauses, chosen, seen))
        clause = clauses[len(chosen)]
        used = {index for group in chosen for index in group}
        fitting = [i for i, d in enumerate(seen) if i not in used and _fits(clause, d)]
        return any(extend([*chosen, group]) for group in combinations(fitting, clause.count))

    return extend([])


def _related(clauses: tuple[Clause, ...], chosen: list[tuple[int, ...]], seen: tuple[Detection, ...]) -> Iterator[bool]:
    for clause, group in zip(clauses, chosen, strict=True):
        if clause.position:
            relation, target = clause.position
            for i in group:
                for j in chosen[target]:
                    yield relation in direction(seen[i], seen[j])


def score_images(
    images: Sequence[np.ndarray] | np.ndarray,
    prompts: Sequence[str],
    categories: Sequence[str],
    entries: Sequence[int] | None = None,
    version: str = SCENE_VERSION,
) -> pd.DataFrame:
    """One row an image: entry, category, prompt, correct, reason, shape_correct, exact_count, found.

    `shape_correct` ignores colours, positions and surplus; `exact_count` asks for the right number of objects
    of whatever kind; `found` says of each shape asked for whether as many were seen. `entries` numbers the
    prompts of the set: give it when a prompt has several images, so that the intervals of `summarise` treat these
    as one draw (default: each image is its own). `version`: as `judge` takes it.
    """
    entries = range(len(prompts)) if entries is None else entries
    lengths = {len(images), len(prompts), len(categories), len(entries)}
    if len(lengths) > 1:
        raise VarlabError(
            f"As many prompts, categories and entries as images are needed: {len(images)} images, "
            f"{len(prompts)} prompts, {len(categories)} categories, {len(entries)} entries."
        )
    rows = []
    for image, prompt, category, entry in zip(images, prompts, categories, entries, strict=True):
        wanted = parse(prompt)
        verdict = judge(image, wanted, version)
        bare = Requirement(tuple(Clause(c.shape) for c in wanted.clauses for _ in range(c.count)))
        rows.append(
            {
                "entry": int(entry),
                "category": category,
                "prompt": prompt,
                "correct": verdict.correct,
                "reason": verdict.reason,
                "shape_correct": judge_detections(verdict.detections, bare).correct,
                "exact_count": len(verdict.detections) == sum(c.count for c in wanted.clauses),
                "found": _found(wanted, verdict.detections),
            }
        )
    columns = ["entry", "category", "prompt", "correct", "reason", "shape_correct", "exact_count", "found"]
    return pd.DataFrame(rows, columns=columns)


def _found(wanted: Requirement, detections: Sequence[Detection]) -> dict[str, bool]:
    asked = Counter[str]()
    for clause in wanted.clauses:
        asked[clause.shape] += clause.count
    seen = Counter(detection.shape for detection in detections)
    return {shape: seen[shape] >= count for shape, count in asked.items()}


def shape_recall(table: pd.DataFrame) -> pd.DataFrame:
    """Share of the images asked for a shape that show it often enough, by shape: as `summarise`, without overall."""
    rows = [
        {"category": shape, "entry": row.entry, "prompt": row.prompt, "correct": value}
        for row in table.itertuples()
        for shape, value in row.found.items()
    ]
    ordered = pd.DataFrame(rows).sort_values("category", kind="stable")
    return summarise(ordered).drop(index="overall").rename_axis("shape")


def summarise(table: pd.DataFrame, value: str = "correct", resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean, 95 % bootstrap interval over prompt entries, and counts, per category, then "overall".

    Overall is GenEval's: the unweighted mean of the category means. Entries are resampled, and a text that stands
    in several of them counts as several: with few distinct texts (single_object has 6) the interval is one for
    these texts. A single entry tells no interval: its bounds are NaN, and so are those of overall beside it.
    Index: category; columns: mean, low, high, n (images), prompts (entries), texts (distinct ones).
    """
    if table.empty:
        raise VarlabError("There is nothing to summarise: the score table is empty.")
    design = Design(table["entry"], table["category"])
    draws = clustered_draws(table[value], design, resamples, seed)
    found = pd.DataFrame(np.quantile(draws, (0.025, 0.975), axis=0).T, design.labels, ["low", "high"])
    found["mean"] = means(table[value], design)
    found["n"], found["prompts"] = design.images(), design.prompts()
    found.loc[~design.enough(), ["low", "high"]] = np.nan
    found["texts"] = [table["prompt"].iloc[members].nunique() for members in design.members()]
    return found[["mean", "low", "high", "n", "prompts", "texts"]].rename_axis("category")

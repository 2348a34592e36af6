"""Scores of benchmarks joined to folders of pictures, image by image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from varlab.comparison.folders import Set
from varlab.comparison.image_result import SHOWN
from varlab.comparison.layouts import unpadded
from varlab.comparison.likeness import fields_of, refuse_unlike
from varlab.comparison.pairing import RIGHT
from varlab.comparison.saved import read_scores
from varlab.errors import VarlabError, quoted, unknown


def read_joined(
    files: Mapping[str, Path | str], names: Sequence[str], found: Set, despite: Sequence[str], allow_missing: bool
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """By folder the scores of its images by (name, k), and notes. A file of several folders is given for each.

    Raises VarlabError for a folder that is not compared, for pictures without a score unless ``allow_missing``, for
    measures that are taken of the pictures themselves, for scores made in unlike ways, and as ``read_scores``.
    """
    if files and found.grid is not None:
        raise VarlabError("Scores are of whole pictures, not of the samples of a grid: leave --grid or --scores out.")
    joined, notes, first = dict[str, pd.DataFrame](), list[str](), None
    for name, path in files.items():
        if name not in names:
            raise unknown("folder with scores", name, names)
        scores = read_scores(path)
        if len(scores.methods) > 1 and name not in scores.methods:
            raise unknown(f"folder in {path}", name, scores.methods)
        if measured := [measure for measure in scores.measures if measure in SHOWN and measure != RIGHT]:
            raise VarlabError(f"{path} holds {measured[0]}, which is measured here. Leave that column out of it.")
        table = scores.of(name if name in scores.methods else scores.methods[0])
        index = pd.MultiIndex.from_tuples([(unpadded(image), int(k)) for image, k in table.index])
        joined[name] = table[scores.measures].set_axis(index)
        keys = [(row.dense, *row.others)[names.index(name)].key for row in found.rows]
        lost = [key for key in keys if key not in index]
        if lost and (not allow_missing or len(lost) == len(keys)):
            raise VarlabError(
                f"{path}: {len(lost)} of {len(keys)} pictures of {name} have no score, such as image {lost[0][1]} of "
                f"{quoted(lost[0][0])}. Score the same pictures, or add --allow-missing (allow_missing=True)."
            )
        notes += [f"{name}: {len(lost)} of {len(keys)} pictures have no score."] * bool(lost)
        if first is not None:
            notes += refuse_unlike(first, scores.facts, fields_of(despite, first, scores.facts))
        first = first or scores.facts
    return joined, list(dict.fromkeys(notes))


def with_joined(rows: pd.DataFrame, joined: Mapping[str, pd.DataFrame], dense: str) -> pd.DataFrame:
    """The rows with a column a measure; first those of the dense run, where it has scores."""
    if not joined:
        return rows
    rows = rows.drop(columns=[name for table in joined.values() for name in table if name in rows])
    if dense in joined and dense not in set(rows["method"]):
        own = rows[rows["method"] == rows["method"].iloc[0]][["name", "k", "prompt", "category"]]
        rows = pd.concat([own.assign(method=dense), rows], ignore_index=True)[list(rows)]
    parts = []
    for name, part in rows.groupby("method", sort=False):
        keys = [(unpadded(image), k) for image, k in zip(part["name"], part["k"], strict=True)]
        own = joined[str(name)].reindex(keys).set_axis(part.index) if name in joined else pd.DataFrame(index=part.index)
        parts.append(pd.concat([part, own], axis=1))
    return pd.concat(parts, ignore_index=True)

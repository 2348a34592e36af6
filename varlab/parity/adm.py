"""Golden statistics of the ADM evaluator: mu, sigma, FID, inception score, precision and recall."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from varlab.evaluation import adm_scores
from varlab.evaluation.adm_scores import Manifold, Statistics
from varlab.parity.comparison import Comparison, held_to
from varlab.parity.golden import Golden

CORNER = 12  # of a matrix of distances, what is stored


@held_to(given="logits")
def compare(comparison: Comparison) -> None:
    """Everything that ``results`` states, from the features and logits of the file."""
    golden = comparison.golden
    results = golden.require("results")
    sets = {name: adm_scores.statistics(golden.arrays[name]) for name in _feature_sets(golden)}
    comparison.known(*sets)
    for name, own in sets.items():
        for part, values in own._asdict().items():
            if comparison.wants(f"{name}_{part}"):
                comparison.near(f"{name}_{part}", values, golden.stated(part))
    if dtypes := results.get("statistics_dtypes"):
        ours = [str(array.dtype) for array in next(iter(sets.values()))]
        comparison.verify("statistics_dtypes", ours == dtypes, ", ".join(ours))
    _compare_fid(comparison, results.get("fid", {}), sets)
    _compare_inception(comparison, results)
    for tag, expected in results.get("precision_recall", {}).items():
        _compare_manifolds(comparison, tag, expected)
    for name, value in results.items():
        if name.startswith("exact_float64") and name.endswith("NOT_official"):  # in float64, as ``corrected`` is
            real, drawn = _manifolds(golden, name, corrected=True)
            comparison.within(name, adm_scores.precision_recall(real, drawn), value)
    comparison.note("read_statistics: ours is held to the rule of the evaluator's by tests/test_benchmark_distances.py")


def _feature_sets(golden: Golden) -> list[str]:
    sets = [name for name, array in golden.arrays.items() if array.ndim == 2 and array.dtype == np.float32]
    return [name for name in sets if name != "logits" and not name.startswith(("radii_", "dist_"))]


def _compare_fid(comparison: Comparison, expected: Mapping[str, Any], sets: Mapping[str, Statistics]) -> None:
    """Pairs by their names, such as ``scaled_ref_vs_sample (mu x3, sigma x9)``."""
    for title, stated in expected.items():
        pair = _pair(title, sets)
        if pair is None:
            comparison.note(f"NOT COMPARED: the distance {title!r}")
            continue
        near = comparison.golden.stated("fid", "singular cases" if "singular" in title or "zero" in title else "abs")
        comparison.within(f"fid {title}", adm_scores.fid(*pair), stated["value"], near)


def _pair(title: str, sets: Mapping[str, Statistics]) -> tuple[Statistics, Statistics] | None:
    numbers = [float(text) for text in re.findall(r"(?<![\w.])x?(\d*\.?\d+)(?=[,) ]|$)", title)]
    if title.startswith("scalars"):
        mu_a, var_a, mu_b, var_b = numbers
        return Statistics(np.array(mu_a), np.array(var_a)), Statistics(np.array(mu_b), np.array(var_b))
    names = re.match(r"(scaled_)?(\w+?)_vs_(\w+)", title)
    if not names or names[2] not in sets or names[3] not in sets:
        return None
    first = sets[names[2]]
    if names[1]:
        first = Statistics(first.mu.astype(np.float64) * numbers[0], first.sigma * numbers[1])
    return first, sets[names[3]]


def _compare_inception(comparison: Comparison, results: Mapping[str, Any]) -> None:
    golden = comparison.golden
    for split, stated in results.get("inception_score", {}).items():
        logits = np.zeros((20, 10), dtype=np.float32) if split == "all_equal" else golden.array("logits")
        size = int(split) if split.isdigit() else adm_scores.SPLIT
        near = golden.stated("inception_score") * abs(stated)
        comparison.within(f"inception_score_{split}", adm_scores.inception_score(logits, size).estimate, stated, near)
    if "inception_score_with_a_probability_that_underflows_to_zero" in results:
        found = adm_scores.inception_score(np.array([[200.0, 0.0], [0.0, 1.0]], dtype=np.float32)).estimate
        comparison.verify("inception_score_underflow", bool(np.isnan(found)), f"{found}")


def _options(tag: str) -> dict[str, Any]:
    """What a tag says of a run: ``float32_times64``, ``half_blocks64x50``, ``half_k5``, ``half_offset20``."""

    def number(pattern: str, usual: float) -> float:
        found = re.search(pattern + r"(\d+(?:\.\d+)?)", tag)
        return float(found[1]) if found else usual

    blocks = re.search(r"blocks(\d+)x(\d+)", tag)
    return {
        "factor": number("times", 1), "offset": number("offset", 0), "neighbours": int(number("_k", 3)),
        "blocks": (int(blocks[1]), int(blocks[2])) if blocks else (adm_scores.BLOCK,) * 2,
    }  # fmt: skip


def _manifolds(golden: Golden, tag: str, corrected: bool = False) -> tuple[Manifold, Manifold]:
    options = _options(tag) | {"corrected": corrected}
    factor, offset = (np.float32(options.pop(name)) for name in ("factor", "offset"))
    real, drawn = (Manifold(golden.array(name) * factor + offset, **options) for name in ("ref", "sample"))
    return real, drawn


def _compare_manifolds(comparison: Comparison, tag: str, expected: Mapping[str, Any]) -> None:
    """Within the golden's tolerance; what it says not to match, since half precision hangs on the kernel, is told."""
    golden = comparison.golden
    real, drawn = _manifolds(golden, tag)
    corner = adm_scores.distances(real.features[:CORNER], drawn.features[:CORNER])
    arrays = {f"radii_ref_{tag}": real.radii[:, None], f"radii_sample_{tag}": drawn.radii[:, None],
              f"dist_{tag}": corner}  # fmt: skip
    near, found = _near(golden, tag), adm_scores.precision_recall(real, drawn)
    stated = expected["precision"], expected["recall"]
    if near is None:
        comparison.known(*arrays)
        same = f"{found[0]:.4f} and {found[1]:.4f} for its {stated[0]:.4f} and {stated[1]:.4f}"
        comparison.note(f"{tag}: not to be matched, says its golden; precision and recall here are {same}")
        return
    for name, values in arrays.items():
        if comparison.wants(name):
            comparison.near(name, values, _distance(golden, name))
    comparison.within(f"precision_recall {tag}", found, stated, near)


def _near(golden: Golden, tag: str) -> float | None:
    """The tolerance of a tag's precision and recall; None where the golden says not to match it."""
    text = str(golden.tolerances.get("precision_recall", ""))
    for part in text.split(";"):
        names, _, words = part.partition(":")
        if _kind(tag) in (_kind(name) for name in names.split(",")):
            number = re.search(r"\d+(?:\.\d+)?(?:e-?\d+)?", words)
            return None if "not" in words else float(number[0]) if number else 0.0
    return golden.stated("precision_recall", tag)  # says what is missing


def _distance(golden: Golden, name: str) -> float:
    """Of radii and distances: absolute for half precision, else a share of the largest."""
    if "half" in name:
        return golden.stated("radii_half" if name.startswith("radii") else "dist_half")
    usual = f"radii_float32{name.split('_float32', 1)[1]}"
    stated = next((key for key in golden.tolerances if _kind(key) == _kind(usual)), usual)
    return golden.stated(stated) * float(np.abs(golden.arrays[name]).max())


def _kind(tag: str) -> str:
    """A tag whatever its numbers."""
    return re.sub(r"(?<=[a-z])\d+(?=x|_|$)|(?<=x)\d+", "#", tag.strip())

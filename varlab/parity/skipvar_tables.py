"""Golden tables of SkipVAR: its two features on synthetic images, its decision models on a grid of features."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.decisions import Classifier, DecisionModel
from varlab.errors import VarlabError, quoted
from varlab.measures.edges import skipvar_hf_diff, skipvar_hf_ratio, sobel_magnitude
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden

Pair = tuple[Tensor, Tensor]  # images [1, 3, H, W]: new, old

BATCH = ((0, 3), (0, 2))  # size and kind of the two images that were also run as one batch: mixture, noise
REPLACED = 10  # a strategy's code: stages dropped, or this plus the stages without the unconditional branch
PARTS = ("skip", "uncond")


def compare_features(comparison: Comparison) -> None:
    """A row an image pair, by size and kind, with the columns that the file names; and edges of some images."""
    golden, pairs = comparison.golden, _pairs(comparison.golden)
    for (size, kind), (new, old) in pairs.items():
        for age, image in (("new", new), ("old", old)):
            comparison.known(f"{age}_{size}_{kind}")
            edges = sobel_magnitude(image.mean(1), padding="zeros")[:, None]
            comparison.absolute(f"sobel_{age}_{size}_{kind}", edges, "abs")
    if comparison.wants("columns"):
        # A column may hold commas inside its brackets.
        columns = re.findall(r"[^,(]+(?:\([^)]*\))?", str(golden.arrays["columns"]))
        table = [[_column(name, kind, *pairs[size, kind]) for name in columns] for size, kind in sorted(pairs)]
        comparison.absolute("rows", np.array(table), "abs")
    _compare_batch(comparison, pairs)
    _leave_seed(comparison)


def _pairs(golden: Golden) -> dict[tuple[int, int], Pair]:
    pairs = {}
    for new in golden.matching(r"new_(\d+)_(\d+)"):
        images = golden.arrays[new[0]], golden.array(f"old_{new[1]}_{new[2]}")
        pairs[int(new[1]), int(new[2])] = (torch.from_numpy(images[0]), torch.from_numpy(images[1]))
    return pairs


def _column(name: str, kind: int, new: Tensor, old: Tensor) -> float:
    """One number of a row; HF_Ratio names its image and its radius as a share of the shorter side."""
    ratio = re.fullmatch(r"HF_Ratio\((new|old),([\d.]+)\)", name)
    if ratio:
        return float(skipvar_hf_ratio(new if ratio[1] == "new" else old, float(ratio[2])).mean())
    height, width, difference = new.shape[-2], new.shape[-1], float(skipvar_hf_diff(new, old).mean())
    known = {"H": height, "W": width, "kind": kind, "HF_Diff": difference}
    if name not in known:
        raise VarlabError(
            f"The column {quoted(name)} of skipvar features is not known. Known: {', '.join(known)}, HF_Ratio."
        )
    return float(known[name])


def _compare_batch(comparison: Comparison, pairs: Mapping[tuple[int, int], Pair]) -> None:
    """A batch of two: a ratio an image, and one difference, the mean of what we give an image."""
    if not all(key in pairs for key in BATCH):
        return
    new, old = (torch.cat([pairs[key][age] for key in BATCH]) for age in (0, 1))
    comparison.absolute("batch2_ratio", skipvar_hf_ratio(new)[:, None], "abs")
    comparison.absolute("batch2_l1", skipvar_hf_diff(new, old).mean(), "abs")


def compare_decision(comparison: Comparison) -> None:
    """Our classifiers with the file's coefficients: labels, also of rounded coefficients, score gaps and strategies."""
    golden, features = comparison.golden, torch.from_numpy(comparison.golden.array("X"))
    comparison.known("X")
    report = json.loads(str(golden.arrays["report_json"])) if comparison.wants("report_json") else {}
    models: dict[str, dict[str, Classifier]] = {}
    left: set[str] = set()
    for name, threshold, part in ((f[0], f[1], f[2]) for f in golden.matching(r"(.+)_(skip|uncond)_labels")):
        models.setdefault(threshold, {})[part] = _compare_classifier(comparison, name, features)
        left |= _compare_summary(comparison, f"{threshold}_{part}", report.get(threshold + part, {}))
    if left:
        comparison.note(f"NOT COMPARED: {', '.join(sorted(left))} in report_json")
    for threshold, parts in models.items():
        if set(parts) == set(PARTS):
            _compare_strategy(comparison, threshold, parts, features)
    _leave_seed(comparison)


def _compare_classifier(comparison: Comparison, name: str, features: Tensor) -> Classifier:
    prefix, golden = name.removesuffix("_labels"), comparison.golden
    values = {part: golden.array(f"{prefix}_{part}") for part in ("mean", "scale", "coef", "intercept", "classes")}
    comparison.known(*(f"{prefix}_{part}" for part in values))
    full = _classifier(values)
    rounded = _classifier({part: value.round(6) for part, value in values.items()})
    top = full.scores(features).topk(2, dim=1).values
    gap, noise = golden.arrays.get(f"{prefix}_gap"), golden.tolerance("abs")
    comparison.absolute(f"{prefix}_gap", (top[:, 0] - top[:, 1]).float(), "abs")
    comparison.labels(name, np.array(full.predict(features)), gap, noise)
    comparison.labels(f"{prefix}_labels_6dec", np.array(rounded.predict(features)), gap, noise)
    return full


def _classifier(values: Mapping[str, np.ndarray]) -> Classifier:
    mean, scale, intercept, classes = (
        tuple(values[part].tolist()) for part in ("mean", "scale", "intercept", "classes")
    )
    return Classifier(mean, scale, tuple(map(tuple, values["coef"].tolist())), intercept, classes)


def _compare_summary(comparison: Comparison, prefix: str, summary: Mapping[str, Any]) -> set[str]:
    """What report_json says of a classifier: how often each label, its classes, its smallest gap, rounding's effect.

    -> what else it says.
    """
    if not summary:
        return set()
    arrays = comparison.golden.arrays
    labels, gap = arrays[f"{prefix}_labels"], arrays.get(f"{prefix}_gap", np.zeros(0))
    rounded = arrays.get(f"{prefix}_labels_6dec", labels)
    changed = labels != rounded
    counts = np.bincount(labels, minlength=len(summary.get("hist", ())))
    ours: dict[str, Any] = {
        "hist": counts.tolist(),
        "classes": arrays[f"{prefix}_classes"].tolist(),
        "n_diff_6dec": int(changed.sum()),
    }
    wrong = [name for name, value in ours.items() if name in summary and summary[name] != value]
    if gap.shape == labels.shape:
        near = {"min_gap": gap.min(), "max_gap_of_diff": gap[changed].max(initial=0.0)}
        noise = comparison.golden.tolerance("abs")
        wrong += [name for name, value in near.items() if name in summary and not abs(summary[name] - value) <= noise]
    comparison.verify_all(f"report_json_{prefix}", wrong)
    return set(summary) - set(ours) - {"min_gap", "max_gap_of_diff"}


def _compare_strategy(
    comparison: Comparison, threshold: str, parts: Mapping[str, Classifier], features: Tensor
) -> None:
    """Both models together: the second one counts where the first drops nothing."""
    model = DecisionModel("any", "golden", 0, 0.0, parts["skip"], parts["uncond"], {})
    codes = [n or (m and REPLACED + m) for n, m in model.strategies(features)]
    gaps = [comparison.golden.arrays.get(f"{threshold}_{part}_gap") for part in PARTS]
    margin = None if gaps[0] is None or gaps[1] is None else np.minimum(gaps[0], gaps[1])
    comparison.labels(f"{threshold}_strategy", np.array(codes), margin, comparison.golden.tolerance("abs"))


def _leave_seed(comparison: Comparison) -> None:
    if comparison.wants("seed"):
        comparison.note("NOT COMPARED: seed, of the inputs, which the file holds")

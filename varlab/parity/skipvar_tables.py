"""Golden tables of SkipVAR: its two features on synthetic images, its decision models on a grid of features."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.decisions import Classifier, DecisionModel
from varlab.errors import VarlabError, quoted
from varlab.measures.edges import skipvar_hf_diff, skipvar_hf_ratio, sobel_magnitude
from varlab.parity.comparison import Comparison, held_to

BATCH = ((0, 3), (0, 2))  # size and kind of the two images that were also run as one batch: mixture, noise
REPLACED = 10  # a strategy's code: stages dropped, or this plus the stages without the unconditional branch
PARTS = ("skip", "uncond")


def edges(pixels: Tensor) -> Tensor:
    """SkipVAR's edges [B, 1, H, W] of images [B, 3, H, W]."""
    return sobel_magnitude(pixels.mean(1), padding="zeros")[:, None]


@held_to(given="columns seed", abs="*")
def compare_features(comparison: Comparison) -> None:
    """A row an image pair, by size and kind, with the columns that the file names; and edges of some images."""
    golden, pairs = comparison.golden, dict[tuple[int, int], tuple[Tensor, Tensor]]()  # [1, 3, H, W]: new, old
    for found in golden.matching(r"new_(\d+)_(\d+)"):
        names = [f"{age}_{found[1]}_{found[2]}" for age in ("new", "old")]
        new, old = (torch.from_numpy(golden.array(name)) for name in names)
        comparison.known(*names)
        comparison.hold({f"sobel_{names[0]}": edges(new), f"sobel_{names[1]}": edges(old)})
        pairs[int(found[1]), int(found[2])] = new, old
    if golden.stored("columns"):
        # A column may hold commas inside its brackets.
        columns = re.findall(r"[^,(]+(?:\([^)]*\))?", str(golden.arrays["columns"]))
        table = [[_column(name, kind, *pairs[size, kind]) for name in columns] for size, kind in sorted(pairs)]
        comparison.hold({"rows": np.array(table)})
    if all(key in pairs for key in BATCH):
        # A batch of two: a ratio an image, and one difference, the mean of what we give an image.
        new, old = (torch.cat([pairs[key][age] for key in BATCH]) for age in (0, 1))
        values = {"batch2_ratio": skipvar_hf_ratio(new)[:, None], "batch2_l1": skipvar_hf_diff(new, old).mean()}
        comparison.hold(values)
    _leave_seed(comparison)


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


@held_to(given="X report_json seed", abs="*_gap")
def compare_decision(comparison: Comparison) -> None:
    """Our classifiers with the file's coefficients: labels, also of rounded coefficients, score gaps and strategies."""
    golden, features = comparison.golden, torch.from_numpy(comparison.golden.array("X"))
    report = json.loads(str(golden.arrays["report_json"])) if golden.stored("report_json") else {}
    models: dict[str, dict[str, Classifier]] = defaultdict(dict)
    left: set[str] = set()
    for found in golden.matching(r"(.+)_(skip|uncond)_labels"):
        threshold, part = found.groups()
        models[threshold][part] = _compare_classifier(comparison, f"{threshold}_{part}", features)
        left |= _compare_summary(comparison, f"{threshold}_{part}", report.get(threshold + part, {}))
    if left:
        comparison.note(f"NOT COMPARED: {', '.join(sorted(left))} in report_json")
    for threshold, parts in models.items():
        if set(parts) == set(PARTS):  # the second one counts where the first drops nothing
            model = DecisionModel("any", "golden", 0, 0.0, parts["skip"], parts["uncond"], {})
            codes = np.array([n or (m and REPLACED + m) for n, m in model.strategies(features)])
            gaps = [golden.arrays.get(f"{threshold}_{part}_gap") for part in PARTS]
            margin = None if gaps[0] is None or gaps[1] is None else np.minimum(gaps[0], gaps[1])
            comparison.labels(f"{threshold}_strategy", codes, margin, golden.tolerance("abs"))
    _leave_seed(comparison)


def _compare_classifier(comparison: Comparison, prefix: str, features: Tensor) -> Classifier:
    golden = comparison.golden
    values = {part: golden.array(f"{prefix}_{part}") for part in ("mean", "scale", "coef", "intercept", "classes")}
    comparison.known(*(f"{prefix}_{part}" for part in values))
    full, rounded = _classifier(values), _classifier({part: value.round(6) for part, value in values.items()})
    top = full.scores(features).topk(2, dim=1).values
    gap, noise = golden.arrays.get(f"{prefix}_gap"), golden.tolerance("abs")
    comparison.hold({f"{prefix}_gap": (top[:, 0] - top[:, 1]).float()})
    for end, model in (("", full), ("_6dec", rounded)):
        comparison.labels(f"{prefix}_labels{end}", np.array(model.predict(features)), gap, noise)
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
    changed = labels != arrays.get(f"{prefix}_labels_6dec", labels)
    ours: dict[str, Any] = {
        "hist": np.bincount(labels, minlength=len(summary.get("hist", ()))).tolist(),
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


def _leave_seed(comparison: Comparison) -> None:
    if comparison.golden.stored("seed"):
        comparison.note("NOT COMPARED: seed, of the inputs, which the file holds")

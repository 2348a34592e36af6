"""SkipVAR's decision models, fitted on the model at hand: labels from its own images, then two classifiers.

Per prompt the dense image and every strategy are drawn at the same seed; the label is the most aggressive strategy
whose SSIM to the dense image stays at least at the target. First the final stages dropped; then, for prompts where none
may be dropped, the final stages without the unconditional branch. Source: SkipVAR (arXiv 2506.08908) and its models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from varlab.accelerators import build
from varlab.accelerators.decisions import FEATURES, Classifier, DecisionModel, always
from varlab.accelerators.skipvar import LATE, SkipVAR
from varlab.claims.rules import judged, number
from varlab.claims.verdict import Outcome
from varlab.context import fixed_context
from varlab.engine.canvases import CanvasStore
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.errors import VarlabError
from varlab.measures.metrics import ssim
from varlab.measures.statistics import paired_shares
from varlab.models.base import NextScaleModel
from varlab.runs import Job, Progress, default_batch
from varlab.runs.inputs import check_counts
from varlab.scenes.prompt_sets import dealt, digest_of, prompts

TARGETS = (0.84, 0.86, 0.88, 0.94, 0.97)  # the paper's three, and two at which small flat pictures differ


@fixed_context()
def measure(
    model: NextScaleModel, texts: Sequence[str], seed: int = 0, progress: Progress | None = None
) -> pd.DataFrame:
    """One row a prompt: the two features, and the SSIM of every strategy's image to the dense one.

    Costs about four dense runs a prompt.
    """
    batch, parts = default_batch(model), []
    for start in range(0, len(texts), batch):
        chunk = list(texts[start : start + batch])
        parts.append(_measure(model, chunk, range(start, start + len(chunk)), seed))
        if progress is not None:
            progress(start + len(chunk), len(texts))
    return pd.concat(parts, ignore_index=True)


@fixed_context()
def measure_features(
    model: NextScaleModel, texts: Sequence[str], seed: int = 0, progress: Progress | None = None
) -> pd.DataFrame:
    """One row a prompt: hf_diff and hf_ratio of its dense run."""
    parts, job = [], Job(model, tuple(texts), model.settings, seed)
    for samples in job.batches(default_batch(model)):
        method = SkipVAR(model=always(LATE, 0))  # what follows the decision is not needed
        Run(model, model.settings, SeededNoise(seed)).generate(job.text(samples), samples, [method])
        values = [method.seen[image] for image in samples]
        parts.append(pd.DataFrame(values, columns=list(FEATURES)).assign(prompt=job.text(samples)))
        if progress is not None:
            progress(samples.stop, len(texts))
    return pd.concat(parts, ignore_index=True)[["prompt", *FEATURES]]


def _measure(model: NextScaleModel, texts: list[str], samples: range, seed: int) -> pd.DataFrame:
    canvases, method = CanvasStore(), SkipVAR(model=always(0, 0))
    run = Run(model, model.settings, SeededNoise(seed), [canvases])
    dense = run.generate(texts, samples, [method]).image.clamp(0, 1)
    seen = method.seen  # nothing splits, so this very method saw all images
    columns: dict[str, Any] = {"prompt": texts}
    columns |= {name: [seen[image][i] for image in samples] for i, name in enumerate(FEATURES)}
    for n in range(1, LATE + 1):
        columns[f"drop {n}"] = _similarity(model.decode(canvases.canvases[-1 - n]), dense)
    for m in range(1, LATE + 1):
        other = Run(model, model.settings, SeededNoise(seed)).generate(texts, samples, build((f"cfg-off:last={m}",)))
        columns[f"replace {m}"] = _similarity(other.image, dense)
    return pd.DataFrame(columns)


def _similarity(image: Tensor, dense: Tensor) -> np.ndarray:
    values: np.ndarray = ssim(image.clamp(0, 1), dense).cpu().numpy()
    return values


def labels(table: pd.DataFrame, kind: str, target: float) -> np.ndarray:
    """The most aggressive "drop" or "replace" of each prompt at the target; 0 where none keeps it."""
    found = np.zeros(len(table), int)
    for n in range(1, LATE + 1):
        found[table[f"{kind} {n}"].to_numpy() >= target] = n
    return found


def fit_classifier(features: np.ndarray, classes: np.ndarray) -> Classifier:
    """Standardiser and logistic regression, L2, C = 1, as coefficients. One class only predicts itself."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    mean, scale = tuple(scaler.mean_.tolist()), tuple(scaler.scale_.tolist())
    known = np.unique(classes)
    if len(known) == 1:
        return Classifier(mean, scale, (), (), (int(known[0]),))
    model = LogisticRegression(max_iter=1500).fit(scaler.transform(features), classes)
    coef = tuple(tuple(row) for row in model.coef_.tolist())
    return Classifier(mean, scale, coef, tuple(model.intercept_.tolist()), tuple(int(c) for c in model.classes_))


@dataclass(frozen=True)
class Fitted:
    """Decision models by target, and how good they are on held-out prompts: one row a target and kind."""

    models: dict[float, DecisionModel]
    accuracy: pd.DataFrame


def fit(
    model: NextScaleModel,
    train: pd.DataFrame,
    held_out: pd.DataFrame,
    targets: Sequence[float] = TARGETS,
    facts: dict[str, Any] | None = None,
) -> Fitted:
    """Fit on ``train`` and judge on ``held_out`` (tables of ``measure``)."""
    models, rows = {}, []
    for target in targets:
        parts: dict[str, Classifier] = {}
        pools = {"drop": (train, held_out)}
        pools["replace"] = tuple(t[labels(t, "drop", target) == 0] for t in pools["drop"])  # type: ignore[assignment]
        for kind, (seen, unseen) in pools.items():
            # Nothing left to learn from: the dense run is the safe answer.
            known = seen[list(FEATURES)].to_numpy(), labels(seen, kind, target)
            parts[kind] = fit_classifier(*known) if len(seen) else always(0, 0).uncond
            rows.append({"target": target, "model": kind} | _judge(parts[kind], kind, seen, unseen, target))
        judged = [row for row in rows if row["target"] == target and row["n_held_out"] and row["n_train"]]
        told = (facts or {}) | {"accuracy": judged}
        models[target] = DecisionModel(
            model.family, model.weights, len(model.schedule), target, parts["drop"], parts["replace"], told
        )
    return Fitted(models, pd.DataFrame(rows))


def _judge(
    classifier: Classifier, kind: str, seen: pd.DataFrame, unseen: pd.DataFrame, target: float
) -> dict[str, Any]:
    """Held-out accuracy beside the training majority's and that of always answering one class.

    gain: the accuracy less that of the fixed answer that is right most often on the held-out prompts, with its 95 %
    interval over these. verdict: whether the decision beats that answer.
    """
    truth = labels(unseen, kind, target)
    row: dict[str, Any] = {"n_train": len(seen), "n_held_out": len(unseen)}
    if not len(unseen) or not len(seen):
        return row | {"accuracy": np.nan, "majority": np.nan, "verdict": str(Outcome.TOO_FEW)}
    right = np.array(classifier.predict(torch.tensor(unseen[list(FEATURES)].to_numpy()))) == truth
    majority = np.argmax(np.bincount(labels(seen, kind, target)))
    row |= {"accuracy": right.mean(), "majority": (truth == majority).mean()}
    row |= {f"always {n}": (truth == n).mean() for n in range(LATE + 1)}
    gain = number("gain", paired_shares(right, truth == np.bincount(truth).argmax()), len(truth))
    row |= {"gain": gain.estimate, "gain low": gain.low, "gain high": gain.high}
    return row | {"verdict": str(judged(gain))}


@fixed_context()
def calibrate(
    model: NextScaleModel,
    prompt_set: str | None = None,
    n: int = 300,
    held_out: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
    targets: Sequence[float] = TARGETS,
) -> tuple[Fitted, pd.DataFrame]:
    """Measure ``n + held_out`` prompts, fit on the first and judge on the others. -> (fitted, all measurements).

    A decision model is fitted for each of ``targets``, SSIM to the dense image: higher ones skip less.
    All texts differ, and ``seed`` deals them out, so that both parts hold every kind of prompt. Raises VarlabError
    where the set has too few.
    """
    check_counts(n=n, held_out=held_out)
    if wrong := [target for target in targets if not 0 < target < 1]:
        raise VarlabError(f"SSIM targets lie between 0 and 1, not {', '.join(map(str, wrong))}.")
    name = prompts(prompt_set, n=1, model=model).name
    seen, unseen = dealt(name, n, held_out, seed, model)
    if len(model.schedule) < LATE + 5:
        raise VarlabError(f"SkipVAR needs at least {LATE + 5} stages; {model.name} has {len(model.schedule)}.")
    table = measure(model, seen + unseen, seed, progress=progress)
    facts = {"prompt_set": name, "n": n, "held_out": held_out, "seed": seed, "texts": digest_of(seen)}
    facts["features"] = list(FEATURES)
    return fit(model, table[:n], table[n:], targets, facts), table


def split_by_frequency(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """(frequency-sensitive, frequency-robust) halves of a measured set, by HF_Diff: SkipVAR's high-variation idea."""
    order = table.sort_values("hf_diff", ascending=False).prompt.tolist()
    half = (len(order) + 1) // 2
    return order[:half], order[half:]

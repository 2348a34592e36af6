"""Quality of class-conditional images of scenes: Frechet distance, precision, recall, and accuracy of the class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.evaluation.distances import FrechetSpace, precision_recall
from varlab.evaluation.scattering import scattering_of
from varlab.evaluation.scenes import HELD_OUT_SEED, drawn, held, reconstruct
from varlab.measures.statistics import Interval, centred_interval, wilson_interval
from varlab.models.base import NextScaleModel
from varlab.models.var_model import VAR
from varlab.runs import Progress
from varlab.scenes import score_images
from varlab.training.var import class_scenes

MEASURES = ("scattering_frechet", "precision", "recall", "class_accuracy")


@dataclass(frozen=True)
class ClassSamples:
    """``features`` [n, 87]; ``correct`` [n]: the scorer sees the class."""

    features: np.ndarray
    correct: np.ndarray


@fixed_context()
def described(pictures: Iterable[np.ndarray], names: Sequence[str]) -> ClassSamples:
    """Of pictures that may come one by one: a hundred are held at a time."""
    features, correct = [], []
    for at, few in held(pictures, 100):
        features.append(scattering_of(few))
        correct.append(score_images(few, names[at], ["colors"] * len(few))["correct"].to_numpy(bool))
    return ClassSamples(np.concatenate(features), np.concatenate(correct))


def check_classes(model: NextScaleModel) -> VAR:
    """A VAR whose classes are scenes; else what to take."""
    if not isinstance(model, VAR) or not model.text.names:
        raise VarlabError(
            f"This measure needs a model of named scene classes, such as mini-var; {model.name} has none."
        )
    return model


def labels(model: VAR, n: int) -> list[str]:
    """Names (or numbers) of n classes, each as often as the others."""
    known = model.text.texts
    return [known[i % len(known)] for i in range(n)]


def draw_classes(
    model: VAR,
    n: int,
    seed: int = 0,
    accelerators: Sequence[str] = (),
    batch: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """uint8 [n, H, W, 3], classes in turn; image i depends on (seed, i) alone."""
    return np.stack(list(drawn(model, labels(model, n), seed, accelerators, batch, progress)))


def held_out(n: int, side: int) -> tuple[np.ndarray, list[str]]:
    """Scenes that no training pool contains, [n, side, side, 3], and their classes."""
    return class_scenes(n, HELD_OUT_SEED, side)


def reference(model: VAR, n: int) -> tuple[np.ndarray, list[str]]:
    """Held-out scenes of the model's size, and their classes."""
    return held_out(n, model.schedule.final[0] * model.stride)


def measures(found: ClassSamples, space: FrechetSpace, draws: np.ndarray | None = None) -> dict[str, Interval]:
    """Against held-out scenes, of which there should be as many; ``draws``: those of the distance, if known."""
    precision, recall = precision_recall(found.features, space.real)
    accuracy = wilson_interval(found.correct)
    distance = centred_interval(space.draws(found.features) if draws is None else draws)
    return dict(zip(MEASURES, (distance, precision, recall, accuracy), strict=True))


def as_row(values: dict[str, Interval]) -> dict[str, float]:
    """name, name_low, name_high, ... of a table."""
    ends = ("", "_low", "_high")
    return {f"{name}{end}": float(v) for name, value in values.items() for end, v in zip(ends, value, strict=True)}


@fixed_context()
def score_classes(
    model: NextScaleModel,
    n: int = 2000,
    seed: int = 0,
    methods: Sequence[str] = ("none",),
    progress: Progress | None = None,
) -> pd.DataFrame:
    """One row a method (accelerators, or none), and for scale: reconstructions and other held-out scenes."""
    checked = check_classes(model)
    specs = {method: [part for part in method.split("+") if part != "none"] for method in methods}
    texts = labels(checked, n)
    return judge_classes(
        checked, n, {method: drawn(checked, texts, seed, own, progress=progress) for method, own in specs.items()}
    )


@fixed_context()
def judge_classes(model: VAR, n: int, samples: Mapping[str, Iterable[np.ndarray]]) -> pd.DataFrame:
    """The table of ``score_classes`` for n pictures a method, classes in turn, which may come one by one."""
    pictures, names = reference(model, 2 * n)
    space, rows = FrechetSpace(scattering_of(pictures[:n])), []
    for method, own in samples.items():
        rows.append({"source": method, "n": n} | as_row(measures(described(own, labels(model, n)), space)))
    for source, others in (("reconstructions", reconstruct(model, pictures[n:])), ("other scenes", pictures[n:])):
        rows.append({"source": source, "n": n} | as_row(measures(described(others, names[n:]), space)))
    return pd.DataFrame(rows)

"""Quality of class-conditional images of scenes: Frechet distance, precision, recall, and accuracy of the class."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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


def joined(parts: Sequence[ClassSamples]) -> ClassSamples:
    """Of some pictures and those that follow."""
    return ClassSamples(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "correct")))


@fixed_context()
def described(pictures: Iterable[np.ndarray], names: Sequence[str]) -> ClassSamples:
    """Of pictures that may come one by one: a hundred are held at a time."""
    parts = []
    for at, few in held(pictures, 100):
        correct = score_images(few, names[at], ["colors"] * len(few))["correct"].to_numpy(bool)
        parts.append(ClassSamples(scattering_of(few), correct))
    return joined(parts)


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


def held_out(n: int, side: int, first: int = 0) -> Iterator[tuple[np.ndarray, str]]:
    """Scenes ``first`` to ``first + n`` that no training pool contains, uint8 [side, side, 3], each with its class; a
    few are held."""
    for _, few in held(range(first, first + n)):
        yield from zip(*class_scenes(len(few), HELD_OUT_SEED, side, few[0]), strict=True)


def reference(model: VAR, n: int, first: int = 0) -> Iterator[tuple[np.ndarray, str]]:
    """Held-out scenes of the model's size, each with its class."""
    return held_out(n, model.schedule.final[0] * model.stride, first)


def space_of(scenes: Iterable[tuple[np.ndarray, str]], resamples: int = 200) -> FrechetSpace:
    """Distances to held-out scenes."""
    return FrechetSpace(scattering_of(picture for picture, _ in scenes), resamples)


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
    space, rows = space_of(reference(model, n)), []
    for method, own in samples.items():
        rows.append({"source": method, "n": n} | as_row(measures(described(own, labels(model, n)), space)))
    for source, change in (("reconstructions", partial(reconstruct, model)), ("other scenes", list)):
        rows.append({"source": source, "n": n} | as_row(measures(_changed(reference(model, n, n), change), space)))
    return pd.DataFrame(rows)


def _changed(
    scenes: Iterable[tuple[np.ndarray, str]], change: Callable[[np.ndarray], Iterable[np.ndarray]]
) -> ClassSamples:
    """Of scenes [n, H, W, 3] that go through ``change`` a few at a time."""
    parts = []
    for _, few in held(scenes):
        pictures, names = zip(*few, strict=True)
        parts.append(described(change(np.stack(pictures)), names))
    return joined(parts)

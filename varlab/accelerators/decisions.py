"""SkipVAR's decision models: a standardiser and a logistic regression over two features, as plain coefficients."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.errors import VarlabError, cause
from varlab.outputs import save_json
from varlab.weight_labels import EMPTY, WeightsLabel

FEATURES = ("hf_diff", "hf_ratio")
ANY = "any"  # family or weights that are not named


@dataclass(frozen=True)
class Classifier:
    """argmax over classes of ``coef`` z + ``intercept``, z = (features - mean) / scale: scikit-learn's prediction.

    With two classes there is one row of coefficients, and a positive score means the second class.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coef: tuple[tuple[float, ...], ...]
    intercept: tuple[float, ...]
    classes: tuple[int, ...]

    def __post_init__(self) -> None:
        rows = 1 if len(self.classes) == 2 else len(self.classes)
        if len(self.classes) == 1:
            rows = 0
        widths = {len(self.mean), len(self.scale), *map(len, self.coef)}
        if len(self.coef) != rows or len(self.intercept) != rows or len(widths) != 1:
            raise VarlabError(
                f"A decision model of {len(self.classes)} classes does not fit {len(self.coef)} rows of coefficients."
            )

    def scores(self, features: Tensor) -> Tensor:
        """Features [n, f] -> scores [n, classes], float64."""
        values = [
            torch.tensor(part, dtype=torch.float64) for part in (self.mean, self.scale, self.coef, self.intercept)
        ]
        mean, scale, coef, intercept = values
        if len(self.classes) == 1:
            return torch.zeros(len(features), 1, dtype=torch.float64)
        z = (features.cpu().double() - mean) / scale
        scores = z @ coef.T + intercept
        return torch.cat([-scores, scores], 1) if len(self.classes) == 2 else scores

    def probabilities(self, features: Tensor, count: int) -> np.ndarray:
        """Probability [n, count] of the classes 0, 1, ...; 0 for one that the model never saw."""
        scores = self.scores(features) / (2 if len(self.classes) == 2 else 1)
        probabilities = np.zeros((len(features), count))
        probabilities[:, list(self.classes)] = scores.softmax(1).numpy()
        return probabilities

    def predict(self, features: Tensor) -> list[int]:
        """Class of each row of features [n, f]."""
        return [self.classes[i] for i in self.scores(features).argmax(1).tolist()]


@dataclass(frozen=True)
class DecisionModel:
    """What was fitted on which model: ``skip`` first, then, where nothing is skipped, ``uncond``.

    0 stages: it fits every model. ``weights`` are those of the model, or "any" where they are not named.
    """

    family: str
    weights: str
    stages: int
    target: float
    skip: Classifier
    uncond: Classifier
    facts: dict[str, Any]

    def check(self, family: str, stages: int, weights: str | None) -> None:
        """Raises VarlabError for a model that it was not fitted on; None and shapes alone are weights not known yet."""
        if not self.stages:
            return
        if (self.family, self.stages) != (family, stages):
            raise VarlabError(
                f"This decision model was fitted on {self.family} with {self.stages} stages, not on {family} with "
                f"{stages}. Fit one: varlab calibrate skipvar MODEL."
            )
        if weights is not None and WeightsLabel(weights).kind != EMPTY and self.weights not in (ANY, weights):
            raise VarlabError(
                f"This decision model was fitted on the weights {self.weights}, not on {weights}, whose features "
                "differ. Fit one with these (varlab calibrate skipvar MODEL --out FOLDER, with the same --init or "
                "--checkpoint) and give model=FOLDER/skipvar.json."
            )

    def strategies(self, features: Tensor) -> list[tuple[int, int]]:
        """(final stages dropped, final stages without the unconditional branch) of each row of features [n, 2]."""
        dropped, replaced = self.skip.predict(features), self.uncond.predict(features)
        return [(n, 0) if n else (0, m) for n, m in zip(dropped, replaced, strict=True)]


def always(dropped: int, replaced: int) -> DecisionModel:
    """The same strategy for every image of any model: the fixed strategies that a decision must beat."""
    skip, uncond = (Classifier((0.0, 0.0), (1.0, 1.0), (), (), (n,)) for n in (dropped, replaced))
    return DecisionModel(ANY, ANY, 0, 0.0, skip, uncond, {})


def save(path: Path, models: dict[float, DecisionModel]) -> None:
    """One JSON file for all targets of a model."""
    save_json(path, {str(target): asdict(model) for target, model in models.items()})


def targets_of(path: Path) -> list[str]:
    """The targets that a file holds models for; none where there is no file."""
    return list(json.loads(path.read_text())) if path.is_file() else []


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def load(path: Path, target: float) -> DecisionModel:
    """The model for one target. Raises VarlabError for a missing or damaged file and for a target that it lacks."""
    if not path.is_file():
        raise VarlabError(
            f"There is no decision model {path}. Fit one (varlab calibrate skipvar MODEL), or give model=PATH."
        )
    try:
        records = json.loads(path.read_text())
        if str(target) not in records:
            raise VarlabError(f"{path} holds targets {', '.join(records)}, not {target}.")
        record = records[str(target)]
        parts = {
            part: Classifier(**{name: _tuples(value) for name, value in record[part].items()})
            for part in ("skip", "uncond")
        }
        return DecisionModel(**{**record, **parts})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VarlabError(
            f"{path} is no decision model ({cause(error)}). Fit it again: varlab calibrate skipvar MODEL."
        ) from error

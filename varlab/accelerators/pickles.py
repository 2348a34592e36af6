"""The official SkipVAR decision models, read from the user's own copy without running anything that is in them.

They are scikit-learn objects pickled by joblib. Only arrays and plain containers are built; the scikit-learn classes
become bags of attributes, so that neither their code nor their version matters.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray

from varlab.accelerators.decisions import ANY, Classifier, DecisionModel
from varlab.errors import VarlabError

OFFICIAL_STAGES = 13
ENDINGS = (".pkl", ".joblib", ".pickle")


class Bag:
    """Stands in for an estimator: what it was pickled with, as attributes."""

    def __new__(cls, *_: object) -> "Bag":
        return super().__new__(cls)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _allowed(module: str, name: str) -> Any:
    """The object of this name, for the few names that arrays need."""
    if module.startswith("sklearn."):
        return Bag
    if module.split(".")[0] == "numpy" and name in ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"):
        return getattr(np, name) if hasattr(np, name) else getattr(multiarray, name)
    if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
        from joblib.numpy_pickle import NumpyArrayWrapper

        return NumpyArrayWrapper
    if (module, name) in (("collections", "OrderedDict"), ("builtins", "set"), ("builtins", "slice")):
        return {"OrderedDict": dict, "set": set, "slice": slice}[name]
    raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a decision model does not need")


def read_estimator(path: Path) -> Bag:
    """One pickled estimator as a bag of attributes. Raises VarlabError for anything else, and runs none of it."""
    from joblib.numpy_pickle import NumpyUnpickler

    class Restricted(NumpyUnpickler):  # type: ignore[misc, unused-ignore]
        def find_class(self, module: str, name: str) -> Any:
            return _allowed(module, name)

    try:
        with path.open("rb") as file:
            found = Restricted(str(path), file, True).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise VarlabError(f"{path} is not read as a decision model: {error}.") from error
    if not isinstance(found, Bag):
        raise VarlabError(f"{path} holds {type(found).__name__}, not a scikit-learn estimator.")
    return found


def load_official(folder: Path, target: float) -> DecisionModel:
    """Scaler and logistic regression for "skip" and for "uncond" from a folder of the released ones.

    Files are told apart by what they hold (a scaler has a scale, a logistic regression coefficients) and by "uncond"
    in their names; trees and forests are left alone. Raises VarlabError naming the part that is missing, or where the
    folder is by its name (84, 86, 88, as released) for another target.
    """
    named = re.match(r"(8[468])(?!\d)", folder.resolve().name)
    if named and round(100 * target) != int(named[1]):
        raise VarlabError(
            f"{folder} holds the models of target .{named[1]}, not {target:g}. Ask for target=0.{named[1]}, or give "
            f"the folder of the other target."
        )
    scalers: dict[str, Bag] = {}
    regressions: dict[str, Bag] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in ENDINGS):
        kind = "uncond" if "uncond" in path.name.lower() else "skip"
        bag = read_estimator(path)
        if hasattr(bag, "coef_"):
            regressions[kind] = bag
        elif hasattr(bag, "scale_") and hasattr(bag, "mean_"):
            scalers[kind] = bag
    for part, found in (("scaler", scalers), ("logistic regression", regressions)):
        if missing := {"skip", "uncond"} - found.keys():
            raise VarlabError(
                f"{folder} holds no {part} for {' and '.join(sorted(missing))} ({', '.join(ENDINGS)} files)."
            )
    skip, uncond = (_classifier(scalers[kind], regressions[kind]) for kind in ("skip", "uncond"))
    facts = {"released": folder.name}  # the pickles name no weights
    return DecisionModel("infinity", ANY, OFFICIAL_STAGES, target, skip, uncond, facts)


def _classifier(scaler: Bag, regression: Bag) -> Classifier:
    values = vars(scaler) | vars(regression)

    def plain(name: str) -> Any:
        return np.asarray(values[name]).tolist()

    coef = tuple(map(tuple, plain("coef_")))
    return Classifier(
        tuple(plain("mean_")), tuple(plain("scale_")), coef, tuple(plain("intercept_")), tuple(plain("classes_"))
    )

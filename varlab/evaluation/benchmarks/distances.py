"""Distances to real images by Inception's features: FID with its relatives, and MJHQ-30K by category."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from varlab.errors import VarlabError, cause
from varlab.evaluation import adm_scores
from varlab.evaluation.adm_scores import Statistics
from varlab.evaluation.contract import Asked, Benchmark, Folder, Item, Scores, finished, plain_row, require_all
from varlab.evaluation.results import check_facts, said
from varlab.json_files import read_json
from varlab.measures.statistics import wilson_interval

if TYPE_CHECKING:
    from varlab.models.base import NextScaleModel

ADAPTER = "inception_features"
VERSIONS = ("inception-v3-compat",)


class Features(NamedTuple):
    """Arrays of the adapter's file: features [n, d], logits [n, classes], names [n], and what it says of itself."""

    features: np.ndarray
    logits: np.ndarray
    names: list[str]
    facts: dict[str, Any]


def read_features(path: Path) -> Features:
    """Raises VarlabError for a file without features, and for values that are not finite."""
    arrays = _arrays(path)
    if "features" not in arrays or arrays["features"].ndim != 2:
        raise VarlabError(
            f"{path} holds {', '.join(arrays)} and no features [n, d]. Write it with: varlab adapter fid."
        )
    features = arrays["features"]
    for row in np.flatnonzero(~np.isfinite(features).all(1))[:1]:
        raise VarlabError(f"{path}, row {row}: features that are no numbers. Extract them again.")
    n = len(features)
    logits = arrays.get("logits", np.zeros((n, 0), np.float32))
    names = [str(name) for name in arrays.get("names", np.arange(n))]
    if len(names) != n or len(logits) != n:
        raise VarlabError(f"{path}: {n} features, {len(logits)} logits and {len(names)} names.")
    if len(set(names)) < n:
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise VarlabError(f"{path}: {twice} is there twice.")
    facts = json.loads(str(arrays["facts"])) if "facts" in arrays else {}
    return Features(features, logits, names, check_facts(facts, str(path), "fid", VERSIONS) if facts else {})


def read_statistics(arrays: Mapping[str, np.ndarray], place: Path) -> Statistics:
    """As the ADM evaluator: mu and sigma where the file has them, else those of its features."""
    if {"mu", "sigma"} <= arrays.keys():
        found = Statistics(arrays["mu"], arrays["sigma"])
        if found.sigma.shape != 2 * found.mu.shape or not all(np.isfinite(part).all() for part in found):
            raise VarlabError(f"{place}: mu {found.mu.shape} and sigma {found.sigma.shape} are no mean and covariance.")
        return found
    if "features" in arrays:
        return adm_scores.statistics(arrays["features"])
    raise VarlabError(
        f"{place} has neither mu and sigma nor features. Give an ADM reference batch, or features of real images "
        "(varlab adapter fid)."
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "arr_0"}
    except FileNotFoundError:
        raise VarlabError(f"There is no file {path}. Write it with: varlab adapter fid.") from None
    except Exception as error:  # numpy, zipfile and zlib have a class each for a damaged file
        raise VarlabError(
            f"{path} cannot be read as npz ({cause(error)}). It was cut or damaged: write it again."
        ) from error


class Real(NamedTuple):
    """Real images: statistics, and features where a file has them, with their names."""

    statistics: Statistics
    features: np.ndarray | None
    names: list[str]


def read_references(asked: Asked) -> Real:
    """The first file that has mu and sigma gives these, the first with features those."""
    if not asked.references:
        raise VarlabError(
            "A distance needs real images: --reference FILE.npz, an ADM reference batch with mu and sigma, or features "
            "of real images (varlab adapter fid)."
        )
    files = {path: _arrays(path) for path in asked.references}
    stored = next((path for path, arrays in files.items() if "mu" in arrays), next(iter(files)))
    pooled = next((path for path, arrays in files.items() if "features" in arrays), None)
    own = read_features(pooled) if pooled else None
    return Real(read_statistics(files[stored], stored), own and own.features, own.names if own else [])


class Fid(Benchmark):
    name = "fid"
    title = "FID of class-conditional images"
    per_prompt = 50
    results = "features.npz"
    adapter = ADAPTER
    packages = ("torch_fidelity",)
    needs = "a class-conditional model, such as mini-var, whose classes are drawn in turn"
    reads_prompts = False

    def items(self, prompts: Path | None, model: "NextScaleModel | None" = None) -> list[Item]:
        classes = getattr(getattr(model, "text", None), "classes", None)
        if classes is None:
            return []  # of a folder: whatever pictures lie in it
        return [Item(f"{i:04d}", str(i), f"{i:04d}") for i in range(classes)]

    def paths(self, item: Item, count: int, ending: str) -> list[str]:
        return [f"{item.id}/{k:03d}{ending}" for k in range(count)]

    def command(self, folder: Folder, prompts: Path | None, out: Path) -> list[str]:
        return [str(folder.images), str(out)]

    def expected(self, asked: Asked) -> list[str]:
        count = int(asked.folder.record.get("images_per_prompt", self.per_prompt))
        ending = asked.folder.record.get("ending", self.ending)
        return [path for item in asked.items for path in self.paths(item, count, ending)]

    def score(self, asked: Asked) -> Scores:
        results = asked.results or Path(self.results)
        own, real = read_features(results), read_references(asked)
        expected = self.expected(asked)
        missing = require_all(asked, expected, own.names) if expected else 0
        entries = pd.DataFrame({"entry": own.names, "image": 0, "category": "", "prompt": ""})
        if len(own.features) < 2:
            raise VarlabError(f"{results} holds {len(own.features)} images; a distance needs two at least.")
        fid = adm_scores.fid_interval(own.features, real.statistics)
        n = len(own.names)
        rows = [{"measure": "fid", "value": fid.estimate, "low": fid.low, "high": fid.high, "prompts": n, "images": n}]
        if own.logits.shape[1]:
            rows.append(
                plain_row("inception_score", adm_scores.inception_score(own.logits, corrected=asked.corrected), n, n)
            )
        notes = [*said(own.facts), "the interval of FID is over images, real ones as they are; FID grows as n falls"]
        if real.features is None:
            notes.append("no precision, recall and KID: no --reference with features")
        else:
            rows += _with_features(own.features, real.features, asked.corrected)
        return finished(rows, asked, missing, entries, notes, own.facts)


def _with_features(own: np.ndarray, real: np.ndarray, corrected: bool) -> list[dict[str, Any]]:
    """Precision, recall and KID."""
    n, manifolds = len(own), [adm_scores.Manifold(points, corrected=corrected) for points in (real, own)]
    rows = []
    for name, hits in (("precision", manifolds[0].holds(own)), ("recall", manifolds[1].holds(real))):
        found = wilson_interval(hits)
        rows.append({"measure": name, "value": found.estimate, "low": found.low, "high": found.high,
                     "prompts": len(hits), "images": len(hits)})  # fmt: skip
    return [*rows, plain_row("kid", float(adm_scores.kid(own, real).mean()), n, n)]


class Mjhq(Fid):
    name = "mjhq"
    title = "MJHQ-30K"
    per_prompt = 1
    needs = "meta_data.json of MJHQ-30K: an object of id -> category and prompt"
    reads_prompts = True

    def items(self, prompts: Path | None, model: "NextScaleModel | None" = None) -> list[Item]:
        place = self.require_prompts(prompts)
        found = read_json(place, fix := f"MJHQ-30K needs {self.needs}.")
        try:
            return [Item(name, about["prompt"], about["category"]) for name, about in found.items()]
        except (KeyError, TypeError) as error:
            raise VarlabError(f"{place} cannot be read ({error!r}). {fix}") from error

    def paths(self, item: Item, count: int, ending: str) -> list[str]:
        return [f"{item.category}/{item.id}{ending}"]

    def score(self, asked: Asked) -> Scores:
        """FID of all, and of each category against the real ones of that category."""
        results = asked.results or Path(self.results)
        own, real = read_features(results), read_references(asked)
        if real.features is None:
            raise VarlabError("MJHQ-30K is scored by category: give features of its images with --reference.")
        missing = require_all(
            asked, [_stem(path) for path in self.expected(asked)], [_stem(name) for name in own.names]
        )
        rows = []
        for category in ["", *dict.fromkeys(item.category for item in asked.items)]:
            ours, theirs = (_of(category, part.names, part.features) for part in (own, real))
            if len(ours) < 2 or len(theirs) < 2:
                raise VarlabError(
                    f"{category}: {len(ours)} images of {results}, {len(theirs)} real ones; two are needed."
                )
            found = adm_scores.fid_interval(ours, adm_scores.statistics(theirs))
            rows.append({"measure": category or "fid", "value": found.estimate, "low": found.low, "high": found.high,
                         "prompts": len(ours), "images": len(ours)})  # fmt: skip
        entries = pd.DataFrame({
            "entry": [Path(name).stem for name in own.names], "image": 0,
            "category": [name.split("/")[0] for name in own.names], "prompt": "",
        })  # fmt: skip
        notes = [*said(own.facts), "intervals of FID are over images, real ones as they are; FID grows as n falls"]
        return finished(rows, asked, missing, entries, notes, own.facts)


def _stem(name: str) -> str:
    return str(Path(name).with_suffix(""))


def _of(category: str, names: list[str], features: Any) -> np.ndarray:
    """The features of a category's images; of all without one."""
    return features[[not category or name.split("/")[0] == category for name in names]]

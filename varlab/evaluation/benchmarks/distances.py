"""Distances to real images by Inception's features: FID with its relatives, and MJHQ-30K by category."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from varlab.errors import VarlabError, cause
from varlab.evaluation import adm_scores
from varlab.evaluation.adm_scores import Statistics
from varlab.evaluation.contract import Asked, Benchmark, Folder, Item, Scores, finished, interval_row, require_all
from varlab.evaluation.results import check_facts, said
from varlab.json_files import read_json
from varlab.measures.statistics import wilson_interval
from varlab.models.base import NextScaleModel

ADAPTER = "inception_features"
VERSIONS = ("inception-v3-compat",)
KINDS = ("features", "logits", "spatial")  # arrays of the adapter's file
STORED = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}  # arrays of an ADM reference batch
INTERVALS = (
    "intervals are over images, the real ones as they are: FID, sFID and inception score by the first-order effect of "
    "each image, KID by leaving each out (jackknife), precision and recall by Wilson; all but KID depend on n: compare "
    "equal n"
)


class Features(NamedTuple):
    """Arrays of the adapter's file, and what it says of itself.

    features [n, d], logits [n, classes] and spatial features [n, e], of which there may be none (no column), names [n].
    """

    features: np.ndarray
    logits: np.ndarray
    spatial: np.ndarray
    names: list[str]
    facts: dict[str, Any]


def read_features(path: Path) -> Features:
    """Raises VarlabError for a file without features, and for values that are not finite."""
    arrays = _arrays(path)
    if "features" not in arrays or arrays["features"].ndim != 2:
        raise VarlabError(
            f"{path} holds {', '.join(arrays)} and no features [n, d]. Write it with: varlab adapter fid."
        )
    n = len(arrays["features"])
    features, logits, spatial = (arrays.get(name, np.zeros((n, 0), np.float32)) for name in KINDS)
    for kind in (features, spatial):
        for row in np.flatnonzero(~np.isfinite(kind).all(1))[:1]:
            raise VarlabError(f"{path}, row {row}: features that are no numbers. Extract them again.")
    names = [str(name) for name in arrays.get("names", np.arange(n))]
    if {len(names), len(logits), len(spatial)} != {n}:
        raise VarlabError(
            f"{path}: {n} features, {len(logits)} logits, {len(spatial)} spatial features and {len(names)} names."
        )
    if len(set(names)) < n:
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise VarlabError(f"{path}: {twice} is there twice.")
    facts = json.loads(str(arrays["facts"])) if "facts" in arrays else {}
    return Features(features, logits, spatial, names, check_facts(facts, str(path), "fid", VERSIONS) if facts else {})


def read_statistics(arrays: Mapping[str, np.ndarray], place: Path, kind: str = "features") -> Statistics:
    """As the ADM evaluator: mu and sigma where the file has them, else those of its features of this kind."""
    mu, sigma = STORED[kind]
    if {mu, sigma} <= arrays.keys():
        found = Statistics(arrays[mu], arrays[sigma])
        if found.sigma.shape != 2 * found.mu.shape or not all(np.isfinite(part).all() for part in found):
            raise VarlabError(
                f"{place}: {mu} {found.mu.shape} and {sigma} {found.sigma.shape} are no mean and covariance."
            )
        return found
    if kind in arrays:
        return adm_scores.statistics(arrays[kind])
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
    """Real images: statistics, those of spatial features and features where a file has them, with their names."""

    statistics: Statistics
    spatial: Statistics | None
    features: np.ndarray | None
    names: list[str]


def read_references(references: Sequence[Path]) -> Real:
    """The first file that has mu and sigma gives these, the first with features those; likewise the spatial ones."""
    if not references:
        raise VarlabError(
            "A distance needs real images: --reference FILE.npz, an ADM reference batch with mu and sigma, or features "
            "of real images (varlab adapter fid)."
        )
    files = {path: _arrays(path) for path in references}
    stored, pooled, stored_spatial, spatial = (
        next((path for path, arrays in files.items() if name in arrays and arrays[name].size), None)
        for name in ("mu", "features", "mu_s", "spatial")
    )
    own, first = read_features(pooled) if pooled else None, stored or pooled or next(iter(files))
    local = stored_spatial or spatial
    return Real(
        read_statistics(files[first], first),
        read_statistics(files[local], local, "spatial") if local else None,
        own and own.features,
        own.names if own else [],
    )


class Fid(Benchmark):
    name = "fid"
    title = "FID of class-conditional images"
    place = "{id}/{k:03d}"
    per_prompt = 50
    results = "features.npz"
    adapter = ADAPTER
    packages = ("torch_fidelity",)
    needs = "a class-conditional model, such as mini-var, whose classes are drawn in turn"
    reads_prompts = False

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        classes = getattr(getattr(model, "text", None), "classes", None)
        if classes is None:
            return []  # of a folder: whatever pictures lie in it
        return [Item(f"{i:04d}", str(i), f"{i:04d}") for i in range(classes)]

    def command(self, folder: Folder, prompts: Path | None, out: Path) -> list[str]:
        return [str(folder.images), str(out)]

    def expected(self, asked: Asked) -> list[str]:
        return [path for item in asked.items for path in self.paths(item, *asked.folder.layout(self))]

    def score(self, asked: Asked) -> Scores:
        results = asked.results or Path(self.results)
        own, real = read_features(results), read_references(asked.references)
        expected = self.expected(asked)
        missing = require_all(asked, expected, own.names) if expected else 0
        entries = pd.DataFrame({"entry": own.names, "image": 0, "category": "", "prompt": ""})
        if len(own.features) < 2:
            raise VarlabError(f"{results} holds {len(own.features)} images; a distance needs two at least.")
        rows, notes = distance_rows(own, real, asked.corrected)
        return finished(rows, asked, missing, entries, [*said(own.facts), *notes], own.facts)


def distance_rows(own: Features, real: Real, corrected: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """All distances that the arrays allow, with intervals; and notes on these and on what is absent."""
    n, notes = len(own.names), [INTERVALS]
    rows = [interval_row("fid", adm_scores.fid_interval(own.features, real.statistics), n)]
    if own.spatial.shape[1] and real.spatial:
        rows.append(interval_row("sfid", adm_scores.fid_interval(own.spatial, real.spatial), n))
    else:
        notes.append(f"no sFID: no spatial features of the {'real' if own.spatial.shape[1] else 'drawn'} images")
    if own.logits.shape[1]:
        rows.append(interval_row("inception_score", adm_scores.inception_score(own.logits, corrected=corrected), n))
    if real.features is None:
        return rows, [*notes, "no precision, recall and KID: no --reference with features"]
    manifolds = [adm_scores.Manifold(points, corrected=corrected) for points in (real.features, own.features)]
    for name, hits in (("precision", manifolds[0].holds(own.features)), ("recall", manifolds[1].holds(real.features))):
        rows.append(interval_row(name, wilson_interval(hits), len(hits)))
    if max(n, len(real.features)) > adm_scores.KID_MOST:
        notes.append(f"KID of {adm_scores.KID_MOST} images of a larger set, drawn with seed 0")
    return [*rows, interval_row("kid", adm_scores.kid(own.features, real.features), min(n, adm_scores.KID_MOST))], notes


class Mjhq(Fid):
    name = "mjhq"
    title = "MJHQ-30K"
    place = "{category}/{id}"
    per_prompt = 1
    needs = "meta_data.json of MJHQ-30K: an object of id -> category and prompt"
    reads_prompts = True

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        place = self.require_prompts(prompts)
        found = read_json(place, fix := f"MJHQ-30K needs {self.needs}.")
        try:
            return [Item(name, about["prompt"], about["category"]) for name, about in found.items()]
        except (KeyError, TypeError) as error:
            raise VarlabError(f"{place} cannot be read ({error!r}). {fix}") from error

    def score(self, asked: Asked) -> Scores:
        """FID of all, and of each category against the real ones of that category."""
        results = asked.results or Path(self.results)
        own, real = read_features(results), read_references(asked.references)
        if real.features is None:
            raise VarlabError("MJHQ-30K is scored by category: give features of its images with --reference.")
        missing = require_all(
            asked, [_stem(path) for path in self.expected(asked)], [_stem(name) for name in own.names]
        )
        rows = []
        for category in ["", *dict.fromkeys(item.category for item in asked.items)]:
            # Of all where there is no category.
            kept = ([not category or name.split("/")[0] == category for name in part.names] for part in (own, real))
            ours, theirs = own.features[next(kept)], real.features[next(kept)]
            if len(ours) < 2 or len(theirs) < 2:
                raise VarlabError(
                    f"{category}: {len(ours)} images of {results}, {len(theirs)} real ones; two are needed."
                )
            found = adm_scores.fid_interval(ours, adm_scores.statistics(theirs))
            rows.append(interval_row(category or "fid", found, len(ours)))
        entries = pd.DataFrame({
            "entry": [Path(name).stem for name in own.names], "image": 0,
            "category": [name.split("/")[0] for name in own.names], "prompt": "",
        })  # fmt: skip
        notes = [*said(own.facts), "intervals of FID are over images, real ones as they are; FID grows as n falls"]
        return finished(rows, asked, missing, entries, notes, own.facts)


def _stem(name: str) -> str:
    return str(Path(name).with_suffix(""))

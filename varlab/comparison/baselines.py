"""The frontier of baselines, drawn once for a model, its prompts, a seed and settings, and kept in a folder.

Not timed: what counts is the fidelity and the ledger's work. Most of the baselines are the dense run until a few stages
before its end, so a batch of all of them takes about as long as three batches of that run.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.accelerators import DENSE
from varlab.analysis.frontier import Frontier
from varlab.comparison.bench import Measure, identities, job_of, measured, measures_of, methods_of
from varlab.context import fixed_context
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import shared_runs
from varlab.errors import VarlabError, cause
from varlab.json_files import read_json
from varlab.locks import one_writer
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.outputs import save_json, save_table
from varlab.runs import Job, Progress, default_batch, runs_folder
from varlab.runs.dense import Batch, DenseImages
from varlab.runs.folders import run_key
from varlab.runs.inputs import at_least, check_counts
from varlab.runs.provenance import provenance
from varlab.scenes.prompt_sets import Given
from varlab.writing import check_writable

RECORD, PARTS = "frontier.json", "baselines-{:06d}.csv"
DROPPED, UNGUIDED = 3, 5  # final stages, at most
TOKENS = ((0.5, 1), (0.5, 2), (0.25, 3))  # keep, last
VERSION = 1  # raised when a measure or a baseline changes its meaning
AT_ONCE = 8  # images


def baseline_specs(model: NextScaleModel, settings: Settings) -> list[str]:
    """The dense run and all that leave out work blindly, as far as guidance and schedule allow.

    Up to three final stages dropped, guidance off for up to five, both together, and tokens at random or evenly spread.
    Guidance off where every such stage is dropped is no other baseline.
    """
    most = len(model.schedule) - 1
    off = range(1, min(UNGUIDED, most) + 1) if model.guided(settings) else ()
    pairs = [(drop, last) for drop in range(min(DROPPED, most) + 1) for last in (0, *off) if last == 0 or last > drop]
    grid = [
        "+".join([f"truncate:last={drop}"] * (drop > 0) + [f"cfg-off:last={last}"] * (last > 0)) or DENSE
        for drop, last in pairs
    ]
    kinds = ("random-tokens", "uniform-tokens")
    return grid + [f"{kind}:keep={keep:g},last={last}" for kind in kinds for keep, last in TOKENS if last <= most]


def frontier_of(
    job: Job,
    prompt_set: str,
    folder: Path | None,
    measures: Mapping[str, Measure],
    progress: Progress | None = None,
    batch: int | None = None,
    dense: DenseImages | None = None,
) -> Frontier:
    """The frontier of a job's model and prompts: read from its folder, where anything is missing drawn first.

    Parameters
    ----------
    folder: by default one under ``runs/`` that is named after all that decides the numbers.
    measures: image and dense image [B, 3, H, W] in [0, 1] -> a number for each.
    progress: called with the prompts that are done, and all of them.
    batch: images at a time, at most; memory grows in proportion. None: as many as ``default_batch``, up to eight.
    dense: where the dense images of the same batches may lie already, and are kept.

    Raises
    ------
    VarlabError: the folder holds something else, is damaged, or cannot be written in.
    """
    record = _record(job, prompt_set, measures, batch)
    name = f"frontier-{job.model.name}-{Path(prompt_set).stem}-{len(job.prompts)}-seed{job.seed}-{record['key'][:8]}"
    place = folder or runs_folder() / name
    found, specs = _find(place, record) or record, baseline_specs(job.model, job.settings)
    if any(missing for *_, missing in _missing(place, job, found["batch"], specs)):
        check_writable(place)
        with one_writer(place):  # a second process waits, and then finds what the first has drawn
            found = _claim(place, record)
            for path, samples, missing in _missing(place, job, found["batch"], specs):
                if missing:
                    parts = [_drawn(job, part, missing, measures, dense) for part in _split(samples, record["batch"])]
                    there = [_read(path, samples)] if path.exists() else []
                    save_table(path, pd.concat([*there, *parts]))
                if progress is not None:
                    progress(samples.stop, len(job.prompts))
    parts = [_read(path, samples) for path, samples, _ in _missing(place, job, found["batch"], specs)]
    rows = pd.concat(parts, ignore_index=True)
    return Frontier(rows[rows.baseline.isin(specs)].reset_index(drop=True), {**found, "folder": str(place)})


@fixed_context()
def frontier(
    model: NextScaleModel,
    prompt_set: Given = None,
    *,
    n: int | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    lpips: Path | str | None = None,
    progress: Progress | None = None,
    batch: int | None = None,
    dense: Path | str | None = None,
    **settings: Any,
) -> Frontier:
    """What leaving out work blindly reaches on these prompts, as ``compare`` with the same inputs judges by.

    ``compare`` calls this itself. The inputs are those of ``compare``; ``folder``, ``batch`` and errors as in
    ``frontier_of``; ``dense``: a place of dense images that sweeps, comparisons and benchmarks share.
    """
    check_counts(n=n)
    at_least(1, batch=batch)
    job, chosen = job_of(model, prompt_set, n, seed, settings)
    place, kept = Path(folder) if folder else None, DenseImages.at(dense)
    return frontier_of(job, chosen.name, place, measures_of(model, lpips), progress, batch, kept)


def _drawn(
    job: Job, samples: range, specs: Sequence[str], measures: Mapping[str, Measure], kept: DenseImages | None
) -> pd.DataFrame:
    """These baselines of these prompts; the dense images are read where they are kept, and kept where not."""
    run, n = Run(job.model, job.settings, SeededNoise(job.seed)), len(samples)
    others = [spec for spec in specs if spec != DENSE]
    batch = Batch(job.model, job.settings, job.seed, samples.start, [str(job.prompts[i]) for i in samples])
    held = kept.read(batch) if kept is not None and others else None
    dense = None if held is None else held.to(job.model.device)
    rows: list[pd.DataFrame] = []
    methods = {spec: methods_of(spec) for spec in (others if dense is not None else [DENSE, *others])}
    for spec, out in shared_runs(run, job.text(samples), list(samples), methods):  # the first name comes first
        image = out.image.clamp(0, 1)
        if dense is None:
            dense = image
            if kept is not None:
                kept.write(batch, dense)
        made = [(DENSE, out.ledger.dense_flops, dense)] if DENSE in specs and not rows else []
        made += [(spec, out.ledger.transformer_flops, image)] if spec != DENSE else []
        for name, flops, picture in made:  # a row a prompt
            row = {"baseline": name, "prompt": list(samples), "flops": flops / n}
            rows.append(pd.DataFrame(row | measured(picture, dense, measures)))
    return pd.concat(rows)


def _split(samples: range, batch: int) -> list[range]:
    """In parts of at most so many."""
    return [samples[first : first + batch] for first in range(0, len(samples), batch)]


def _missing(place: Path, job: Job, batch: int, specs: Sequence[str]) -> Iterator[tuple[Path, range, list[str]]]:
    """Each batch: where it is kept, its prompts, and the baselines that are not there."""
    for samples in _split(range(len(job.prompts)), batch):
        path = place / PARTS.format(samples.start)
        there = set(_read(path, samples).baseline) if path.exists() else set()
        yield path, samples, [spec for spec in specs if spec not in there]


def _read(path: Path, samples: range) -> pd.DataFrame:
    """The rows of a batch. Raises VarlabError where they are not what was written."""
    try:
        text = path.read_text("utf-8")
        rows = pd.read_csv(StringIO(text), keep_default_na=False, na_values=["nan", ""])
        whole = all(list(part.prompt) == list(samples) for _, part in rows.groupby("baseline"))
        if not whole or not text.endswith("\n"):
            raise ValueError("rows are missing")
    except (ValueError, AttributeError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise VarlabError(
            f"{path} is damaged ({cause(error)}). Remove this file: its batch is then drawn again."
        ) from error
    return rows


def _record(job: Job, prompt_set: str, measures: Mapping[str, Measure], most: int | None) -> dict[str, Any]:
    """What is drawn, as it reads back from a file, with a key of all that decides the numbers, which the batch is not.

    Raises VarlabError for a batch that memory cannot hold.
    """
    record: dict[str, Any] = json.loads(json.dumps(provenance(job, prompt_set), default=list))
    asked = [run_key(record), identities(measures), VERSION]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    batch = min(default_batch(job.model, most=AT_ONCE), len(job.prompts), most or AT_ONCE)
    job.batches(batch)
    return record | {"measures": list(measures), "frontier_version": VERSION, "batch": batch, "key": key}


def _find(place: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the frontier in a folder; None where one may begin."""
    path = place / RECORD
    if not path.exists():
        if place.exists() and any(not item.name.startswith(".") for item in place.iterdir()):
            raise VarlabError(f"{place} is not empty and holds no frontier of baselines. Give another folder.")
        return None
    found: dict[str, Any] = read_json(path, f"Remove the folder {place}.")
    if found.get("key") != asked["key"]:
        held = ", ".join(f"{name} {found.get(name)}" for name in ("model", "prompt_set", "n", "seed", "settings"))
        raise VarlabError(f"{place} holds another frontier of baselines ({held}). Give another folder.")
    return found


def _claim(place: Path, record: dict[str, Any]) -> dict[str, Any]:
    found = _find(place, record)
    if found is None:
        save_json(place / RECORD, record)
    return found or record

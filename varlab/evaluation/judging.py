"""Folders of images through a benchmark: the table of ``varlab score``, the faults of ``varlab validate``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from varlab.errors import VarlabError, unknown
from varlab.evaluation.adapters import make_results
from varlab.evaluation.benchmarks import BENCHMARKS
from varlab.evaluation.contract import MODES, RECORD, Asked, Benchmark, Folder, Item, Scores
from varlab.evaluation.validation import faults
from varlab.outputs import save_json
from varlab.runs.origins import signed


def find_benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def folders_at(place: Path, benchmark: Benchmark) -> list[Folder]:
    """The folder itself, or those of ``varlab generate`` in it. Raises VarlabError for those of another benchmark."""
    within = sorted(path.parent for path in place.glob(f"*/{RECORD}")) if place.is_dir() else []
    found = [Folder.at(path) for path in within or [place]]
    for folder in found:
        if folder.record and folder.record.get("benchmark") != benchmark.name:
            raise VarlabError(
                f"{folder.home} was drawn for {folder.record.get('benchmark')}, not for {benchmark.name}."
            )
    return found


def items_of(benchmark: Benchmark, folder: Folder, prompts: Path | None) -> list[Item]:
    """The prompts: of the user's file, as the folder's record has them, or those that ship."""
    benchmark.check_prompts(prompts)
    return benchmark.items(prompts) if prompts is not None or not folder.record else folder.items


def find_faults(name: str, place: Path, prompts: Path | None) -> tuple[list[str], int]:
    """A line for each fault, and how many pictures the folders should hold."""
    benchmark = find_benchmark(name)
    lines, count = [], 0
    for folder in folders_at(place, benchmark):
        items = items_of(benchmark, folder, prompts)
        count += sum(len(benchmark.paths(item, *folder.layout(benchmark))) for item in items)
        lines += faults(benchmark, folder, items, prompts)
    return lines, count


def who_mends(name: str, place: Path) -> list[str]:
    """For folders of ``varlab generate``, the command that draws missing and damaged pictures again."""
    return [
        f"missing and damaged pictures are drawn again by the same command: varlab generate {name} "
        f"{folder.record['model']} {quote(folder.record['spec'])} --out {quote(str(folder.home.parent))} ..."
        for folder in folders_at(place, find_benchmark(name))
        if folder.home is not None
    ]


def judge(
    name: str,
    place: Path,
    prompts: Path | None = None,
    results: Path | None = None,
    references: Sequence[Path] = (),
    mode: str = "official",
    allow_missing: bool = False,
    options: Sequence[str] = (),
    scene_version: str | None = None,
) -> Scores:
    """Scores of one folder, or of all that ``varlab generate`` made in it, beside each other.

    Parameters
    ----------
    prompts : the user's prompt file, where the benchmark's own may not ship.
    results : what the model half wrote; by default the benchmark's file in a folder of ``varlab generate``. It is made
        in this process where it is missing and its packages are installed.
    references : of distances: real images.
    mode : ``official``, with the faults of the official code, or ``corrected``.
    allow_missing : score what is there; else a missing image is an error.
    options : of the adapter's script, where it runs here.
    scene_version : of the scenes that pictures show which do not say.

    Raises
    ------
    VarlabError : by file and line for what cannot be read or scored.
    """
    benchmark = find_benchmark(name)
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if mode != MODES[0] and not benchmark.results:
        raise VarlabError(f"{benchmark.title} is varlab's own and has one mode: leave --mode out.")
    found = folders_at(place, benchmark) if place.is_dir() or results is None else [Folder(place, None, {})]
    if results is not None and len(found) > 1:
        raise VarlabError(f"{place} holds {len(found)} folders, and --results is of one: score them one by one.")
    asked = [
        Asked(
            items_of(benchmark, folder, prompts), folder, _results(benchmark, folder, results), mode, allow_missing,
            prompts, tuple(references), scene_version,
        )
        for folder in found
    ]  # fmt: skip
    parts = []
    for one in asked:
        if one.results is not None and not one.results.is_file():
            make_results(benchmark, one.folder, prompts, one.results, options)
        scores = benchmark.score(one)
        if not benchmark.results:
            scores = replace(scores, table=scores.table.assign(mode="varlab's own"))
        parts.append(replace(scores, entries=scores.entries.assign(method=one.folder.record.get("spec", ""))))
    return Scores(
        pd.concat([part.entries for part in parts], ignore_index=True),
        pd.concat([part.table for part in parts], ignore_index=True),
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        parts[0].facts,
    )


def _results(benchmark: Benchmark, folder: Folder, given: Path | None) -> Path | None:
    if not benchmark.results:
        if given is not None:
            raise VarlabError(f"{benchmark.title} is judged here, from the images: leave --results out.")
        return None
    if given is not None:
        return given
    if folder.home is None:
        raise VarlabError(
            f"{folder.images} is no folder of varlab generate: name the {benchmark.results} of varlab adapter "
            f"{benchmark.name} with --results; it must not lie among the images."
        )
    return folder.home / benchmark.results


def save_scores(path: Path, name: str, place: Path, scores: Scores, **facts: Any) -> Path:
    """The table and the score of every image, in the form that a later comparison reads."""
    weights = sorted(set(scores.table["weights"]))
    seeds = sorted(set(scores.table["seed"]))
    drawn = [
        {key: value for key, value in folder.record.items() if key not in ("items", "rewritten")}
        for folder in (folders_at(place, find_benchmark(name)) if place.is_dir() else ())
    ]
    record = {
        "benchmark": name, "folder": str(place), "weights": ", ".join(weights), "seed": ", ".join(seeds), **facts,
        **signed(), "results": dict(scores.facts), "notes": list(scores.notes), "drawn": drawn,
        "rows": scores.table.to_dict("records"), "entries": scores.entries.to_dict("records"),
    }  # fmt: skip
    return save_json(path, record)

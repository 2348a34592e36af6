"""Folders of pictures that any code made, against those of a dense run: fidelity, spectra, scene scores, pairs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from varlab.comparison.bench import SCORE_FROM
from varlab.comparison.folders import Row, Set, gather, labels
from varlab.comparison.image_result import SHOWN, ImageComparison, spectrum_rows, spectrum_table, summary
from varlab.comparison.joined import read_joined, with_joined
from varlab.comparison.latencies import read_latencies, with_latencies
from varlab.comparison.likeness import facts_of, fields_of
from varlab.comparison.pairing import RESAMPLES, RIGHT, Margin, in_one_table, pair
from varlab.comparison.pictures import COLOUR, band_edges, crops, fidelity, measures_of, read_picture
from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.machine import give_back_pages
from varlab.runs import Progress
from varlab.runs.origins import scene_version, signed
from varlab.scenes import parse, score_images
from varlab.scenes.prompt_sets import prompts
from varlab.weights.dists import load_dists
from varlab.weights.lpips import load_lpips

STATED = ("model", "weights", "precision", "device", "seed", "settings")  # of the dense run, where it says
KEPT = 1 << 26  # pixels of dense pictures after which freed memory goes back: rows that last break it up meanwhile


@fixed_context()
@torch.no_grad()
def compare_images(
    dense: Path | str,
    others: Sequence[Path | str] | Path | str,
    *,
    latency: Path | str | None = None,
    scores: Mapping[str, Path | str] | None = None,
    lpips: Path | str | None = None,
    dists: Path | str | None = None,
    grid: int | None = None,
    margin: Margin = None,
    allow_missing: bool = False,
    despite: Sequence[str] = (),
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ImageComparison:
    """Folders of pictures of any origin against those of a dense run, and against one another.

    The layouts of the official scripts are recognised, and pictures are paired by prompt and number. One pair is in
    memory at a time.

    Parameters
    ----------
    dense: the pictures of the dense run.
    others: those of methods, a folder each, of the same prompts.
    latency: a CSV of seconds an image, see ``read_latencies``.
    scores: by a folder's name what ``varlab score --json`` wrote of it, or another table with a row an image.
    lpips, dists: folders with their weights; by default ``$VARLAB_LPIPS`` and ``$VARLAB_DISTS``, else no such column.
    grid: side in pixels of one sample, where a file holds several (DPG-Bench).
    margin: differences between folders within it count as none: a number, or one a measure.
    allow_missing: compare what all folders have, and say how much that is.
    despite: fields in which pictures of varlab may differ from the dense ones, beside the method.
    seed: of the bootstrap.
    names: of the rows, the dense run's first; by default the last parts of the paths.
    progress: called with the images that are done, and all of them.

    Returns
    -------
    ImageComparison
        Likeness and spectra of each folder, and the folders paired with one another.

    Raises
    ------
    VarlabError
        Before any work: unknown layouts, missing partners, other prompts, two files for one image, sizes that differ,
        pictures that cannot be read or are not RGB of 8 bits.

    Examples
    --------
    >>> vl.compare_images("outputs/dense", ["outputs/fastvar", "outputs/skipvar"]).table
    """
    folders = [others] if isinstance(others, Path | str) else list(others)
    if not folders:
        raise VarlabError("There is nothing to compare with: give at least one folder beside that of the dense run.")
    learned = measures_of(load_lpips(lpips), load_dists(dists))
    names = labels([Path(dense), *map(Path, folders)]) if names is None else list(names)
    of_scores = fields_of(despite, *(facts_of(Path(path)) for path in (scores or {}).values()))
    found = gather(Path(dense), [Path(folder) for folder in folders], names, grid, allow_missing, despite, of_scores)
    seconds = None if latency is None else read_latencies(Path(latency), names)
    joined, notes = read_joined(scores or {}, names, found, despite, allow_missing)
    rows, spectra = _measure(found, names[1:], learned, progress)
    rows = with_joined(rows, joined, names[0])
    table = summary(rows, seed)
    if seconds is not None:
        table = with_latencies(table, seconds, names[0], seed)
    made = {name: found.facts[name] for name in STATED if name in found.facts} or "the pictures do not say"
    scored = list(dict.fromkeys(name for own in joined.values() for name in own))
    facts = {
        "dense": str(dense), "others": [str(folder) for folder in folders], "layout": found.kind, "made": made,
        "size": list(found.size), "n": len(found.rows), "expected": found.expected, "colour": COLOUR,
        "formats": found.formats, "grid": grid, "latency": None if latency is None else str(latency),
        "margin": margin, "despite": list(despite), "bootstrap_seed": seed, "resamples": RESAMPLES, "seeds": "own",
        "level": 0.95, "notes": [*found.notes, *notes], **signed(),
        "scores": {name: str(path) for name, path in (scores or {}).items()}, "scored": scored,
    }  # fmt: skip
    pairs = _pairs(rows, names, list(dict.fromkeys([*SHOWN, *scored])), margin, seed)
    return ImageComparison(table, rows, pairs, spectra, facts)


def _measure(
    found: Set, names: Sequence[str], learned: dict[str, Any], progress: Progress | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row an image and folder, the dense one among them where scenes are scored; and the spectra by bands."""
    scorer, known = _scene_scorer(found), prompts("scenes")
    scenes = dict(zip(known.texts, known.categories, strict=True)) if scorer else {}
    edges = band_edges(*found.size[::-1])

    def one(item: Row) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """The rows of an image, and the spectra by bands of each folder but the dense one."""
        dense = crops(read_picture(item.dense.path), found.grid)
        parts = [(found.label, dense)] if scorer else []
        parts += [(n, crops(read_picture(p.path), found.grid)) for n, p in zip(names, item.others, strict=True)]
        rows, powers = [], []
        for name, samples in parts:
            for k, (sample, reference) in enumerate(zip(samples, dense, strict=True)):
                row = {"method": name, "name": item.dense.name, "k": item.dense.k * len(dense) + k}
                row |= {"prompt": item.dense.prompt, "category": item.category or scenes.get(item.dense.prompt, "")}
                if name != found.label:
                    values, spectrum = fidelity(sample, reference, learned)
                    row |= values
                    powers.append(spectrum_rows(spectrum, edges))
                rows.append(row | ({RIGHT: scorer(sample, item.dense.prompt)} if scorer else {}))
        return rows, powers

    rows, powers = [], []
    often = max(1, KEPT // (found.size[0] * found.size[1]))
    for done, (own, bands) in enumerate(_in_threads(one, found.rows, progress), 1):
        rows += own
        powers.append(np.stack(bands).reshape(len(names), -1, *bands[0].shape))
        if done % often == 0:
            give_back_pages()
    tables = [spectrum_table(np.concatenate([p[i] for p in powers]), edges) for i in range(len(names))]
    order = [found.label, *names]
    table = pd.DataFrame(rows).sort_values("method", key=lambda column: column.map(order.index), kind="stable")
    spectra = [part.assign(method=name) for part, name in zip(tables, names, strict=True)]
    return table.reset_index(drop=True), pd.concat(spectra, ignore_index=True)


def _in_threads(work: Callable[[Row], Any], rows: Sequence[Row], progress: Progress | None) -> Iterator[Any]:
    """What ``work`` gives of each row, in order: a row a core at a time, each in one thread of torch, so that numbers
    do not depend on how many there are, and no more than these rows are in memory."""
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(rows), workers):
                yield from pool.map(work, rows[start : start + workers])
                if progress is not None:
                    progress(min(len(rows), start + workers), len(rows))
    finally:
        torch.set_num_threads(workers)


def _scene_scorer(found: Set) -> Callable[[torch.Tensor, str], bool] | None:
    """Whether a picture shows what its prompt asks, where ``SCORE_FROM`` or more prompts are all of scenes."""
    texts = {item.dense.prompt for item in found.rows} if len(found.rows) >= SCORE_FROM else {""}
    try:
        for text in texts:
            parse(text)
    except VarlabError:
        return None

    version = scene_version(found.facts)

    def score(image: torch.Tensor, prompt: str) -> bool:
        pixels = (image * 255).round().byte().movedim(0, -1).numpy()
        return bool(score_images([pixels], [prompt], [""], version=version)["correct"][0])

    return score


def _pairs(
    rows: pd.DataFrame, names: Sequence[str], measures: Sequence[str], margin: Margin, seed: int
) -> pd.DataFrame:
    """Each two folders; with the dense one only scores can be compared."""
    tables = {name: rows[rows["method"] == name].set_index(["name", "k"]) for name in names}
    parts = []
    for j, second in enumerate(names):
        for first in names[j + 1 :]:
            a, b = tables[first], tables[second]
            shared = [name for name in measures if name in a and a[name].notna().any() and b[name].notna().any()]
            if shared:
                parts.append(pair(a, b, shared, margin, seed=seed).assign(a=first, b=second))
    return in_one_table(parts) if parts else pd.DataFrame()

"""Pictures that other code drew of the same prompts and seed, beside those of a comparison of our own.

Both are held against our dense pictures as they are stored, by the reading of ``compare_images``: one table, in which
foreign rows are marked, and latencies of theirs are never set against ours.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import xarray as xr

from varlab.accelerators import DENSE
from varlab.analysis.decisions import tells_tokens
from varlab.comparison.folders import alike, labels, pair_up, unlike
from varlab.comparison.image_result import ImageComparison
from varlab.comparison.images import compare_images
from varlab.comparison.latencies import read_latencies, with_latencies
from varlab.comparison.layouts import Layout, Picture, in_run, read_layout
from varlab.comparison.pictures import check_picture
from varlab.comparison.result import Comparison
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.outputs import image_facts, plain
from varlab.runs.folders import open_log

OURS, FOREIGN = "ours", "foreign"
Folders = Sequence[Path | str]


def check_foreign(
    folders: Folders, latency: Path | str | None, model: NextScaleModel, facts: Mapping[str, Any]
) -> None:
    """Refuse, before anything is drawn, what could not be set beside our pictures, which ``facts`` are of.

    Raises
    ------
    VarlabError
        Latencies without folders; unknown layouts; pictures that are missing, of other prompts or of another size, or
        of varlab with other settings; latencies that name other folders.
    """
    places = [Path(folder) for folder in folders]
    if not places:
        if latency is not None:
            raise VarlabError("Foreign latencies belong to foreign pictures: give their folders too.")
        return
    names = names_of(places)
    if latency is not None:
        read_latencies(Path(latency), names, (DENSE,))
    named = ["our prompts", *names]
    found = alike(named, [_expected(facts), *map(read_layout, places)])
    pair_up(named, found, False)
    for layout in found[1:]:
        unlike(found[0], layout, ())
    height, width = (side * model.stride for side in model.latent_grid(model.schedule.final))
    for layout in found[1:]:
        for picture in layout.pictures.values():
            if (size := check_picture(picture.path)[0]) != (width, height):
                raise VarlabError(
                    f"{picture.path} is {size[0]} x {size[1]}, {model.name} draws {width} x {height}. Draw all at one "
                    "size; resizing would change what is measured."
                )


def _expected(facts: Mapping[str, Any]) -> Layout:
    """Our dense pictures as they will be saved."""
    own = plain({**facts, "accelerators": [DENSE]})
    found = [
        Picture(in_run(text, own["seed"]), i, Path(f"{i:04d}.png"), "", text) for i, text in enumerate(own["prompts"])
    ]
    return Layout("varlab", {picture.key: picture for picture in found}, image_facts(own, 0))


def names_of(folders: Sequence[Path]) -> list[str]:
    """As rows call them. Raises VarlabError for one that a method of ours has."""
    names = labels(folders)
    if DENSE in names:
        raise VarlabError(f"A foreign folder is called {DENSE}, as our dense run is. Rename it.")
    return names


def beside(result: Comparison, folders: Folders, latency: Path | str | None = None) -> ImageComparison:
    """Our methods and the foreign folders in one table, with a column ``origin``; ``check_foreign`` comes first.

    Ours have the latencies of the comparison, foreign ones those of the CSV; a speed-up is over the dense run of the
    same origin, and a foreign one needs a row ``none`` in the CSV.
    """
    places, own = [Path(folder) for folder in folders], list(result.images)
    with TemporaryDirectory() as scratch:
        result.save_pictures(Path(scratch))
        ours = [Path(scratch) / f"{row:02d}" for row in range(len(own))]
        found = compare_images(ours[0], [*ours[1:], *places], names=[*own, *names_of(places)])
    timings = result.timings[["method", "seconds"]].assign(pair=result.timings.turn.astype(str))
    is_foreign = ~found.table.method.isin(own)
    parts = [with_latencies(found.table[~is_foreign], timings, DENSE, 0)]
    theirs = found.table[is_foreign]
    if latency is not None:
        theirs = with_latencies(theirs, read_latencies(Path(latency), names_of(places), (DENSE,)), DENSE, 0)
    table = pd.concat([part for part in (*parts, theirs) if len(part)], ignore_index=True)
    table.insert(1, "origin", [OURS if name in own else FOREIGN for name in table.method])
    facts = found.facts | {
        "dense": DENSE, "others": [*own[1:], *map(str, places)], "latency": None if latency is None else str(latency),
    }  # fmt: skip
    return replace(found, table=table, facts=facts)


def token_logs(result: Comparison) -> dict[str, xr.DataTree]:
    """Logs that say which tokens were computed, by row: of our methods, then of foreign runs, marked so.

    ``vl.attach`` keeps such logs where it was told the ``places``.
    """
    found = dict(result.logs)
    if result.foreign is not None:
        names = result.foreign.table.method[result.foreign.table.origin == FOREIGN]
        for name, place in zip(names, result.foreign.facts["others"][-len(names) :], strict=True):
            with suppress(VarlabError):  # pictures alone
                found[f"{name} ({FOREIGN})"] = open_log(place)
    return {name: log for name, log in found.items() if tells_tokens(log)}

"""All methods on one engine: same prompts, seeds, timer and code; one table with baselines and intervals.

Every batch of prompts is drawn by each method in turning order, the dense run among them, so that a drift of the
machine falls on all alike. What a method needs beside (a dense run for an oracle) is made outside its time.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.accelerators import DENSE
from varlab.analysis.frontier import Frontier
from varlab.comparison.baselines import frontier_of
from varlab.comparison.bench import Bench, identities, job_of, measures_of, method_logs, methods_of, prompt_rows
from varlab.comparison.foreign import Folders, beside, check_foreign
from varlab.comparison.notes import fitted_notes
from varlab.comparison.result import Comparison
from varlab.comparison.resumed import growing
from varlab.comparison.rows import method_row
from varlab.context import fixed_context
from varlab.machine import device_name
from varlab.models.base import NextScaleModel
from varlab.runs import Progress
from varlab.runs.dense import DenseImages
from varlab.runs.inputs import at_least, check_counts
from varlab.runs.origins import contents
from varlab.runs.provenance import provenance
from varlab.runs.trial import try_methods
from varlab.runs.watched import watched
from varlab.scenes.prompt_sets import Given, PromptSet


@fixed_context()
def compare(
    model: NextScaleModel,
    prompt_set: Given = None,
    specs: Sequence[str] = (),
    *,
    n: int | None = None,
    seed: int = 0,
    batch: int = 4,
    timed: int | None = None,
    lpips: Path | str | None = None,
    frontier: bool | Path | str = True,
    progress: Progress | None = None,
    stages_of: int = 0,
    dense: Path | str | None = None,
    foreign: Folders = (),
    foreign_latency: Path | str | None = None,
    folder: Path | str | None = None,
    overwrite: bool = False,
    wait: bool = True,
    **settings: Any,
) -> Comparison:
    """One row for the dense run and for each method; joined specs (``sparsevar:tau=0.6+skipvar``) run together.

    prompt_set: as for ``varlab.log``. n: prompts; intervals narrow with its root, time grows with it; None is 32, or
    all of a shorter file. batch: images at a time in the latency, and at most for the frontier. timed: batches under
    the clock, six at the least for an interval; None times every batch once, more than there are time some again.
    Images of the others are drawn together, without the clock: the same bits in less time. Fidelity is to the dense
    image of the same seed: PSNR in dB, SSIM (Gaussian 11, sigma 1.5, mean of RGB, range 1), SSIM of the detail (our own
    high-pass). The scene score comes from 100 prompts of a scene set on. lpips: folder with the weights of LPIPS, by
    default ``$VARLAB_LPIPS``; without them the table has no such column. frontier: all baselines on these prompts,
    which the methods are judged by, drawn once and kept in the given folder or in one under ``runs/``; they cost about
    four dense runs. False leaves them out, and then no verdict says that a method holds. stages_of: of how many prompts
    the picture after each stage is kept, for the viewer; they cost a decode a stage, and a batch where the first one is
    timed.
    dense: a place of dense images that sweeps, comparisons and benchmarks share; the frontier reads and keeps them
    there, what is timed is always drawn. foreign: folders of pictures that other code drew of the same prompts and
    seed, or runs of ``vl.attach``; they stand beside ours in ``Comparison.foreign``. foreign_latency: a CSV of their
    seconds, as ``compare_images`` takes it.
    folder: where the comparison is kept as it grows, and saved. The same call goes on after its last whole turn (a
    batch by all methods), and opens what is whole; the clock then ran in several sittings, which a note says.
    ``overwrite`` replaces another comparison there. A folder has one writer: a second process waits, or is refused
    without ``wait``.
    Unknown names, needs that are not met and pairs that cannot run together stop before any work.
    """
    progress = progress or watched()
    check_counts(n=n)
    at_least(1, batch=batch, timed=timed)
    at_least(0, stages_of=stages_of)
    names = list(dict.fromkeys([DENSE, *specs]))
    job, chosen = job_of(model, prompt_set, n, seed, settings)
    for name in names:  # what is missing is told before the first image
        try_methods(model, job.settings, methods_of(name))
    timed = len(job.batches(batch)) if timed is None else timed
    facts = provenance(job, chosen.name) | {"batch": batch, "timed": timed, "device": device_name(model.device)}
    facts["contents"] = contents(model, [method for name in names for method in methods_of(name)])
    check_foreign(foreign, foreign_latency, model, facts)
    measures = measures_of(model, lpips)
    facts["compared"] = {
        "methods": names, "measures": identities(measures), "frontier": frontier is not False, "stages_of": stages_of,
        "foreign": list(map(str, foreign)),
        "foreign_latency": None if foreign_latency is None else str(foreign_latency),
    }  # fmt: skip
    with growing(None if folder is None else Path(folder), facts, overwrite, wait) as place:
        found = place.whole
        if found is None:
            blind, shared = None, DenseImages.at(dense)
            if frontier is not False:
                baselines = None if frontier is True else Path(frontier)
                blind = frontier_of(job, chosen.name, baselines, measures, progress, batch, shared)
            bench = Bench(job, names, batch, measures, timed, stages_of, place.turns)
            bench.run(progress)
            found = _found(bench, chosen, place.facts, blind)
        if foreign:
            found = replace(found, foreign=beside(found, foreign, foreign_latency))
        return place.finish(found)


def _found(bench: Bench, chosen: PromptSet, facts: dict[str, Any], blind: Frontier | None) -> Comparison:
    """The tables of what a bench kept."""
    made, timings = bench.found(), bench.turns.timings()
    rows = prompt_rows(made, chosen.texts, chosen.categories, bench.job.model.scene_version)
    table = pd.DataFrame([method_row(name, bench, made, rows, timings) for name in bench.names]).set_index("method")
    logs = method_logs(made, facts)
    notes = fitted_notes(logs, chosen.texts)
    if (sittings := bench.turns.sittings) > 1:
        notes.append(
            f"Timed in {sittings} sittings, as the comparison was interrupted; ratios pair times of one batch."
        )
    stages = {name: bench.stages[name] for name in bench.names if name in bench.stages}
    return Comparison(table, rows, timings, made.images, made.ledgers, logs, facts | {"notes": notes}, blind, stages)

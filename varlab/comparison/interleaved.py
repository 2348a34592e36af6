"""All methods on one engine: same prompts, seeds, timer and code; one table with baselines and intervals.

Every batch of prompts is drawn by each method in turning order, the dense run among them, so that a drift of the
machine falls on all alike. What a method needs beside (a dense run for an oracle) is made outside its time.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.accelerators import DENSE
from varlab.comparison.bench import FIDELITY, Bench, methods_of
from varlab.comparison.notes import fitted_notes
from varlab.comparison.result import Comparison
from varlab.comparison.rows import method_row
from varlab.context import fixed_context
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.machine import device_name
from varlab.models.base import NextScaleModel
from varlab.runs import Job, provenance
from varlab.runs.inputs import at_least, with_overrides
from varlab.scenes.prompt_sets import Given, choose
from varlab.weights.lpips import load_lpips

Progress = Callable[[float, int], None]
PROMPTS = 32  # by default


@fixed_context()
def compare(
    model: NextScaleModel,
    prompt_set: Given = None,
    specs: Sequence[str] = (),
    *,
    n: int | None = None,
    seed: int = 0,
    batch: int = 4,
    rounds: int = 1,
    lpips: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Comparison:
    """One row for the dense run and for each method; joined specs (``sparsevar:tau=0.6+skipvar``) run together.

    prompt_set: as for ``varlab.log``. n: prompts; intervals narrow with its root, time grows with it; None is 32, or
    all of a shorter file. batch: images at a time in the latency. rounds:
    how often every batch is timed. Fidelity is to the dense image of the same seed: PSNR in dB, SSIM (Gaussian 11,
    sigma 1.5, mean of RGB, range 1), SSIM of the detail (our own high-pass). The scene score comes from 100 prompts
    of a scene set on. lpips: folder with the weights of LPIPS, by default ``$VARLAB_LPIPS``; without them the table has
    no such column. Unknown names, needs that are not met and pairs that cannot run together stop before any work.
    """
    at_least(1, n=n, batch=batch, rounds=rounds)
    chosen = choose(prompt_set, n, model, PROMPTS)
    texts = chosen.texts
    names = list(dict.fromkeys([DENSE, *specs]))
    job = Job(model, tuple(texts), with_overrides(model.settings, **settings), seed)
    _try_out(job, names)
    if (perceptual := load_lpips(lpips)) is not None:
        perceptual.check_size(*(side * model.stride for side in model.latent_grid(model.schedule.final)))
    bench = Bench(job, names, batch, FIDELITY if perceptual is None else FIDELITY | {"lpips": perceptual})
    batches = job.batches(batch)
    bench.warm_up()
    for turn in range(rounds * len(batches)):
        bench.turn(batches[turn % len(batches)], turn, turn // len(batches) == 0)
        if progress is not None:
            progress(min(len(texts), (turn + 1) * batch // rounds), len(texts))
    rows = bench.prompt_rows(texts, chosen.categories)
    facts = provenance(job, chosen.name) | {
        "batch": batch,
        "rounds": rounds,
        "device": device_name(model.device),
    }
    timings = pd.DataFrame(bench.timings)
    table = pd.DataFrame([method_row(name, bench, rows, timings) for name in names]).set_index("method")
    logs = bench.told(facts)
    facts["notes"] = fitted_notes(logs, texts)
    return Comparison(table, rows, timings, bench.images, bench.ledgers, logs, facts)


def _try_out(job: Job, names: Sequence[str]) -> None:
    """Every method starts once, so that what is missing is told before the first image."""
    run = Run(job.model, job.settings, SeededNoise(job.seed))
    for name in names:
        for method in methods_of(name):
            method.start(run)

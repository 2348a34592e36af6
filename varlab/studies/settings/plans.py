"""Which settings a study draws. The most telling ones come first, so that a study may be stopped at any time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from varlab.accelerators import DENSE
from varlab.accelerators.sparsevar import SparseVAR
from varlab.comparison.baselines import baseline_specs
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.errors import unknown
from varlab.runs import Job

TAUS = (0.4, 0.5, 0.6, 0.7)  # the poster's
KEEPS = (0.87, 0.49, 0.27, 0.21)  # shares of tokens at these, by inversion of the published latencies
ALPHAS = (2, 3, 4, 5, None)
LAST = 3  # stages pruned: the paper's P = 10 of 13
TARGETS = (0.84, 0.86, 0.88)
STUDIES = {
    "methods": "SparseVAR, SkipVAR and FastVAR at their published settings, beside all blind baselines",
    "sparsevar": "SparseVAR: every tau with every alpha, stages pruned with scoring block; --full: all together",
    "exits": "FreqExit: every depth of exit and the paper's exit vectors",
}
CALIBRATED_ON = 8  # images that say which tau leaves out as many tokens as the paper's


@dataclass(frozen=True)
class Plan:
    """``specs`` in the order of drawing; ``axes``: the values of each axis, as tables and figures name them."""

    specs: tuple[str, ...]
    axes: dict[str, list[object]] = field(default_factory=dict)


def plan_of(study: str, job: Job, full: bool = False) -> Plan:
    """The settings of a study for a model.

    Raises
    ------
    VarlabError: there is no such study.
    """
    if study not in STUDIES:
        raise unknown("study", study, STUDIES)
    if study == "methods":
        return methods(job)
    return sparsevar(job, full) if study == "sparsevar" else exits(job)


def methods(job: Job) -> Plan:
    blind = baseline_specs(job.model, job.settings)
    kept = [
        f"{name}:keep={keep:g},last={LAST}"
        for keep in KEEPS
        for name in ("sparsevar", "random-tokens", "uniform-tokens", "oracle-tokens")
    ]
    other = [f"skipvar:target={target:g}" for target in TARGETS] + ["fastvar", "fastvar-all-scales"]
    taus = [_sparsevar(tau=tau) for tau in TAUS]
    return Plan(tuple(dict.fromkeys([DENSE, *blind, *kept, *other, *taus])), {"tau": [*TAUS], "keep": [*KEEPS]})


def sparsevar(job: Job, full: bool) -> Plan:
    """Around the tau that leaves out as many tokens of this model as the paper's .6 did: every value of each axis,
    every tau, the poster's too, with every alpha, and every number of stages with every block at equal work.

    Scores of another model lie otherwise about their mean, so the paper's own tau may leave out nothing or all.
    """
    stages, depth = len(job.model.schedule), job.model.depth
    matched = matched_taus(job)
    centre, lasts, blocks = matched[KEEPS.index(0.27)], range(1, stages), range(depth)
    axes: dict[str, list[object]] = {
        "tau": [*TAUS], "matched tau": [*matched], "alpha": [*ALPHAS], "last": [*lasts], "block": [*blocks],
    }  # fmt: skip
    specs = [DENSE, *baseline_specs(job.model, job.settings)]
    specs += [_sparsevar(tau=centre, last=last) for last in lasts]
    specs += [_sparsevar(tau=tau, alpha=alpha) for tau, alpha in product((*matched, *TAUS), ALPHAS)]
    specs += [f"random-tokens:keep=0.27,last={last}" for last in lasts]
    specs += [f"sparsevar:keep=0.27,last={last},block={block}" for last, block in product(lasts, blocks)]
    if full:
        every = product((*matched, *TAUS), ALPHAS, lasts, blocks)
        specs += [_sparsevar(tau=tau, alpha=alpha, last=last, block=block) for tau, alpha, last, block in every]
    return Plan(tuple(dict.fromkeys(specs)), axes)


def _sparsevar(tau: float, alpha: int | None = 4, last: int = LAST, block: int | None = None) -> str:
    text = f"sparsevar:tau={tau:g},alpha={'none' if alpha is None else alpha},last={last}"
    return text if block is None else f"{text},block={block}"


def matched_taus(job: Job) -> list[float]:
    """The tau at which dense runs of this model would keep each of ``KEEPS``, to two digits."""
    method, images = SparseVAR(tau=1e-9, last=LAST), range(min(CALIBRATED_ON, len(job.prompts)))
    Run(job.model, job.settings, SeededNoise(job.seed)).generate(job.text(images), images, [method])
    scores = np.concatenate([z.float().cpu().numpy().ravel() for z in method.seen.values()])
    return [float(f"{np.quantile(scores, 1 - keep):.2g}") for keep in KEEPS]


def exits(job: Job) -> Plan:
    """Uniform exits at every depth, deepest first, then the paper's exit vectors."""
    depths = list(range(job.model.depth - 1, 0, -1))
    rows = ("b", "late", "falling", "steep")
    uniform: Iterator[str] = (f"freqexit:exits={depth}" for depth in depths)
    blind = [spec for spec in baseline_specs(job.model, job.settings) if "truncate" in spec or "cfg-off" in spec]
    specs = [DENSE, *blind, *uniform, *(f"freqexit:row={row}" for row in rows)]
    return Plan(tuple(specs), {"depth": [*depths], "row": [*rows]})

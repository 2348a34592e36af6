"""Golden runs of FastVAR on Infinity: kept tokens of every sub-layer, restored outputs, cache lengths, images.

The released code names its pruned stages by grid width; ours counts from the end, and the settings follow from the
schedule. A token on the other side of a cut that the golden itself calls too close is moved to the golden's side, so
that later sub-layers are judged on the same choice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.controls import Truncate
from varlab.accelerators.fastvar import FastVAR, distances
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.stage import Site
from varlab.errors import VarlabError
from varlab.parity.accelerated import CacheWatch, compare_bits, compare_logits, path, prepared
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity import compare_inputs
from varlab.parity.infinity_capture import Outcome, generate
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.report import Report
from varlab.schedules import Schedule

RELEASED = {32: 0.4, 40: 0.5, 48: 1.0, 64: 1.0}  # grid width -> share of tokens that skip; 1: the stage never runs
FIRST = 3  # first block that prunes
NAMES = {"attention": "sa", "cross": "ca", "ffn": "ffn"}


@dataclass(frozen=True)
class Place:
    """A sub-layer as the golden names it: width of the grid, block, branch ('' for the whole block)."""

    width: int
    block: int
    branch: str = ""

    @classmethod
    def of(cls, site: Site) -> "Place":
        return cls(site.stage.grid[1], site.block, NAMES[str(site.branch)] if site.branch else "")

    def __str__(self) -> str:
        return "_".join(filter(None, (str(self.width), str(self.block), self.branch)))


@dataclass
class Inside(Probe):
    """Outputs of the first row [1, n, C] at the places that the file holds."""

    wanted: set[Place]
    found: dict[Place, Tensor] = field(default_factory=dict)

    def on_branch(self, site: Site, x: Tensor, y: Tensor) -> None:
        self._keep(Place.of(site), y)

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self._keep(Place.of(site), x_out)

    def _keep(self, place: Place, values: Tensor) -> None:
        if place in self.wanted:
            self.found[place] = values[:1].clone()


class Judged(FastVAR):
    """FastVAR whose choices are held against the golden's masks, and follow them at near ties."""

    def __init__(self, comparison: Comparison, ratios: tuple[float, ...], drop: int) -> None:
        super().__init__(ratios=ratios, drop=drop, first=FIRST)
        self.comparison, self.stated = comparison, _json(comparison.golden, "cut_gaps_json")
        self.gaps: dict[str, float] = {}

    def choose(self, site: Site, x: Tensor, count: int) -> Tensor:
        keep, place, scores = super().choose(site, x, count), str(Place.of(site)), distances(x)
        self.comparison.relative(f"score_{place}", scores, "hidden_rel")
        name, ours = f"keep_{place}", torch.zeros_like(scores, dtype=torch.bool).scatter(1, keep, True)
        golden, (above, below) = self.comparison.golden, _cut(scores, count)
        self.gaps[place] = float(((above - below) / above).min())
        if golden.stored(name):
            golden.arrays[name] = _mask(golden.arrays[name], tuple(ours.shape))
        margin = None
        if place in self.stated:
            # The golden's gap says whether the cut is too close, our distance to the cut which tokens lie on it.
            middle = (above + below)[:, None] / 2
            margin = ((scores - middle).abs() / middle).clamp(min=self.stated[place]).numpy()
        settled = torch.from_numpy(self.comparison.labels(name, ours, margin, golden.tolerance("logits_rel")))
        if bool((settled.sum(1) == count).all()):
            return settled.nonzero()[:, 1].view(-1, count)
        return keep


def _cut(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The smallest score that is kept and the largest that is not, by row."""
    order = scores.sort(-1, descending=True).values
    return order[:, count - 1], order[:, min(count, order.shape[1] - 1)]


def _mask(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask [R, n] from rows of packed bits; anything else is left as it is."""
    if packed.dtype != np.uint8 or packed.shape != (shape[0], -(-shape[1] // 8)):
        return packed
    return np.unpackbits(packed, axis=1)[:, : shape[1]] > 0


def _json(golden: Golden, name: str) -> dict[str, Any]:
    return json_of(golden, name) if golden.stored(name) else {}


@torch.inference_mode()
def check(golden: Golden) -> Report:
    """Kept masks and bits exact but for near ties, cache lengths exact, everything else to a tolerance."""
    rebuilt = setup(golden)
    comparison = Comparison(prepared(golden, rebuilt))
    compare_inputs(comparison, rebuilt)
    ratios, drop = released(rebuilt.model.schedule)
    pruning = bool(ratios) and rebuilt.model.depth > FIRST
    method = Judged(comparison, ratios, drop) if pruning else Truncate(drop)
    watch, inside = CacheWatch(), Inside(_outputs(golden) | _caches(golden))
    forced = _forced(comparison.golden, rebuilt, [])
    outcome = generate(rebuilt, forced, [method, watch], [inside])
    _compare_stages(comparison, outcome)
    _compare_inside(comparison, inside)
    if isinstance(method, Judged):
        _compare_gaps(comparison, method)
    _compare_end(comparison, outcome, watch)
    _compare_dense(comparison, rebuilt, drop, len(ratios) + drop)
    return comparison.finish()

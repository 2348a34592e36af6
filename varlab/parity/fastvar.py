"""Golden runs of FastVAR on Infinity: kept tokens of every sub-layer, restored outputs, cache lengths, images.

The released code names its pruned stages by grid width; ours counts from the end, and the settings follow from the
schedule. A token on the other side of a cut that the golden itself calls too close is moved to the golden's side, so
that later sub-layers are judged on the same choice.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.baselines import Truncate
from varlab.accelerators.fastvar import FastVAR, distances
from varlab.engine.hooks import Probe
from varlab.engine.stage import Site
from varlab.errors import VarlabError
from varlab.parity.comparison import Arrays, Comparison, held_to
from varlab.parity.golden import Golden
from varlab.parity.infinity import compare_stage, image, inputs, prepared, unpacked
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.run import CacheWatch, generate
from varlab.schedules import Schedule

RELEASED = {32: 0.4, 40: 0.5, 48: 1.0, 64: 1.0}  # grid width -> share of tokens that skip; 1: the stage never runs
FIRST = 3  # first block that prunes
NAMES = {"attention": "sa", "cross": "ca", "ffn": "ffn"}


def place_of(site: Site, names: Mapping[str, str] = NAMES) -> str:
    """A place as the golden names it: width of the grid, block, and the sublayer if it is not the whole block."""
    place = f"{site.stage.grid[1]}_{site.block}"
    return f"{place}_{names[str(site.sublayer)]}" if site.sublayer else place


class Inside(Probe):
    """Outputs of the first ``rows`` rows of blocks, and of sublayers of the cache stage, that the file holds."""

    def __init__(self, golden: Golden, names: Mapping[str, str] = NAMES, rows: int = 1) -> None:
        self.names, self.rows = names, rows
        self.arrays: Arrays = {}  # [rows, n, C]
        self.wanted: dict[str, list[tuple[str, int]]] = defaultdict(list)  # by place: arrays, every so many tokens
        for found in golden.matching(r"block_out_((\d+)_\d+)(_sub)?"):
            tokens = int(found[2]) ** 2
            self._want(found[1], found[0], round(tokens / golden.arrays[found[0]].shape[1]) if found[3] else 1)
        for found in golden.matching(rf"cache(\d+)_block(\d+_(?:{'|'.join(names.values())}))(?:_sub(\d+))?"):
            self._want(f"{found[1]}_{found[2]}", found[0], int(found[3] or 1))

    def _want(self, place: str, name: str, stride: int) -> None:
        self.wanted[place].append((name, stride))
        self.arrays[name] = None

    def on_sublayer(self, site: Site, x: Tensor, y: Tensor) -> None:
        for name, stride in self.wanted.get(place_of(site, self.names), ()):
            self.arrays[name] = y[: self.rows, ::stride].clone()

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self.on_sublayer(site, x_in, x_out)


class Judged(FastVAR):
    """FastVAR whose choices are held against the golden's masks, and follow them at near ties."""

    name = "fastvar-judged"  # may leave the truncation out, unlike fastvar

    def __init__(
        self,
        comparison: Comparison,
        ratios: tuple[float, ...],
        drop: int,
        first: int = FIRST,
        names: Mapping[str, str] = NAMES,
    ) -> None:
        super().__init__(ratios=ratios, drop=drop, first=first)
        self.comparison, self.stated, self.names = comparison, _stated_gaps(comparison.golden), names
        self.gaps: dict[str, float] = {}

    def choose(self, site: Site, x: Tensor, count: int) -> Tensor:
        keep, place, scores = super().choose(site, x, count), place_of(site, self.names), distances(x)
        self.comparison.hold({f"score_{place}": scores})
        name, ours = f"keep_{place}", torch.zeros_like(scores, dtype=torch.bool).scatter(1, keep, True)
        golden, (above, below) = self.comparison.golden, _cut(scores, count)
        self.gaps[place] = float(((above - below) / above).min())
        if golden.stored(name):
            golden.arrays[name] = unpacked(golden.arrays[name], tuple(ours.shape), len(ours))
        margin = None
        if place in self.stated:
            # The golden's gap says whether the cut is too close, our distance to the cut which tokens lie on it.
            middle = (above + below)[:, None] / 2
            margin = ((scores - middle).abs() / middle).clamp(min=self.stated[place])
        settled = torch.from_numpy(self.comparison.labels(name, ours, margin, golden.tolerance("logits_rel")))
        if bool((settled.sum(1) == count).all()):
            return settled.nonzero()[:, 1].view(-1, count)
        return keep

    def compare_gaps(self) -> None:
        """The gaps at the cuts themselves; each of the two scores may be off by its tolerance."""
        if not self.comparison.wants("cut_gaps_json"):
            return
        allowed = 2 * self.comparison.golden.tolerance("logits_rel")
        wrong = [place for place, gap in self.stated.items() if not abs(self.gaps.get(place, np.inf) - gap) <= allowed]
        self.comparison.verify_all("cut_gaps_json", wrong)


def _cut(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The smallest score that is kept and the largest that is not, by row."""
    order = scores.sort(-1, descending=True).values
    return order[:, count - 1], order[:, min(count, order.shape[1] - 1)]


def _stated_gaps(golden: Golden) -> dict[str, float]:
    """Relative distance between the scores on both sides of each cut, of the row where it is smallest."""
    return json.loads(str(golden.arrays["cut_gaps_json"])) if golden.stored("cut_gaps_json") else {}


@held_to(
    equal="cu_seqlens neg_cu_seqlens gt_bits_* *bits_used_* kv_len_per_stage_block",
    given="logit_stride",
    logits_rel="logits_*",
    decoded_abs="decoded decoded_sub*",
    uint8_abs="image_uint8_bgr",
    hidden_rel="*",
)
def compare(comparison: Comparison) -> None:
    """Kept masks and bits exact but for near ties.

    All stages are forced along the golden's bits. Argmax: if no bit differs, an unforced run takes the same path.
    """
    rebuilt = setup(comparison.golden)
    golden = comparison.golden = prepared(comparison.golden, rebuilt)
    comparison.hold(inputs(rebuilt))
    ratios, drop = released(rebuilt.model.schedule)
    pruning = bool(ratios) and rebuilt.model.depth > FIRST
    method = Judged(comparison, ratios, drop) if pruning else Truncate(drop)
    watch, inside = CacheWatch(), Inside(golden)
    outcome = generate(rebuilt, rebuilt.forced(golden), [method, watch], [inside], stages=())
    margins, strides = golden.config.get("min_bit_margin_per_stage", []), _strides(golden)
    for k in range(len(outcome.capture.canvas)):
        least = margins[k] if k < len(margins) else None
        compare_stage(comparison, outcome, k, stride=strides.get(k, 1), least=least)
    comparison.hold(inside.arrays)
    if isinstance(method, Judged):
        method.compare_gaps()
    comparison.hold({"kv_len_per_stage_block": watch.tokens})
    pixels = outcome.generation.image * 2 - 1
    for step in golden.matching(r"decoded_sub(\d+)"):
        comparison.hold({step[0]: pixels[..., :: int(step[1]), :: int(step[1])]})
    comparison.hold(image(outcome))
    _compare_dense(comparison, rebuilt, drop)


def released(schedule: Schedule) -> tuple[tuple[float, ...], int]:
    """(ratios of the pruned stages, stages dropped after them) of the released settings on a schedule."""
    shares = [RELEASED.get(grid[1], 0.0) for grid in schedule.grids]
    drop = len(list(takewhile(lambda share: share == 1, reversed(shares))))
    kept = shares[: len(shares) - drop]
    ratios = tuple(reversed(list(takewhile(lambda share: 0 < share < 1, reversed(kept)))))
    if any(kept[: len(kept) - len(ratios)]):
        raise VarlabError(
            f"FastVAR's released settings prune stages of {schedule.name} that are not its last ones; "
            "varlab counts them from the end and cannot follow."
        )
    return ratios, drop


def _strides(golden: Golden) -> dict[int, int]:
    """Every which token's logits are stored, for the stages of which there are any."""
    stored = sorted(int(found[1]) for found in golden.matching(r"logits_final_(\d+)"))
    strides = golden.arrays["logit_stride"].tolist() if golden.stored("logit_stride") else [1] * len(stored)
    return dict(zip(stored, strides, strict=False))


def _compare_dense(comparison: Comparison, rebuilt: Setup, drop: int) -> None:
    """Bits of a run that prunes nothing and drops the same stages, the same until they are stored; of its margins the
    golden says nothing."""
    golden = comparison.golden
    own = [k for k in rebuilt.stages if golden.stored(f"dense_bits_used_{k}")]
    if not own:
        return
    forced = rebuilt.forced(golden) | {
        k: labels for k in rebuilt.stages[own[0] :] if (labels := rebuilt.path(golden, k, ["dense_"])) is not None
    }
    outcome = generate(rebuilt, forced, [Truncate(drop)], stages=())
    for k in range(len(outcome.capture.canvas)):
        compare_stage(comparison, outcome, k, "dense_")

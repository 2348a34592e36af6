"""Golden runs of FastVAR on Infinity: kept tokens of every sub-layer, restored outputs, cache lengths, images.

The released code names its pruned stages by grid width; ours counts from the end, and the settings follow from the
schedule. A token on the other side of a cut that the golden itself calls too close is moved to the golden's side, so
that later sub-layers are judged on the same choice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.baselines import Truncate
from varlab.accelerators.fastvar import FastVAR, distances
from varlab.engine.hooks import Probe
from varlab.engine.stage import Site
from varlab.errors import VarlabError
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity import compare_bits, compare_image, compare_inputs, compare_logits, path, prepared
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.run import CacheWatch, Outcome, generate
from varlab.schedules import Schedule

RELEASED = {32: 0.4, 40: 0.5, 48: 1.0, 64: 1.0}  # grid width -> share of tokens that skip; 1: the stage never runs
FIRST = 3  # first block that prunes
NAMES = {"attention": "sa", "cross": "ca", "ffn": "ffn"}


@dataclass(frozen=True)
class Place:
    """A sub-layer as the golden names it: width of the grid, block, sublayer ('' for the whole block)."""

    width: int
    block: int
    sublayer: str = ""

    @classmethod
    def of(cls, site: Site, names: Mapping[str, str] = NAMES) -> "Place":
        return cls(site.stage.grid[1], site.block, names[str(site.sublayer)] if site.sublayer else "")

    def __str__(self) -> str:
        return "_".join(filter(None, (str(self.width), str(self.block), self.sublayer)))


@dataclass
class Inside(Probe):
    """Outputs of the first ``rows`` rows [rows, n, C] at the places that the file holds."""

    wanted: set[Place]
    rows: int = 1
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    found: dict[Place, Tensor] = field(default_factory=dict)

    def on_sublayer(self, site: Site, x: Tensor, y: Tensor) -> None:
        self._note(Place.of(site, self.names), y)

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self._note(Place.of(site, self.names), x_out)

    def at(self, outputs: Mapping[str, tuple[Place, int]]) -> dict[str, Tensor | None]:
        """The outputs of these names, every so many tokens of each."""
        got = {name: (self.found.get(place), stride) for name, (place, stride) in outputs.items()}
        return {name: None if values is None else values[:, ::stride] for name, (values, stride) in got.items()}

    def _note(self, place: Place, values: Tensor) -> None:
        if place in self.wanted:
            self.found[place] = values[: self.rows].clone()


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
        self.comparison, self.stated, self.names = comparison, gaps(comparison.golden), names
        self.gaps: dict[str, float] = {}

    def choose(self, site: Site, x: Tensor, count: int) -> Tensor:
        keep, place, scores = super().choose(site, x, count), str(Place.of(site, self.names)), distances(x)
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
            margin = ((scores - middle).abs() / middle).clamp(min=self.stated[place])
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


def gaps(golden: Golden) -> dict[str, float]:
    """Relative distance between the scores on both sides of each cut, of the row where it is smallest."""
    return json.loads(str(golden.arrays["cut_gaps_json"])) if golden.stored("cut_gaps_json") else {}


def compare(comparison: Comparison) -> None:
    """Kept masks and bits exact but for near ties, cache lengths exact, everything else to a tolerance.

    All stages are forced along the golden's bits. Argmax: if no bit differs, an unforced run takes the same path.
    """
    rebuilt = setup(comparison.golden)
    golden = comparison.golden = prepared(comparison.golden, rebuilt)
    compare_inputs(comparison, rebuilt)
    ratios, drop = released(rebuilt.model.schedule)
    pruning = bool(ratios) and rebuilt.model.depth > FIRST
    method = Judged(comparison, ratios, drop) if pruning else Truncate(drop)
    outputs = stored_outputs(golden, NAMES)
    watch, inside = CacheWatch(), Inside({place for place, _ in outputs.values()})
    outcome = generate(rebuilt, _forced(golden, rebuilt), [method, watch], [inside], stages=())
    _compare_stages(comparison, outcome)
    comparison.relatives("hidden_rel", inside.at(outputs))
    if isinstance(method, Judged):
        compare_gaps(comparison, method)
    comparison.equal("kv_len_per_stage_block", watch.tokens)
    for step in golden.matching(r"decoded_sub(\d+)"):
        thinned = outcome.generation.image[..., :: int(step[1]), :: int(step[1])] * 2 - 1
        comparison.absolute(step[0], thinned, "decoded_abs")
    compare_image(comparison, outcome)
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


def stored_outputs(golden: Golden, names: Mapping[str, str]) -> dict[str, tuple[Place, int]]:
    """Names of the block outputs, and of the sublayer outputs of the cache stage, that the file holds, with the stride
    of the tokens that it keeps."""
    places = {}
    for found in golden.matching(r"block_out_(\d+)_(\d+)(_sub)?"):
        width = int(found[1])
        stride = round(width * width / golden.arrays[found[0]].shape[1]) if found[3] else 1
        places[found[0]] = Place(width, int(found[2])), stride
    for found in golden.matching(rf"cache(\d+)_block(\d+)_({'|'.join(names.values())})(?:_sub(\d+))?"):
        places[found[0]] = Place(int(found[1]), int(found[2]), found[3]), int(found[4] or 1)
    return places


def _forced(golden: Golden, rebuilt: Setup, prefix: str = "") -> dict[int, Tensor]:
    """The golden's labels by stage; those of the dense run, by its prefix, are the same until they are stored."""
    forced, own = {}, False
    for k in rebuilt.stages:
        own = own or f"{prefix}bits_used_{k}" in golden.arrays
        own_prefix = prefix if own else ""
        if (labels := path(golden, rebuilt, k, [own_prefix])) is not None:
            forced[k] = labels
    return forced


def _compare_stages(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    golden = comparison.golden
    margins, strides = golden.config.get("min_bit_margin_per_stage", []), _strides(comparison)
    for k, canvas in enumerate(outcome.capture.canvas):
        stride, least = strides.get(k, 1), margins[k] if k < len(margins) else None
        compare_logits(comparison, outcome, k, stride=stride)
        compare_bits(comparison, outcome, k, stride=stride, least=least)
        comparison.relative(f"summed_{k}", canvas, "hidden_rel")


def _strides(comparison: Comparison) -> dict[int, int]:
    """Every which token's logits are stored, for the stages of which there are any."""
    golden = comparison.golden
    stored = sorted(int(name.rsplit("_", 1)[1]) for name in golden.arrays if name.startswith("logits_final_"))
    strides = golden.arrays["logit_stride"].tolist() if comparison.wants("logit_stride") else [1] * len(stored)
    return dict(zip(stored, strides, strict=False))


def compare_gaps(comparison: Comparison, method: Judged) -> None:
    """The gaps at the cuts themselves; each of the two scores may be off by its tolerance."""
    if not comparison.wants("cut_gaps_json"):
        return
    allowed = 2 * comparison.golden.tolerance("logits_rel")
    wrong = [place for place, gap in method.stated.items() if not abs(method.gaps.get(place, np.inf) - gap) <= allowed]
    comparison.verify_all("cut_gaps_json", wrong)


def _compare_dense(comparison: Comparison, rebuilt: Setup, drop: int) -> None:
    """Bits of a run that prunes nothing and drops the same stages; of its margins the golden says nothing."""
    if not any(comparison.golden.stored(f"dense_bits_used_{k}") for k in rebuilt.stages):
        return
    outcome = generate(rebuilt, _forced(comparison.golden, rebuilt, "dense_"), [Truncate(drop)], stages=())
    for k in range(len(outcome.capture.canvas)):
        compare_bits(comparison, outcome, k, "dense_")

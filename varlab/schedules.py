"""Scale schedules: which token grid each stage of a next-scale model predicts."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from varlab.errors import VarlabError, quoted, unknown

Grid = tuple[int, int]  # (height, width) in tokens


@dataclass(frozen=True)
class Schedule:
    """Token grids from coarse to fine.

    ``extent`` is the grid whose units the rotary positions use: for Infinity the last grid of the
    1M schedule of the same aspect ratio, also when fewer stages run.
    """

    grids: tuple[Grid, ...]
    extent: Grid
    name: str = "custom"

    def __post_init__(self) -> None:
        if not self.grids:
            raise VarlabError("A schedule needs at least one stage.")
        for grid in (*self.grids, self.extent):
            if len(grid) != 2 or min(grid) < 1:
                raise VarlabError(
                    f"Schedule {quoted(self.name)}: {grid} is not a (height, width) of positive integers."
                )

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def final(self) -> Grid:
        return self.grids[-1]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each stage."""
        return tuple(height * width for height, width in self.grids)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Tokens up to and including each stage."""
        return tuple(accumulate(self.lengths))

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def custom(grids: list[Grid] | tuple[Grid, ...], name: str = "custom") -> Schedule:
    """A schedule outside the released tables; positions are in units of its own last grid."""
    pairs = tuple((int(height), int(width)) for height, width in grids)
    if not pairs:
        raise VarlabError("A schedule needs at least one stage.")
    return Schedule(pairs, pairs[-1], name)


def square(sides: tuple[int, ...], name: str) -> Schedule:
    return custom([(side, side) for side in sides], name)


# Infinity's tables at stride 16 for height >= width; the other half of the ratios is transposed.
_TALL: dict[float, tuple[Grid, ...]] = {
    1.0: tuple((s, s) for s in (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)),
    1.25: ((1, 1), (2, 2), (3, 3), (5, 4), (10, 8), (15, 12), (20, 16), (25, 20), (30, 24), (35, 28), (45, 36), (55, 44), (70, 56)),
    1.333: ((1, 1), (2, 2), (4, 3), (8, 6), (12, 9), (16, 12), (20, 15), (24, 18), (28, 21), (36, 27), (48, 36), (60, 45), (72, 54)),
    1.5: ((1, 1), (2, 2), (3, 2), (6, 4), (9, 6), (15, 10), (21, 14), (27, 18), (33, 22), (39, 26), (48, 32), (63, 42), (78, 52)),
    1.75: ((1, 1), (2, 2), (3, 3), (7, 4), (11, 6), (14, 8), (21, 12), (28, 16), (35, 20), (42, 24), (56, 32), (70, 40), (84, 48)),
    2.0: ((1, 1), (2, 2), (4, 2), (6, 3), (10, 5), (16, 8), (22, 11), (30, 15), (38, 19), (46, 23), (60, 30), (74, 37), (90, 45)),
    2.5: ((1, 1), (2, 2), (5, 2), (10, 4), (15, 6), (20, 8), (25, 10), (30, 12), (40, 16), (50, 20), (65, 26), (80, 32), (100, 40)),
    3.0: ((1, 1), (2, 2), (6, 2), (9, 3), (15, 5), (21, 7), (27, 9), (36, 12), (45, 15), (54, 18), (72, 24), (90, 30), (111, 37)),
}  # fmt: skip

STAGES = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}


def _infinity_grids() -> dict[float, tuple[Grid, ...]]:
    grids = dict(_TALL)
    for ratio, tall in _TALL.items():
        # The released keys are truncated to three decimals, not rounded: 1/1.5 is 0.666.
        grids[int(1000 / ratio) / 1000] = tuple((width, height) for height, width in tall)
    return dict(sorted(grids.items()))


INFINITY_GRIDS = _infinity_grids()


def infinity(pixels: str = "1M", ratio: float = 1.0) -> Schedule:
    """The released schedule for a pixel budget (0.06M, 0.25M, 0.60M, 1M) and height/width ratio.

    The nearest of the 15 ratio templates is used, as in the official code. A larger budget costs
    more than linearly: 521, 2521, 6425 and 10521 tokens for square images.
    """
    if pixels not in STAGES:
        raise unknown("pixel budget", pixels, STAGES)
    template = min(INFINITY_GRIDS, key=lambda key: abs(key - ratio))
    grids = INFINITY_GRIDS[template]
    return Schedule(grids[: STAGES[pixels]], grids[-1], f"infinity-{pixels}-{template:g}")


def hart() -> Schedule:
    """The released schedule of HART at 1024 pixels: 14 scales, 9451 tokens, at stride 16."""
    return square((1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64), "hart-1024")


def matching(grids: tuple[Grid, ...]) -> Schedule:
    """The released schedule that starts with these grids; its extent sets the rotary positions."""
    for ratio, table in INFINITY_GRIDS.items():
        if len(grids) > 1 and table[: len(grids)] == tuple(grids):
            return Schedule(tuple(grids), table[-1], f"infinity-{len(grids)}-stages-{ratio:g}")
    raise VarlabError(f"No released Infinity schedule starts with {grids}. Use varlab.schedules.custom(grids).")

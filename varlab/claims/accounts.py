"""Operations and tokens from shapes alone, with the latencies that they explain: what arithmetic checks recompute."""

from functools import cache
from itertools import accumulate

from varlab import schedules
from varlab.gpus import DEVICES

FIXED = 0.2  # s of a published SparseVAR latency on Infinity that no stage explains: text encoder and decoder
PROFILE = 0.695
"""Share of the rest that grows with the tokens of stages 11 to 13: by FastVAR's figure of milliseconds a stage, less a
floor of 30 ms each."""
HART_SCALES = 0.637  # s of 1.32 that grow with the tokens of stages 11 to 14
EXIT_BLOCK, EXIT_DEPTH, EXIT_DENSE = 53.87, 20, 1879.0  # GFLOP of a block of VAR-d20, its depth, GFLOP of an image

HARDWARE = {"RTX 3090": "3090", "RTX 4090": "4090", "L40": "l40", "A100": "a100-80", "H100": "h100"}


def sides(model: str) -> tuple[int, ...]:
    """The square grids of a model's published schedule."""
    if model == "infinity-2b":
        return tuple(grid[0] for grid in schedules.infinity("1M", 1.0).grids)
    if model == "hart-0.7b":
        return tuple(grid[0] for grid in schedules.hart().grids)
    return (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def tokens(model: str) -> tuple[int, ...]:
    return tuple(side * side for side in sides(model))


@cache
def stage_flops(model: str) -> tuple[float, ...]:
    """Operations of both guidance rows at each stage: linear layers on every token, attention on all pairs.

    HART's linear layers are those of a gated unit of width 4096, and its first stage holds 300 tokens of text.
    """
    depth, width = (32, 2048) if model == "infinity-2b" else (24, 1536)
    products = 14 * width**2 if model == "infinity-2b" else 4 * width**2 + 3 * width * 4096
    own = (*tokens(model),) if model == "infinity-2b" else (300, *tokens(model)[1:])
    seen = accumulate(own)
    return tuple(2 * depth * (2 * products * n + 4 * width * n * keys) for n, keys in zip(own, seen, strict=True))


def last_share(model: str, last: int) -> float:
    """Share of the operations in the final stages."""
    flops = stage_flops(model)
    return sum(flops[-last:]) / sum(flops)


def implied_keep(model: str, dense: float, seconds: float, account: str = "flops") -> float:
    """The share of tokens of the pruned stages that a latency implies, the dense one beside it.

    account: "flops" takes the time to be in the operations; whatever else takes time lowers it. "profile" takes the
    published milliseconds of a stage.
    """
    if model == "hart-0.7b":
        grows = HART_SCALES * dense / 1.32 if account == "profile" else last_share(model, 4) * dense
    else:
        grows = (PROFILE if account == "profile" else last_share(model, 3)) * (dense - FIXED)
    return 1 - (dense - seconds) / grows


def least_seconds(model: str, hardware: str, stage: int | None = None) -> float | None:
    """The time that the operations of a dense image, or of one stage, take at the peak of a GPU in half precision;
    None for models and GPUs without an account. No text encoder, no decoder."""
    device = next((one for name, one in HARDWARE.items() if name in hardware), None)
    if device is None or model not in ("infinity-2b", "hart-0.7b", "var-d20"):
        return None
    flops = [EXIT_DENSE * 1e9] if model == "var-d20" else stage_flops(model)
    return (sum(flops) if stage is None else flops[stage - 1]) / DEVICES[device].rates["fp16"]


def exit_gflops(exits: tuple[int, ...]) -> float:
    """GFLOP of an image of VAR-d20 whose stages run so many blocks: a block for each token that runs it."""
    counts = tokens("var-d20")
    mean = sum(n * depth for n, depth in zip(counts, exits, strict=True)) / sum(counts)
    return EXIT_DENSE - EXIT_BLOCK * (EXIT_DEPTH - mean)

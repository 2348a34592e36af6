"""What an exit vector costs on VAR, without running it: block calls, token-weighted depth, exact and published FLOPs.

At batch 1 latency follows the block calls, each a handful of kernel launches; in large batches it follows the FLOPs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from varlab.models.guidance import Settings
from varlab.models.var_model import VAR

ROWS = 2  # conditional and unconditional


@dataclass(frozen=True)
class ExitAccount:
    """Of one guided image. ``transformer_gflops`` is what the engine's ledger counts, attention included and the decode
    not; ``paper_gflops`` counts as the paper's column does."""

    exits: tuple[int, ...]
    block_calls: int
    weighted_depth: float
    transformer_gflops: float
    decode_gflops: float
    paper_gflops: float


def weighted_depth(lengths: Sequence[int], exits: Sequence[int]) -> float:
    """Mean blocks a token passes."""
    return sum(n * count for n, count in zip(lengths, exits, strict=True)) / sum(lengths)


def exact_flops(model: VAR, exits: Sequence[int], settings: Settings | None = None) -> int:
    """Of the transformer, as the ledger counts a guided run: a block's queries see the keys of stages that ran it."""
    settings = settings or model.settings
    flops = ROWS * (model.modulation_cost() + 4 * model.width**2)
    cached = [0] * model.depth
    for k, (tokens, count) in enumerate(zip(model.schedule.lengths, exits, strict=True)):
        for block in range(count):
            cached[block] += tokens
            flops += ROWS * sum(
                model.sublayer_cost(name, tokens, cached[block], None).total for name in model.sublayers
            )
        guided = model.guidance(k, settings, True).scale != 1
        flops += model.stage_cost(k, tokens, 1, ROWS if guided else 1, settings).total
    return flops


def paper_flops(model: VAR, exits: Sequence[int]) -> int:
    """As FreqExit's table counts: matrix products of blocks and head for both rows, the modulation once a stage, two
    decodes, no attention. Reproduces its column for VAR-d20 to 1 GFLOP; why two decodes is not known."""
    config, lengths = model.transformer.config, model.schedule.lengths
    shared = 12 * model.width**2 * len(exits) if config.shared_modulation else 0
    each = 0 if config.shared_modulation else 12 * model.width**2
    flops = ROWS * (shared + 2 * sum(lengths) * model.width * config.codes)
    for tokens, count in zip(lengths, exits, strict=True):
        linear = sum(model.sublayer_cost(name, tokens, tokens, None).linear for name in model.sublayers)
        flops += ROWS * count * (linear + each)
    return flops + 2 * model.decode_cost(model.schedule.final).total


def account(model: VAR, exits: Sequence[int], settings: Settings | None = None) -> ExitAccount:
    return ExitAccount(
        tuple(exits),
        sum(exits),
        weighted_depth(model.schedule.lengths, exits),
        exact_flops(model, exits, settings) / 1e9,
        model.decode_cost(model.schedule.final).total / 1e9,
        paper_flops(model, exits) / 1e9,
    )

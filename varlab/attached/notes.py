"""What could not be seen of a run, by name, and what a log must therefore not hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from varlab.probes.log import Group, Log

CANVAS = ("residual-spectrum", "step-redundancy")  # probes that rest on the canvas alone
PLACED = ("edge_correlation", "edge_correlation_rows")  # figures of token-mse that need to know where a token lies


@dataclass
class Unseen:
    """``facts``: what is missing, and at which stages, in the order in which it was noticed."""

    facts: dict[str, set[int]] = field(default_factory=dict)
    unplaced: set[tuple[int, int]] = field(default_factory=set)  # (stage, block)
    no_canvas: bool = False
    no_sublayers: bool = False
    no_work: bool = False

    def note(self, fact: str, stage: int) -> None:
        self.facts.setdefault(fact, set()).add(stage)

    @property
    def words(self) -> list[str]:
        """``stages 3, 5: codes and predictions``."""
        return [f"{stages(where)}: {fact}" for fact, where in self.facts.items()]

    def clean(self, log: Log) -> Log:
        """The log without what is not known."""
        if self.no_canvas:
            log = {path: group for path, group in log.items() if not path.startswith(CANVAS)}
        if self.no_sublayers:
            log = {p: _blank_sublayers(group) if p.startswith("token-mse") else group for p, group in log.items()}
        if self.no_work and "step-redundancy" in log:
            group = log["step-redundancy"]
            dims, flops, unit = group.variables["flops"]
            missing = (dims, np.full_like(flops, np.nan), unit)
            log |= {"step-redundancy": replace(group, variables=group.variables | {"flops": missing})}
        for stage, block in self.unplaced:
            log = {path: _unplaced(path, group, stage, block) for path, group in log.items()}
        return log


def _blank_sublayers(group: Group) -> Group:
    variables = dict(group.variables)
    for name, (dims, values, unit) in variables.items():
        if "sublayer" in dims:
            kept = values.copy()
            np.moveaxis(kept, 1 + dims.index("sublayer"), 0)[1:] = np.nan  # the first is the block
            variables[name] = (dims, kept, unit)
    return replace(group, variables=variables)


def _unplaced(path: str, group: Group, stage: int, block: int) -> Group:
    """Without maps and places of a block's tokens; their means stay."""
    if not path.startswith(("token-mse", "branch-divergence")):
        return group
    maps = path.endswith(f"/stage-{stage + 1:02d}")
    variables = dict(group.variables)
    for name, (dims, values, unit) in variables.items():
        if maps and "block" in dims:
            index: tuple[Any, ...] = (slice(None),) * (1 + dims.index("block")) + (block,)
        elif name in PLACED or (path == "branch-divergence" and "block" in dims):  # rows may hold different tokens
            index = (slice(None), stage, block)
        else:
            continue
        kept = values.copy()
        kept[index] = np.nan
        variables[name] = (dims, kept, unit)
    return replace(group, variables=variables)


def stages(numbers: Iterable[int]) -> str:
    """``stage 3`` or ``stages 3, 5``; numbers count from 0, words from 1."""
    listed = [str(k + 1) for k in sorted(set(numbers))]
    return f"stage{'s' if len(listed) > 1 else ''} {', '.join(listed)}"

"""The work ledger: what was really computed, stage by stage."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from varlab.markup import Shown, count, summary
from varlab.models.base import Cost


@dataclass
class StageWork:
    """Sums over the images of a stage. Token-blocks count tokens x blocks x rows, row-blocks rows x blocks; pairs are
    query-key pairs; block calls count blocks once for each group of images that runs together.

    ``overhead_flops`` are previews, scores and fills that an accelerator asked for; ``fp32_flops`` those of the linear
    ones that are in fp32 in every precision, as heads are.
    """

    images: int = 0
    tokens: int = 0
    grid_tokens: int = 0
    block_calls: int = 0
    row_blocks: int = 0
    token_blocks: int = 0
    dense_token_blocks: int = 0
    dense_flops: int = 0
    pairs: int = 0
    linear_flops: int = 0
    fp32_flops: int = 0
    attention_flops: int = 0
    overhead_flops: int = 0
    kv_bytes: int = 0

    def read_out(self, cost: Cost) -> None:
        """What a stage costs beside its blocks."""
        self.linear_flops += cost.linear
        self.fp32_flops += cost.linear - cost.halved

    @property
    def flops(self) -> int:
        """Everything the stage cost, a method's own work included."""
        return self.linear_flops + self.attention_flops + self.overhead_flops


@dataclass
class Ledger(Shown):
    """``stages`` in order; ``text_flops`` and ``decode_flops`` are paid once an image."""

    stages: list[StageWork] = field(default_factory=list)
    text_flops: int = 0
    decode_flops: int = 0

    @classmethod
    def of(cls, count: int) -> "Ledger":
        return cls([StageWork() for _ in range(count)])

    @classmethod
    def read(cls, held: Mapping[str, Any]) -> "Ledger":
        """From what ``asdict`` gives."""
        return cls([StageWork(**work) for work in held["stages"]], held["text_flops"], held["decode_flops"])

    def __add__(self, other: "Ledger") -> "Ledger":
        stages = [
            StageWork(**{name: value + getattr(b, name) for name, value in asdict(a).items()})
            for a, b in zip(self.stages, other.stages, strict=True)
        ]
        return Ledger(stages, self.text_flops + other.text_flops, self.decode_flops + other.decode_flops)

    def __repr__(self) -> str:
        return summary(
            f"Ledger of {count(len(self.stages), 'stage')}: {self.work}",
            text=f"{self.text_flops:.3g} FLOP",
            decoding=f"{self.decode_flops:.3g} FLOP",
            stages="table()",
        )

    @property
    def work(self) -> str:
        """Of all stages, and as a share of a dense run."""
        done, dense = (sum(getattr(work, name) for work in self.stages) for name in ("flops", "dense_flops"))
        return f"{done:.3g} FLOP in all stages" + (f", {done / dense:.3f} of a dense run" if dense else "")

    @property
    def transformer_flops(self) -> int:
        """All but decoding: the text once an image, and every stage."""
        return self.text_flops + sum(work.flops for work in self.stages)

    @property
    def dense_flops(self) -> int:
        """What ``transformer_flops`` of a run without methods is."""
        return self.text_flops + sum(work.dense_flops for work in self.stages)

    @property
    def engaged(self) -> bool:
        """Whether less was computed than a dense run would have, the methods' own work included."""
        return sum(work.flops for work in self.stages) < sum(work.dense_flops for work in self.stages)

    def table(self) -> pd.DataFrame:
        """One row a stage (counted from 1)."""
        rows = [{"stage": k, **asdict(work), "flops": work.flops} for k, work in enumerate(self.stages, start=1)]
        return pd.DataFrame(rows).set_index("stage")

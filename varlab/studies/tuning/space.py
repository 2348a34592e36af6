"""What is searched: every kind of method, by stage where it has one, alone and with the others, beside baselines."""

from collections.abc import Iterable
from itertools import product

from varlab.accelerators.decisions import targets_of
from varlab.accelerators.skipvar import decisions_file
from varlab.comparison.baselines import baseline_specs
from varlab.comparison.bench import methods_of
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.runs.trial import try_methods

PUBLISHED = ("sparsevar", "sparsevar:keep=0.27", "sparsevar:keep=0.49")
KEEPS = (  # a share of the tokens for each final stage that is pruned, the last stage's last
    ("0.15",), ("0.3",), ("0.5",), ("0.7",),
    ("0.3", "0.15"), ("0.3", "0.3"), ("0.5", "0.15"), ("0.5", "0.3"), ("0.5", "0.5"), ("0.7", "0.3"), ("0.7", "0.5"),
    ("0.85", "0.7"),
    ("0.3", "0.3", "0.3"), ("0.5", "0.3", "0.15"), ("0.5", "0.3", "0.3"), ("0.7", "0.5", "0.3"), ("0.85", "0.5", "0.3"),
)  # fmt: skip
DROPPED = (("0.3", "1"), ("0.5", "1"), ("0.7", "1"), ("0.7", "0.5", "1"))  # the last of these stages never runs
UNGUIDED = (2, 3, 4)  # final stages without guidance
FAST = ("fastvar:ratios=0.5,drop=1", "fastvar:ratios=0.4/0.5,drop=1", "fastvar-all-scales:ratios=0.4",
        "fastvar-all-scales:ratios=0.5/0.75")  # fmt: skip
SHALLOW = ((1, 5 / 6), (2, 5 / 6), (1, 2 / 3))  # final stages, share of the blocks that they run
PARTNER = "sparsevar:keep=0.5,last=2,alpha=none"  # for methods of another kind that go with pruned tokens


def space_of(model: NextScaleModel) -> tuple[list[str], list[str]]:
    """(candidates, baselines) as specs that this model can run; the dense run is among the baselines.

    Tokens are pruned as published and with two calibrated readings: without anchors, and scored by a later block.
    Early exits are searched on all models; weights that were not trained for them gain little from it.
    """
    baselines = baseline_specs(model, model.settings)
    calibrated = (",alpha=none", f",alpha=none,block={3 * model.depth // 4 - 1}")
    plain = [f"sparsevar:keep={'/'.join(keep)},last={len(keep)}" for keep in KEEPS]
    pruned, dropped = (
        [f"sparsevar:keep={'/'.join(keep)},last={len(keep)}{reading}" for keep, reading in product(keeps, calibrated)]
        for keeps in (KEEPS, DROPPED)
    )
    off = [f"cfg-off:last={last}" for last in UNGUIDED]
    decided = [f"skipvar:target={target}" for target in targets_of(decisions_file(model.name))]
    exits = [f"freqexit:exits={_exits(model, *each)}" for each in SHALLOW]
    others = ["fastvar", *FAST, *decided, *exits]
    pairs = [*product(pruned, off), *product(others, off[1:2]), *product([*decided, *exits], [PARTNER])]
    threes = [*product(dropped, ["truncate:last=1"], ["none", *off[1:]]), *product(decided, [PARTNER], off[:2])]
    found = [
        *PUBLISHED,
        *plain,
        *pruned,
        *others,
        *("+".join(parts).removesuffix("+none") for parts in [*pairs, *threes]),
    ]
    return [spec for spec in dict.fromkeys(found) if spec not in baselines and _runs(model, spec)], baselines


def _exits(model: NextScaleModel, last: int, share: float) -> str:
    """All blocks but in the final stages."""
    stages = len(model.schedule)
    return f"{model.depth}x{max(1, stages - last)}/{round(share * model.depth)}x{min(last, stages - 1)}"


def _runs(model: NextScaleModel, spec: str) -> bool:
    """Whether the methods can run together, and on this model."""
    try:
        methods = methods_of(spec)
        try_methods(model, model.settings, methods)
    except VarlabError:
        return False
    return model.guided(model.settings) or not any(method.name == "cfg-off" for method in methods)


def composed(specs: Iterable[str]) -> list[str]:
    """Those of several methods."""
    return [spec for spec in specs if "+" in spec]

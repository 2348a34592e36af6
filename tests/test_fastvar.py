"""FastVAR against its definition: which tokens, what restores the rest, which blocks and stages."""

import pytest
import torch

from tests.conftest import features, tiny_infinity
from varlab.accelerators import build
from varlab.accelerators.fastvar import FastVAR, pivotal
from varlab.claims.methods import matched_baselines
from varlab.engine.hooks import Compute, Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.figures import kept_share_table
from varlab.models.guidance import Settings
from varlab.probes.log import of_methods, tree


class Branches(Probe):
    """Input and output of every branch."""

    name = "branches"

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int, str], tuple[torch.Tensor, torch.Tensor]] = {}

    def on_sublayer(self, site: Site, x: torch.Tensor, y: torch.Tensor) -> None:
        self.seen[site.stage.index, site.block, str(site.sublayer)] = (x, y)


def run(spec: str | FastVAR, schedule: str = "square") -> tuple[Generation, Branches]:
    probe = Branches()
    run = Run(tiny_infinity(schedule), Settings(cfg=2.0), SeededNoise(7), [probe])
    return run.generate(features(3, 5), (0, 1), build((spec,))), probe


def test_the_tokens_farthest_from_the_mean_are_pivotal() -> None:
    x = torch.tensor([[[0.0], [1.0], [5.0], [-9.0]], [[4.0], [4.0], [0.0], [4.5]]])
    assert pivotal(x, 2).tolist() == [[2, 3], [2, 3]]
    assert pivotal(x, 1).tolist() == [[3], [2]]


@pytest.mark.parametrize("branch", ["attention", "cross", "ffn"])
def test_a_token_left_out_gets_what_the_cache_stage_added(branch: str) -> None:
    """Stage 3 (5x5) restores from stage 2 (3x3), row by row."""
    _, probe = run("fastvar-all-scales:ratios=0.4,first=2")
    for block in (2, 3):
        x, y = probe.seen[3, block, branch]
        _, old = probe.seen[2, block, branch]
        up = torch.nn.functional.interpolate(old.mT.unflatten(-1, (3, 3)), size=(5, 5), mode="area").flatten(2).mT
        keep = pivotal(x, 25 - int(0.4 * 25))
        kept = torch.zeros(4, 25, dtype=torch.bool).scatter(1, keep, True)
        assert torch.equal(y[~kept], up[~kept])
        assert not torch.isclose(y[kept], up[kept]).all(-1).any()


def test_it_tells_how_often_each_token_was_computed() -> None:
    """By hand: the pivotal tokens of every pruning sub-layer and row, counted."""
    out, probe = run("fastvar-all-scales:ratios=0.4,first=2")
    count = torch.zeros(4, 25)
    for block in (2, 3):
        for branch in ("attention", "cross", "ffn"):
            count += torch.zeros(4, 25).scatter(1, pivotal(probe.seen[3, block, branch][0], 15), 1.0)
    expected = (count / 6).view(2, 2, 5, 5).mean(0)  # over the rows [conditional, unconditional] of each image
    log = of_methods(out.reports, (0, 1))
    assert set(log) == {"fastvar-all-scales/stage-04"}
    found = log["fastvar-all-scales/stage-04"].variables["kept"][1]
    assert torch.allclose(torch.from_numpy(found), expected) and found.mean() == pytest.approx(15 / 25)


@pytest.mark.parametrize(("blocks", "pruning"), [("first=2", 2), ("first=2,final=2", 1), ("first=0", 4)])
def test_controls_compute_what_it_computes_over_all_blocks(blocks: str, pruning: int) -> None:
    """Of 25 tokens 15 stay in the pruning ones of four blocks."""
    out, _ = run(f"fastvar-all-scales:ratios=0.4,{blocks}")
    log = tree(of_methods(out.reports, (0, 1)), {"schedule": [[1, 1], [2, 2], [3, 3], [5, 5]]})
    row = kept_share_table(log).iloc[0]
    assert row["mean"] == pytest.approx(0.6) and row.all_blocks == pytest.approx(1 - 0.4 * pruning / 4)
    assert matched_baselines(log)[0] == f"random-tokens:keep={1 - 0.4 * pruning / 4:.2g},last=1"


def test_blocks_outside_and_stages_before_run_whole() -> None:
    out, probe = run("fastvar-all-scales:ratios=0.4,first=2,final=2")
    dense, plain = run("none")
    for key in plain.seen:
        if key[0] < 3 or key[1] < 2:
            assert torch.equal(probe.seen[key][1], plain.seen[key][1])
    pruned, whole = (g.ledger.stages[3].pairs for g in (out, dense))
    assert 0 < pruned < whole
    assert [w.pairs for w in out.ledger.stages[:3]] == [w.pairs for w in dense.ledger.stages[:3]]


def test_dropped_scales_are_a_truncation() -> None:
    dropped, probe = run("fastvar:ratios=0.4,drop=1,first=2")
    assert max(stage for stage, _, _ in probe.seen) == 2
    assert dropped.ledger.stages[3].tokens == 0 and dropped.ledger.stages[2].overhead_flops > 0


def test_a_split_batch_keeps_its_rows_of_the_cache() -> None:
    method = FastVAR(ratios=(0.5,), drop=1, first=0)
    method.start(Run(tiny_infinity(), Settings(cfg=2.0), SeededNoise(7)).context)
    rows = torch.arange(4.0).view(4, 1, 1)  # conditional 0, 1 and unconditional 2, 3
    method.cache, method.batch = {(0, "ffn"): rows}, 2
    twin = method.fork(torch.tensor([1]))
    assert isinstance(twin, FastVAR) and twin.cache[0, "ffn"].flatten().tolist() == [1, 3] and twin.batch == 1
    assert method.cache[0, "ffn"].shape[0] == 4


def test_it_runs_on_after_the_unconditional_rows_are_gone() -> None:
    probe = Branches()
    model = tiny_infinity()
    methods = build(("fastvar-all-scales:ratios=0.4,first=2", "cfg-off:last=1"))
    Run(model, Settings(cfg=2.0), SeededNoise(7), [probe]).generate(features(3, 5), (0, 1), methods)
    assert probe.seen[3, 2, "ffn"][1].shape[0] == 2 and probe.seen[2, 2, "ffn"][1].shape[0] == 4


class Leaking(FastVAR):
    """Would compute a branch twice."""

    def sublayer(self, site: Site, x: torch.Tensor, compute: Compute) -> torch.Tensor:
        compute(x)
        return compute(x)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (("fastvar:ratios=1",), "shares of pruned"), (("fastvar:drop=0",), "fastvar-all-scales"),
        (("fastvar",), "leave none of 4"), (("fastvar:ratios=0.4,drop=1,first=4",), "first=4 is not one of the 4"),
        (("fastvar:first=5,final=4",), "first <= final"), (("fastvar", "sparsevar"), "whole grids"),
        (("fastvar", "fastvar-all-scales"), "wrap the sub-layers"), (("sparsevar", "random-tokens:keep=1"), "fill"),
        (("fastvar-all-scales:ratios=0.4,final=4",), "final=4 is not one of the 4 blocks, 0 to 3"),
        (("fastvar:ratio=1",), "ratios"), ((Leaking((0.4,), 1),), "computed twice"),
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_refused(specs: tuple[str, ...], message: str) -> None:
    model = tiny_infinity()
    with pytest.raises(VarlabError, match=message):
        Run(model, Settings(cfg=2.0), SeededNoise(7)).generate(features(3), (0,), build(specs))

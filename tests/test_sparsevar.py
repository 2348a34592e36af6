"""SparseVAR and the token controls against brute force: anchors, scores, fills, ragged batches, clear refusals."""

import math

import pytest
import torch

from tests.sparsevar_runs import run
from varlab.accelerators.anchors import anchor_cells, anchor_mask, nearest_of, resize

GRIDS = [(1, 1), (3, 2), (5, 3), (8, 8), (9, 13)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("alpha", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["centre", "corner", "random"])
def test_every_cell_has_its_one_anchor(grid: tuple[int, int], alpha: int, place: str) -> None:
    cells = anchor_cells(grid, alpha, place).view(grid)
    assert int(anchor_mask(cells.flatten()).sum()) == math.ceil(grid[0] / alpha) * math.ceil(grid[1] / alpha)
    for y in range(grid[0]):
        for x in range(grid[1]):
            anchor = divmod(int(cells[y, x]), grid[1])
            assert (anchor[0] // alpha, anchor[1] // alpha) == (y // alpha, x // alpha)


def test_under_floor_a_rest_joins_the_cell_before() -> None:
    cells = anchor_cells((5, 7), 3, "corner", "floor").view(5, 7)
    assert sorted(set(cells.flatten().tolist())) == [0, 3]
    assert (cells[:, :3] == 0).all() and (cells[:, 3:] == 3).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_nearest_is_the_brute_force_one(grid: tuple[int, int]) -> None:
    mask = torch.rand(2, grid[0] * grid[1], generator=torch.Generator().manual_seed(1)) < 0.4
    mask[:, 0] = True
    found = nearest_of(mask, grid)
    for row in range(2):
        kept = mask[row].nonzero().flatten().tolist()
        for i in range(grid[0] * grid[1]):

            def apart(j: int, i: int = i) -> float:
                return math.dist(divmod(i, grid[1]), divmod(j, grid[1]))

            assert apart(int(found[row, i])) == min(map(apart, kept))


def test_what_is_kept_is_what_the_block_changed_at_the_stage_before() -> None:
    """By hand: the map of block 2, its mean over rows, bilinear, over its mean, at least tau, or an anchor."""
    _, spy = run("sparsevar:tau=0.98,alpha=3,last=1,block=2")
    change = spy.changes[2, 2].mean(0)  # conditional and unconditional row of a 3x3 grid
    z = torch.nn.functional.interpolate(change.view(1, 1, 3, 3), size=(5, 5), mode="bilinear").flatten()
    expected = (z / z.mean() >= 0.98) | anchor_mask(anchor_cells((5, 5), 3))
    assert torch.equal(spy.masks[3, 0], expected) and 0 < int(expected.sum()) < 25
    assert spy.changes[3, 0].shape[1] == int(expected.sum())
    cells = anchor_cells((5, 5), 3)
    source = torch.where(expected, torch.arange(25), cells)
    assert torch.equal(spy.codes[3], spy.codes[3][..., source])


@pytest.mark.parametrize("stage", [1, 2])
def test_only_the_last_stages_are_pruned_and_nothing_before(stage: int) -> None:
    generation, spy = run(f"sparsevar:keep=0.5,alpha=none,last={stage}")
    counts = [int(spy.masks[k, 0].sum()) for k in range(4)]
    tokens = [1, 4, 9, 25]
    pruned = [round(0.5 * n) for n in tokens]
    assert counts == tokens[: 4 - stage] + pruned[4 - stage :]
    (report,) = generation.reports.values()
    told = report["sparsevar"]
    assert told["share"][1][0].tolist() == pytest.approx([counts[k] / tokens[k] for k in range(4)])
    assert {name for name in told if "kept" in name} == {f"stage-{k + 1:02d}/kept" for k in range(4 - stage, 4)}
    for k in range(4 - stage, 4):
        kept, score = (told[f"stage-{k + 1:02d}/{name}"][1][0] for name in ("kept", "score"))
        assert kept.flatten().tolist() == spy.masks[k, 0].float().tolist()
        assert score[kept > 0].min() >= score[kept == 0].max() and score.mean() == pytest.approx(1)


def test_a_list_keeps_another_share_at_each_stage() -> None:
    _, spy = run("sparsevar:keep=1/0.4,alpha=none,last=2")
    assert [int(spy.masks[k, 0].sum()) for k in (2, 3)] == [9, 10]


def test_scores_carry_over_stages_that_were_pruned() -> None:
    """A token that was not computed keeps its last score, takes its anchor's, or none at all."""
    kept = {}
    for rule in ("last", "anchor", "zero"):
        _, spy = run(f"sparsevar:tau=0.98,alpha=2,last=2,block=1,unscored={rule}")
        first, last = spy.masks[2, 0], spy.masks[3, 0]
        fresh = torch.zeros(9)
        fresh[first] = spy.changes[2, 1].mean(0)
        old = resize(spy.changes[1, 1].mean(0)[None, None], (2, 2), (3, 3), "bilinear").flatten()
        cells = anchor_cells((3, 3), 2)
        others = {"last": old, "anchor": fresh[cells], "zero": torch.zeros(9)}[rule]
        score = torch.where(first, fresh, others)
        z = resize(score[None, None], (3, 3), (5, 5), "bilinear").flatten()
        assert torch.equal(last, (z / z.mean() >= 0.98) | anchor_mask(anchor_cells((5, 5), 2)))
        assert not first.all()
        kept[rule] = last
    assert len({tuple(mask.tolist()) for mask in kept.values()}) > 1  # the rules do differ here


def test_a_token_once_out_stays_out_if_asked() -> None:
    _, spy = run("sparsevar:tau=0.98,alpha=none,last=2,block=1,persistent=true")
    alive = resize(spy.masks[2, 0].float()[None, None], (3, 3), (5, 5), "nearest").flatten() > 0.5
    assert not (spy.masks[3, 0] & ~alive).any() and alive.sum() < 25

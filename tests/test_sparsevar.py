"""SparseVAR and the token controls against brute force: anchors, scores, fills, ragged batches, clear refusals."""

import math

import numpy as np
import pytest
import torch

from tests.conftest import features, tiny_infinity
from varlab.accelerators import build
from varlab.accelerators.anchors import anchor_cells, anchor_mask, nearest_of, resize
from varlab.accelerators.decisions import Classifier, DecisionModel, always
from varlab.accelerators.skipvar import SkipVAR
from varlab.accelerators.sparsevar import Readings, SparseVAR, normalise
from varlab.engine import attend as attends
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.plan import StagePlan
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.infinity import TextBatch
from varlab.probes.log import Log, of_methods

GRIDS = [(1, 1), (3, 2), (5, 3), (8, 8), (9, 13)]


class Spy(Probe):
    """What a run did: selections, code maps, and the squared change inside every block."""

    name = "spy"

    def __init__(self) -> None:
        self.masks: dict[tuple[int, int], torch.Tensor] = {}
        self.codes: dict[int, torch.Tensor] = {}
        self.changes: dict[tuple[int, int], torch.Tensor] = {}
        self.branches: dict[tuple[int, int, str], torch.Tensor] = {}

    def on_sublayer(self, site: Site, x: torch.Tensor, y: torch.Tensor) -> None:
        self.branches[site.stage.index, site.block, str(site.sublayer)] = y.square().mean(-1)

    def on_block(self, site: Site, x_in: torch.Tensor, x_out: torch.Tensor) -> None:
        self.changes[site.stage.index, site.block] = (x_out - x_in).square().mean(-1)

    def on_residual(self, stage: Stage, codes: torch.Tensor, before: torch.Tensor, canvas: torch.Tensor) -> None:
        self.codes[stage.index] = codes.flatten(2)
        selection = stage.plan.selection
        tokens = stage.grid[0] * stage.grid[1]
        mask = torch.ones(1, tokens, dtype=torch.bool) if selection is None else selection.mask
        for row, image in enumerate(stage.samples):
            self.masks[stage.index, image] = mask if mask.ndim == 1 else mask[min(row, len(mask) - 1)]


def run(spec: str, images: tuple[int, ...] = (0,), schedule: str = "square", **settings) -> tuple[Generation, Spy]:
    spy = Spy()
    model = tiny_infinity(schedule)
    chosen = Settings(**{"cfg": 2.0, **settings})
    rows = features(3, 3, 3).features.split(3)
    text = TextBatch(torch.cat([rows[image] for image in images]), (3,) * len(images))
    return Run(model, chosen, SeededNoise(7), [spy]).generate(text, images, build((spec,))), spy


def split_run(skip: Classifier) -> tuple[Generation, Log]:
    """Three images under SkipVAR and SparseVAR, each group going its own way."""
    model = DecisionModel("infinity", "random", 8, 0.86, skip, always(0, 0).uncond, {})
    text = TextBatch(features(3, 3, 3).features, (3, 3, 3))
    methods = build((SkipVAR(model=model), "sparsevar:keep=0.5,last=2"))
    out = Run(tiny_infinity("long"), Settings(cfg=2.0), SeededNoise(7)).generate(text, (0, 1, 2), methods)
    return out, of_methods(out.reports, (0, 1, 2))


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


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("mean", [0.5, 1.0, 1.5]), ("computed-mean", [0.25, 0.5, 0.75]), ("max", [1 / 3, 2 / 3, 1.0]),
        ("min-max", [0.0, 0.5, 1.0]), ("absolute", [1.0, 2.0, 3.0]),
        ("sigmoid", torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0])).tolist()),
    ],
)  # fmt: skip
def test_normalisers(norm: str, expected: list[float]) -> None:
    z = normalise(torch.tensor([[1.0, 2.0, 3.0]]), norm, torch.tensor([[4.0]]))
    assert z[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "option",
    [
        "norm=sigmoid", "norm=max", "norm=min-max", "norm=computed-mean", "root=true", "resize=nearest", "resize=area",
        "resize=bicubic", "rows=cond", "rows=union", "anchor=corner", "anchor=random", "partial=floor",
        "nearest=euclid", "nearest=kept", "keys=weighted", "operand=attention", "operand=ffn",
        "alpha=none", "alpha=none,orphans=kept",
    ],
)  # fmt: skip
def test_each_reading_draws_the_same_image_in_any_batch(option: str) -> None:
    """Counts differ between images, so that a batch is padded; alone nothing is."""
    tau = 0.5 if option in ("norm=sigmoid", "norm=min-max") else 0.98  # about half of the tokens stay
    spec = f"sparsevar:tau={tau},last=2,{'' if 'alpha' in option else 'alpha=2,'}{option}"
    both, spy = run(spec, (0, 1, 2))
    counts = {int(spy.masks[3, image].sum()) for image in (0, 1, 2)}
    for image in (0, 1, 2):
        alone, single = run(spec, (image,))
        assert torch.equal(spy.masks[3, image], single.masks[3, image])
        assert torch.allclose(both.canvas[image], alone.canvas[0], atol=1e-5)
    if option == "norm=sigmoid":
        assert len(counts) > 1
    assert both.image.isfinite().all()


@pytest.mark.parametrize("branch", ["attention", "cross", "ffn"])
def test_the_score_may_be_that_of_one_branch(branch: str) -> None:
    _, spy = run(f"sparsevar:tau=0.98,alpha=3,last=1,block=1,operand={branch}")
    change = spy.branches[2, 1, branch].mean(0)
    z = resize(change[None, None], (3, 3), (5, 5), "bilinear").flatten()
    assert torch.equal(spy.masks[3, 0], (z / z.mean() >= 0.98) | anchor_mask(anchor_cells((5, 5), 3)))


def test_a_weighted_key_counts_as_often_as_it_fills() -> None:
    """Against brute force: attention over the keys, each repeated as often as its token is copied."""
    rows = features(3, 3, 3).features[:3]
    model, grid = tiny_infinity(), (5, 5)
    method = SparseVAR(keep=0.4, alpha=3, last=1, readings=Readings(keys="weighted"))
    seen: dict[str, torch.Tensor] = {}
    settings = Settings(cfg=2.0)
    plain = attends.attention

    def spying(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None, scale: float):  # type: ignore[no-untyped-def]
        out = plain(q, k, v, bias, scale=scale)
        if bias is not None and "out" not in seen:
            seen.update(q=q, k=k, v=v, out=out)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attends, "attention", spying)
        spy = Spy()
        Run(model, settings, SeededNoise(7), [spy]).generate(TextBatch(rows, (3,)), (0,), [method])
    mask = spy.masks[3, 0]
    source = torch.where(mask, torch.arange(25), anchor_cells(grid, 3))
    copies = torch.bincount(source, minlength=25)[mask]
    assert int(copies.sum()) == 25 and int(copies.max()) > 1
    repeats = torch.cat([torch.ones(14, dtype=torch.long), copies])  # 1 + 4 + 9 keys of the stages before
    k, v = (seen[name].repeat_interleave(repeats, dim=2) for name in "kv")
    expected = plain(seen["q"], k, v, None, scale=model.attention_scale)
    assert torch.allclose(seen["out"], expected, atol=1e-5)


def test_copied_logits_are_sampled_at_each_position() -> None:
    _, codes = run("sparsevar:keep=0.4,alpha=3,last=1")
    out, logits = run("sparsevar-logits:keep=0.4,alpha=3,last=1")
    mask = logits.masks[3, 0]
    assert torch.equal(mask, codes.masks[3, 0])
    assert torch.equal(codes.codes[3][..., mask], logits.codes[3][..., mask])  # the same noise at the same place
    assert not torch.equal(codes.codes[3], logits.codes[3])
    greedy, _ = run("sparsevar-logits:keep=0.4,alpha=3,last=1", top_k=1)
    plain, _ = run("sparsevar:keep=0.4,alpha=3,last=1", top_k=1)
    assert torch.equal(greedy.canvas, plain.canvas)  # without noise, copying before and after is the same
    assert out.ledger.stages[3].tokens == int(mask.sum())


def test_without_anchors_the_rest_adds_nothing_or_its_neighbours() -> None:
    _, spy = run("sparsevar:keep=0.4,alpha=none,last=1")
    out = ~spy.masks[3, 0]
    assert (spy.codes[3][..., out] == 0).all() and (spy.codes[3][..., ~out] != 0).all()
    _, spy = run("sparsevar:keep=0.4,alpha=none,last=1,orphans=kept")
    source = nearest_of(spy.masks[3, 0], (5, 5))
    assert torch.equal(spy.codes[3], spy.codes[3][..., source])


def test_the_oracle_keeps_what_changes_the_pixels_and_charges_nothing() -> None:
    generation, spy = run("oracle-tokens:keep=0.4,alpha=none,last=1")
    dense, text = tiny_infinity(), TextBatch(features(3, 3, 3).features[:3], (3,))
    reference = Run(dense, Settings(cfg=2.0), SeededNoise(7)).dense_run(text, (0,))
    before, after = (dense.decode(reference.canvases[k]) for k in (3, 4))
    energy = torch.nn.functional.interpolate((after - before).square().sum(1, keepdim=True), (5, 5), mode="area")
    assert set(energy.flatten().topk(10).indices.tolist()) == set(spy.masks[3, 0].nonzero().flatten().tolist())
    assert torch.equal(reference.image, Run(dense, Settings(cfg=2.0), SeededNoise(7)).generate(text, (0,)).image)
    random, _ = run("random-tokens:keep=0.4,alpha=none,last=1")
    assert generation.ledger.transformer_flops == random.ledger.transformer_flops


def test_random_tokens_differ_by_image_and_uniform_ones_do_not() -> None:
    _, spy = run("random-tokens:keep=0.4,last=1", (0, 1))
    assert not torch.equal(spy.masks[3, 0], spy.masks[3, 1])
    _, spy = run("uniform-tokens:keep=0.4,last=1", (0, 1))
    assert torch.equal(spy.masks[3, 0], spy.masks[3, 1])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sparsevar:block=4", "not one of the 4"), ("sparsevar:last=4", "at most 3"), ("sparsevar:tau=-1", "tau"),
        ("sparsevar:norm=sigmoid,last=3", "take last=2"), ("sparsevar:norm=min-max,last=3", "stage 1 has one"),
        ("sparsevar:tau=0.5,keep=0.3", "one of them"), ("sparsevar:tau=nan", "threshold"),
        ("sparsevar:keep=0", "share of the tokens"), ("sparsevar:keep=0.5/0.5", "2 shares for 3"),
        ("sparsevar:norm=means", "mean"), ("sparsevar:alpha=0", "alpha"), ("sparsevar:taus=1", "tau"),
        ("random-tokens", "lacks keep"), ("sparsvar", "sparsevar"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_work(spec: str, message: str) -> None:
    with pytest.raises(VarlabError, match=message):
        run(spec)


def test_a_map_without_contrast_is_no_score() -> None:
    method = SparseVAR(alpha=None, readings=Readings(norm="max"))
    model = tiny_infinity()
    method.start(Run(model, Settings(cfg=2.0), SeededNoise(7)).context)
    method.score, method.reference, method.grid = torch.zeros(1, 1, 9), torch.zeros(1, 1, 1), (3, 3)
    stage = Stage(3, model.schedule, (0,), StagePlan(), model.guidance(3, model.settings, True), True)
    with pytest.raises(VarlabError, match="changed all tokens by the same amount before stage 4"):
        method.plan(stage)


def test_a_batch_that_splits_tells_of_each_image() -> None:
    """SkipVAR drops another number of stages for each image; what SparseVAR computed stays with its image."""
    seen = split_run(always(0, 0).skip)[1]["skipvar"].variables["hf_ratio"][1]
    order = np.argsort(seen).tolist()
    low, middle, high = np.sort(seen).tolist()
    # Scores are lines over hf_ratio that cross between the images: 2, 1 or 0 stages dropped as it rises.
    first, second = (low + middle) / 2, (middle + high) / 2
    lines = ((0.0, 0.0), (0.0, 1.0), (0.0, 2.0))
    out, log = split_run(Classifier((0.0, 0.0), (1.0, 1.0), lines, (0.0, -first, -first - second), (2, 1, 0)))
    share = log["sparsevar"].variables["share"][1]
    assert len(out.states) == 3
    for drop, image in zip((2, 1, 0), order, strict=True):
        assert np.isnan(share[image]).sum() == drop
    kept = log["sparsevar/stage-07"].variables["kept"][1]
    alone = of_methods(run("sparsevar:keep=0.5,last=2", (order[2],), "long")[0].reports, (order[2],))
    assert np.array_equal(kept[order[2]], alone["sparsevar/stage-07"].variables["kept"][1][0])
    assert np.isnan(kept[order[0]]).all() and 0 < kept[order[1]].mean() < 1


def test_a_batch_that_splits_keeps_each_images_scores() -> None:
    method = SparseVAR(keep=0.5, last=1)
    method.start(Run(tiny_infinity(), Settings(cfg=2.0), SeededNoise(7)).context)
    method.score, method.reference = torch.arange(6.0).view(3, 1, 2), torch.ones(3, 1, 1)
    twin = method.fork(torch.tensor([2, 0]))
    assert twin.score[:, 0, 0].tolist() == [4, 0] and method.score.shape[0] == 3

"""SparseVAR's readings of what the paper leaves open, its baselines, and batches that split."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import features, tiny_infinity
from tests.sparsevar_runs import Spy, run
from varlab.accelerators import build
from varlab.accelerators.anchors import anchor_cells, anchor_mask, nearest_of, resize
from varlab.accelerators.decisions import Classifier, DecisionModel, always
from varlab.accelerators.skipvar import SkipVAR
from varlab.accelerators.sparsevar import Readings, SparseVAR, normalise
from varlab.engine import attend as attends
from varlab.engine.loop import Run
from varlab.engine.plan import StagePlan
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.infinity import TextBatch
from varlab.probes.log import Log, of_methods


def split_run(skip: Classifier) -> tuple[Generation, Log]:
    """Three images under SkipVAR and SparseVAR, each group going its own way."""
    model = DecisionModel("infinity", "random", 8, 0.86, skip, always(0, 0).uncond, {})
    text = TextBatch(features(3, 3, 3).features, (3, 3, 3))
    methods = build((SkipVAR(model=model), "sparsevar:keep=0.5,last=2"))
    out = Run(tiny_infinity("long"), Settings(cfg=2.0), SeededNoise(7)).generate(text, (0, 1, 2), methods)
    return out, of_methods(out.reports, (0, 1, 2))


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("mean", [0.5, 1.0, 1.5]), ("computed-mean", [0.25, 0.5, 0.75]), ("max", [1 / 3, 2 / 3, 1.0]),
        ("min-max", [0.0, 0.5, 1.0]), ("absolute", [1.0, 2.0, 3.0]),
        ("sigmoid", torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0])).tolist()),
    ],
)  # fmt: skip
def test_normalisers(norm: Any, expected: list[float]) -> None:
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
    assert torch.equal(
        reference.after(4, (0,)), Run(dense, Settings(cfg=2.0), SeededNoise(7)).generate(text, (0,)).image
    )
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
    with pytest.raises(VarlabError, match=r"same amount.*stage 4"):
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
    assert isinstance(twin, SparseVAR) and twin.score is not None
    assert twin.score[:, 0, 0].tolist() == [4, 0] and method.score.shape[0] == 3

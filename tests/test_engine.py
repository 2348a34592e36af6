"""Parts of the engine against brute force: selections, plans, caches, noise, ledger, splitting of batches."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import features, tiny_infinity
from tests.engine_runs import Keep, Logits, Split, run
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.engine.images import Images
from varlab.engine.kv import KVStore
from varlab.engine.loop import Run
from varlab.engine.plan import RUN, StagePlan, merge, select
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.models import layers
from varlab.models.guidance import Settings


def test_a_full_selection_is_none_and_an_empty_one_an_error() -> None:
    assert select(torch.ones(9, dtype=torch.bool)) is None
    assert select(torch.ones(2, 9, dtype=torch.bool)) is None
    with pytest.raises(VarlabError, match="keeps no token"):
        select(torch.zeros(9, dtype=torch.bool))


def test_ragged_selection_holds_its_mask() -> None:
    mask = torch.rand(4, 25, generator=torch.Generator().manual_seed(0)) > 0.6
    selection = select(mask)
    assert selection is not None and selection.valid is not None
    assert torch.equal(selection.mask, mask)


def test_merge_takes_the_stricter_plan_and_keeps_anchors() -> None:
    a = torch.tensor([1, 1, 0, 0, 1], dtype=torch.bool)
    b = torch.tensor([0, 1, 1, 0, 1], dtype=torch.bool)
    anchors = torch.tensor([1, 0, 0, 0, 0], dtype=torch.bool)
    plan = merge([StagePlan(selection=select(a, anchors), depth=3), StagePlan(selection=select(b), rows="cond")], 4)
    assert plan.selection is not None
    assert plan.selection.index.tolist() == [0, 1, 4]
    assert (plan.depth, plan.rows) == (3, "cond")
    assert merge([StagePlan("skip"), StagePlan("stop")], 4).action == "stop"


def test_plans_that_cannot_work_are_refused() -> None:
    with pytest.raises(VarlabError, match=r"Block 3.* 2 blocks"):
        merge([StagePlan(depth=2, watch=frozenset({3}))], 4)
    with pytest.raises(VarlabError, match="5 blocks"):
        merge([StagePlan(depth=5)], 4)
    with pytest.raises(VarlabError, match="different guidance"):
        merge([StagePlan(scale=2.0), StagePlan(scale=3.0)], 4)


def test_kept_tokens_see_what_dense_ones_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of a token subset equal a dense run in which the others' keys are masked out."""
    mask = torch.rand(25, generator=torch.Generator().manual_seed(1)) > 0.5
    sparse, dense = Logits(), Logits()
    run([Keep(mask)], probes=[sparse])

    def masked(q, k, v, mask_=None, scale=None):  # type: ignore[no-untyped-def]
        hidden = None
        if q.shape[2] == 25:
            hidden = torch.cat([torch.ones(k.shape[2] - 25, dtype=torch.bool), mask])[None, None, None]
        return layers.attention(q, k, v, hidden, scale)

    monkeypatch.setattr("varlab.engine.attend.attention", masked)
    run(probes=[dense])
    assert torch.allclose(sparse.seen[3], dense.seen[3][:, mask], atol=1e-5)


def test_a_ragged_batch_equals_its_samples_alone() -> None:
    masks = torch.rand(2, 25, generator=torch.Generator().manual_seed(2)) > torch.tensor([[0.3], [0.7]])
    both = run([Keep(masks)])
    model = tiny_infinity()
    text = features(3, 5)
    for i, rows in enumerate(text.features.split(text.lengths)):
        alone = Run(model, Settings(cfg=2.0), SeededNoise(7)).generate(
            type(text)(rows, (len(rows),)), (i,), [Keep(masks[i])]
        )
        assert torch.allclose(both.canvas[i], alone.canvas[0], atol=1e-5)


def test_a_batch_is_split_by_plan_and_joined_in_order() -> None:
    mixed = run([Split()])
    stopped, last = run([Split()], lengths=(3,)), run()
    assert [state.samples for state in mixed.states] == [(0,), (1,)]
    assert torch.allclose(mixed.canvas[0], stopped.canvas[0], atol=1e-5)
    assert not torch.allclose(mixed.canvas[1], last.canvas[1], atol=1e-5)
    assert [work.images for work in mixed.ledger.stages] == [2, 2, 2, 2]
    assert [work.tokens for work in mixed.ledger.stages] == [2, 8, 9, 25]


def test_dropped_rows_equal_guidance_one_with_the_same_prefix() -> None:
    from varlab.accelerators.baselines import CfgOff

    a, b = Logits(), Logits()
    run([CfgOff(1)], probes=[a])
    run(probes=[b], cfg=(2.0, 2.0, 2.0, 1.0))
    assert torch.allclose(a.seen[3], b.seen[3], atol=1e-5)


def test_a_dropped_branch_cannot_come_back() -> None:
    class Back(Accelerator):
        name = "back"

        def plan(self, stage: Stage) -> StagePlan:
            return (RUN, StagePlan(rows="cond"), StagePlan(rows="both"), RUN)[stage.index]

    with pytest.raises(VarlabError, match=r"Stage 3.*guidance rows"):
        run([Back()])


def test_the_cost_of_deciding_is_in_the_ledger() -> None:
    class Looks(Accelerator):
        name = "looks"

        def start(self, context: Context) -> None:
            self.context = context

        def end_stage(self, stage: Stage, images: Images) -> None:
            if stage.index == 1:
                self.context.preview(images.canvas, (2, 2), stage, charge=True)

    plain, looking = run().ledger, run([Looks()]).ledger
    spent = 2 * tiny_infinity().decode_cost((2, 2)).total
    assert looking.stages[1].overhead_flops == spent
    assert looking.transformer_flops == plain.transformer_flops + spent


def test_depth_and_skip_leave_caches_of_different_length() -> None:
    class Shallow(Accelerator):
        name = "shallow"

        def plan(self, stage: Stage) -> StagePlan:
            return (RUN, StagePlan(depth=2), StagePlan("skip"), RUN)[stage.index]

    out = run([Shallow()])
    assert out.states[0].kv.lengths == [1 + 4 + 25, 1 + 4 + 25, 1 + 25, 1 + 25]
    assert out.ledger.stages[2].tokens == 0 and out.ledger.engaged


def test_the_kv_store_refuses_more_than_its_capacity() -> None:
    store = KVStore(1, 4)
    tokens = torch.zeros(2, 1, 3, 4)
    store.append(0, tokens, tokens, None)
    assert store.bytes == 2 * 2 * 3 * 4 * 4
    with pytest.raises(VarlabError, match=r"4 tokens.* 6"):
        store.append(0, tokens, tokens, None)


def test_noise_does_not_depend_on_the_batch() -> None:
    noise = SeededNoise(3)
    both = noise.uniform("labels", 2, [4, 9], (5, 3))
    assert torch.equal(both[1], noise.uniform("labels", 2, [9], (5, 3))[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both, noise.uniform("labels", 3, [4, 9], (5, 3)))


@pytest.mark.parametrize("patchify", [False, True])
def test_the_ledger_equals_a_count_of_every_operation(patchify: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(q, k, v, mask=None, scale=None):  # type: ignore[no-untyped-def]
        """Two visible matrix products in place of the fused kernel, which the counter does not see on CPU."""
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1) @ v

    monkeypatch.setattr("varlab.engine.attend.attention", plain)
    monkeypatch.setattr("varlab.models.infinity.attention", plain)
    for accelerator in ([], [Keep(torch.arange(25) % 3 == 0)]):
        with FlopCounterMode(display=False) as counter:
            out = run(accelerator, model=tiny_infinity(patchify=patchify))
        ledger = out.ledger
        assert counter.get_total_flops() == ledger.transformer_flops + ledger.decode_flops


def test_pairs_and_tokens_by_hand() -> None:
    ledger = run().ledger
    ends = (1, 5, 14, 39)
    for work, tokens, end in zip(ledger.stages, (1, 4, 9, 25), ends, strict=True):
        assert work.token_blocks == work.dense_token_blocks == tokens * 4 * 4  # 4 blocks, 2 images x 2 branches
        assert work.row_blocks == 4 * 4
        assert work.pairs == tokens * end * 4 * 4
        assert work.kv_bytes == 2 * 4 * 4 * min(end, 14) * 64 * 4  # the last stage's are not kept

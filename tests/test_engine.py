"""Parts of the engine against brute force: selections, plans, caches, noise, ledger, splitting of batches."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import features, tiny_infinity
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator, Compute, Probe
from varlab.engine.images import Images
from varlab.engine.kv import KVStore
from varlab.engine.loop import Run
from varlab.engine.plan import RUN, Selection, StagePlan, merge, select
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError
from varlab.models import layers
from varlab.models.guidance import Settings


class Keep(Accelerator):
    """Computes only the positions of a mask in the last stage; the rest takes a zero code."""

    name = "keep"

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask = mask

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan(selection=select(self.mask)) if stage.from_end == 0 else RUN

    def complete(self, stage: Stage, codes: torch.Tensor, selection: Selection) -> torch.Tensor:
        full = codes.new_zeros(stage.batch, selection.length, codes.shape[-1])
        index = selection.index.expand(stage.batch, -1)
        if selection.valid is not None:
            codes = codes * selection.valid[..., None]
            return full.scatter_add(1, index[..., None].expand_as(codes), codes)
        return full.scatter(1, index[..., None].expand_as(codes), codes)


class Logits(Probe):
    def __init__(self) -> None:
        self.seen: dict[int, torch.Tensor] = {}

    def on_logits(self, stage, cond, uncond, guided, labels) -> None:  # type: ignore[no-untyped-def]
        self.seen[stage.index] = guided.clone()


def run(accelerators=(), lengths=(3, 5), probes=(), model=None, **settings):  # type: ignore[no-untyped-def]
    model = model or tiny_infinity()
    made = Run(model, Settings(**{"cfg": 2.0, **settings}), SeededNoise(7), probes)
    return made.generate(features(*lengths), range(len(lengths)), accelerators)


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
    with pytest.raises(VarlabError, match="Block 3 is to be read but only 2 blocks run"):
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


class Split(Accelerator):
    """Image 0 stops after two stages; image 1 loses its unconditional row in the last one."""

    name = "split"

    def plan(self, stage: Stage) -> StagePlan | list[StagePlan]:
        plans = {0: StagePlan("stop"), 1: StagePlan(rows="cond") if stage.from_end == 0 else RUN}
        return [plans[i] for i in stage.samples] if stage.index >= 2 else RUN


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

    with pytest.raises(VarlabError, match="Stage 3 asks for both guidance rows"):
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
    with pytest.raises(VarlabError, match="holds 4 tokens and 6 are needed"):
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


def test_an_unfilled_selection_and_two_fillers_are_refused() -> None:
    class NoFill(Keep):
        complete = Accelerator.complete

    mask = torch.arange(25) % 2 == 0
    with pytest.raises(VarlabError, match="nothing fills the rest"):
        run([NoFill(mask)])
    with pytest.raises(VarlabError, match="cannot run together"):
        run([Keep(mask), Keep(mask)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cfg": (2.0, 2.0)}, "cfg has 2 values"),
        ({"tau": 0.0}, "tau must be above 0"),
        ({"top_p": 1.5}, "top_p"),
        ({"cfg_layers": (-4,)}, "cfg_layers"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(VarlabError, match=message):
        run(**settings)


class Rows(Accelerator):
    """At the last stage every branch of block 1 runs on other tokens in every row; the rest gets nothing added."""

    name = "rows"

    def __init__(self, keep: torch.Tensor) -> None:
        self.keep = keep  # [R, n]

    def sublayer(self, site: Site, x: torch.Tensor, compute: Compute) -> torch.Tensor:
        if site.stage.from_end or site.block != 1:
            return compute(x)
        y = compute(x, chosen=self.keep)
        return torch.zeros_like(x).scatter(1, self.keep[..., None].expand_as(y), y)


def test_rows_may_keep_other_tokens_at_a_sublayer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equals a dense branch whose other keys are hidden and whose other outputs are thrown away."""
    generator = torch.Generator().manual_seed(4)
    mask = torch.zeros(4, 25, dtype=torch.bool)
    for row in mask:
        row[torch.randperm(25, generator=generator)[:10]] = True
    keep = mask.int().argsort(dim=1, descending=True, stable=True)[:, :10].sort(1).values
    sparse, dense = Logits(), Logits()
    out = run([Rows(keep)], probes=[sparse])
    blocks = {"seen": 0}

    def masked(q, k, v, mask_=None, scale=None):  # type: ignore[no-untyped-def]
        hidden = None
        if q.shape[2] == 25 and scale == 1.0:
            blocks["seen"] += 1
            if blocks["seen"] == 2:
                past = torch.ones(4, k.shape[2] - 25, dtype=torch.bool)
                hidden = torch.cat([past, mask], 1)[:, None, None]
            if blocks["seen"] > 2:  # later blocks see all again
                hidden = None
        return layers.attention(q, k, v, hidden, scale)

    class ThrowAway(Accelerator):
        name = "throw-away"

        def sublayer(self, site: Site, x: torch.Tensor, compute: Compute) -> torch.Tensor:
            y = compute(x)
            return y * mask[..., None] if site.stage.from_end == 0 and site.block == 1 else y

    monkeypatch.setattr("varlab.engine.attend.attention", masked)
    run([ThrowAway()], probes=[dense])
    assert torch.allclose(sparse.seen[3], dense.seen[3], atol=1e-5)
    assert out.states[0].kv.lengths == [39, 14 + 10, 39, 39]
    assert out.ledger.engaged


def test_skipping_a_branch_engages() -> None:
    class NoFeedForward(Accelerator):
        name = "no-ffn"

        def sublayer(self, site: Site, x: torch.Tensor, compute: Compute) -> torch.Tensor:
            return torch.zeros_like(x) if site.sublayer == "ffn" else compute(x)

    assert run([NoFeedForward()]).ledger.engaged and not run().ledger.engaged


def test_previews_of_two_canvases_differ() -> None:
    class Two(Accelerator):
        name = "two"

        def start(self, context: Context) -> None:
            self.context, self.old, self.pairs = context, None, []

        def end_stage(self, stage: Stage, images: Images) -> None:
            if self.old is not None:
                old, new = (self.context.preview(canvas, (2, 2), stage) for canvas in (self.old, images.canvas))
                self.pairs.append(torch.equal(old, new))
            self.old = images.canvas

    method = Two()
    run([method])
    assert method.pairs == [False, False, False]


def test_choice_can_be_injected() -> None:
    ones = tiny_infinity()
    out = Run(ones, Settings(cfg=2.0), SeededNoise(7), choose=lambda guided: torch.ones(guided.shape[:-1]) > 0)
    canvas = out.generate(features(3), (0,)).canvas
    assert torch.allclose(canvas, torch.full_like(canvas, 4 * 4**-0.5))  # four stages of +1/sqrt(bits)


def test_plans_that_would_be_misread_are_refused() -> None:
    class Plan(Accelerator):
        name = "plan"

        def __init__(self, plan: StagePlan) -> None:
            self.given = plan

        def plan(self, stage: Stage) -> StagePlan:
            return self.given if stage.from_end == 0 else RUN

    class Twice(Accelerator):
        name = "twice"

        def sublayer(self, site: Site, x: torch.Tensor, compute: Compute) -> torch.Tensor:
            return compute(x) + compute(x)

    with pytest.raises(VarlabError, match="over 9 tokens cannot serve stage 4"):
        run([Plan(StagePlan(selection=select(torch.arange(9) < 4)))])
    with pytest.raises(VarlabError, match="only 2 blocks run"):
        run([Plan(StagePlan(depth=2))], cfg_layers=(-1,))
    with pytest.raises(VarlabError, match="computed twice"):
        run([Twice()])


def test_forks_own_their_containers_and_reports_come_back() -> None:
    class Notes(Split):
        name = "notes"

        def start(self, context: Context) -> None:
            self.seen: list[tuple[int, ...]] = []

        def end_stage(self, stage: Stage, images: Images) -> None:
            self.seen.append(stage.samples)

        def report(self) -> dict[str, object]:
            return {"seen": self.seen}

    reports = run([Notes()]).reports
    assert reports[(0,)]["notes"]["seen"] == [(0, 1), (0, 1)]
    assert reports[(1,)]["notes"]["seen"] == [(0, 1), (0, 1), (1,), (1,)]

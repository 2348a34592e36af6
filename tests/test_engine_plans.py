"""Plans, rows and forks of the engine."""

import pytest
import torch

from tests.conftest import features, tiny_infinity
from tests.engine_runs import Keep, Logits, Split, run
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator, Compute
from varlab.engine.images import Images
from varlab.engine.loop import Run
from varlab.engine.plan import RUN, StagePlan, select
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError
from varlab.models import layers
from varlab.models.guidance import Settings


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
        old: torch.Tensor | None

        def start(self, context: Context) -> None:
            self.context, self.old, self.pairs = context, None, list[bool]()

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

    with pytest.raises(VarlabError, match=r"9 tokens.*stage 4"):
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

"""Runs that share their beginning are, bit for bit and in their account, the runs that their methods make alone."""

import numpy as np
import pytest
import torch

from tests.conftest import text_for, tiny_hart, tiny_infinity, tiny_var
from varlab.comparison import methods_of
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import may_share, shared_runs
from varlab.errors import VarlabError

SPECS = [
    "none",
    "truncate:last=1",
    "truncate:last=2",
    "cfg-off:last=1",
    "cfg-off:last=3",
    "truncate:last=1+cfg-off:last=3",
    "truncate:last=1+cfg-off:last=1",  # the stage without guidance is the one that is dropped
    "random-tokens:keep=0.5,last=2,alpha=none",
    "uniform-tokens:keep=0.5,last=1,alpha=none",
    "random-tokens:keep=0.5,last=2,alpha=none+cfg-off:last=3",
    "freqexit:exits=1",
    "sparsevar:keep=0.5,last=1,alpha=none",
    "sparsevar:keep=0.5,last=2,alpha=none,block=1",
    "sparsevar:keep=0.5,last=2,alpha=none,block=1+cfg-off:last=2",  # listens to the rows that are left
    "sparsevar:tau=0.9,last=2,alpha=none",
    "random-tokens:keep=1,last=1",  # the dense run to its end
]


@pytest.mark.parametrize("make", [tiny_infinity, tiny_hart, tiny_var])
def test_each_run_is_the_run_alone(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    lengths, samples = [3, 5, 2], [4, 5, 6]

    def run() -> Run:
        return Run(model, model.settings, SeededNoise(3))

    text = text_for(model, lengths, range(3))
    found = dict(shared_runs(run(), text, samples, {spec: methods_of(spec) for spec in SPECS}))
    assert sorted(found) == sorted(SPECS)
    for spec, out in found.items():
        alone = run().generate(text_for(model, lengths, range(3)), samples, methods_of(spec))
        assert torch.equal(out.image, alone.image), spec
        assert out.ledger == alone.ledger, spec
        np.testing.assert_equal(out.reports, alone.reports, spec)  # of every stage
    assert not torch.equal(found["none"].image, found["cfg-off:last=1"].image)


def test_methods_that_cannot_share_say_so() -> None:
    assert all(may_share(methods_of(spec)) for spec in SPECS)
    for spec in ("fastvar", "oracle-tokens:keep=0.5,last=1", "skipvar", "truncate:last=1+skipvar"):
        assert not may_share(methods_of(spec)), spec  # they listen before they act


def test_what_is_shared_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = tiny_infinity(), list[int]()
    plain = Run.run_stage

    def counted(self: Run, state, k: int, plan) -> None:  # type: ignore[no-untyped-def]
        calls.append(k)
        plain(self, state, k, plan)

    monkeypatch.setattr(Run, "run_stage", counted)
    specs = ["none", "truncate:last=1", "truncate:last=3", "cfg-off:last=2", "truncate:last=1+cfg-off:last=2"]
    run = Run(model, model.settings, SeededNoise(0))
    assert len(dict(shared_runs(run, text_for(model, [3], [0]), [0], {spec: methods_of(spec) for spec in specs}))) == 5
    assert sorted(calls) == [0, 1, 2, 2, 3, 3]  # four stages, the last two of them with guidance and without


def test_a_method_that_plans_each_image_is_refused() -> None:
    model = tiny_infinity("long")

    class Apart(type(methods_of("truncate:last=1")[0])):  # type: ignore[misc]
        def plan(self, stage):  # type: ignore[no-untyped-def]
            return [super().plan(stage)] * stage.batch

    with pytest.raises(VarlabError, match="plans each image by itself"):
        run = Run(model, model.settings, SeededNoise(0))
        list(shared_runs(run, text_for(model, [3], [0]), [0], {"apart": [Apart(1)]}))

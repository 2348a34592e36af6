"""Many runs of the same images whose first stages are the same: what they share is computed once.

A run that drops the last two stages and one that drops the last three are the dense run until there. The runs of a
batch form a tree, walked depth first; each is bit for bit the run that its methods make alone, and so is its ledger.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from varlab.engine.counting import count_dense
from varlab.engine.hooks import Accelerator, overrides
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.engine.plan import StagePlan, merge
from varlab.engine.state import Generation, State
from varlab.errors import VarlabError

Methods = Mapping[str, Sequence[Accelerator]]


def may_share(methods: Sequence[Accelerator]) -> bool:
    """Whether none of them acts or listens before its plans leave the dense run.

    A blind one that wraps the sublayers acts there whatever it plans, unless it says that it waits.
    """
    return all(m.waits or (m.blind and not overrides(m, "sublayer", Accelerator)) for m in methods)


def shared_runs(run: Run, text: Any, samples: Sequence[int], methods: Methods) -> Iterator[tuple[str, Generation]]:
    """(name, what ``run.generate`` gives with these methods), in the order of the tree.

    Only for methods that are blind or wait (see ``may_share``): until two plans differ, they hear only where stages
    end.
    Memory: one more canvas, not one more store, for each run that is open.
    Raises VarlabError for a method that plans each image by itself.
    """
    walk = _begun(run, text, samples, methods)
    while True:
        with run.torch_settings():  # of one step: between two the caller has its own torch
            item = next(walk, None)
        if item is None:
            return
        yield item


def _begun(run: Run, text: Any, samples: Sequence[int], methods: Methods) -> Iterator[tuple[str, Generation]]:
    for method in (method for joined in methods.values() for method in joined):
        method.start(run.context)
    run.context.ledger = Ledger.of(len(run.model.schedule))
    yield from _walk(run, run.begin(text, samples), 0, run.ledger, methods)


def _walk(run: Run, state: State, k: int, spent: Ledger, methods: Methods) -> Iterator[tuple[str, Generation]]:
    """All runs that go on from this state, which has cost ``spent``."""
    stages = len(run.model.schedule)
    ends = [(StagePlan("stop"), Ledger.of(stages), methods)]
    for plan, charged, group in _parting(run, state, k, methods) if k < stages else ends:
        run.context.ledger = charged
        own = state.with_methods(list(next(iter(group.values()))))
        if plan.action == "stop":
            for later in range(k, stages):
                count_dense(run.context, own, later)
            out = run.finish(state.samples, [own])
            out.ledger = spent + run.ledger
            yield from ((name, replace(out, states=[replace(own, accelerators=[*group[name]])])) for name in group)
            continue
        count_dense(run.context, own, k)
        if plan.action == "run":
            run.run_stage(own, k, plan)
            for method in (method for joined in list(group.values())[1:] for method in joined):  # the first has heard
                method.end_stage(run.stage(own, k, plan), own)
        yield from _walk(run, own, k + 1, spent + run.ledger, group)


def _parting(run: Run, state: State, k: int, methods: Methods) -> list[tuple[StagePlan, Ledger, Methods]]:
    """The methods by what they plan for a stage, and what planning cost; whoever leaves tokens out or listens goes
    alone."""
    stage = run.stage(state, k)
    groups: dict[Any, tuple[StagePlan, Ledger, dict[str, Sequence[Accelerator]]]] = {}
    for name, joined in methods.items():
        run.context.ledger = Ledger.of(len(run.model.schedule))
        plans = [method.plan(stage) for method in joined]
        if any(isinstance(plan, list) for plan in plans):
            raise VarlabError(f"{name} plans each image by itself and cannot share a run with others.")
        plan = merge([plan for plan in plans if isinstance(plan, StagePlan)], run.model.depth)
        same = plan.selection is None and not plan.watch
        key = (plan.action, plan.depth, plan.rows, plan.scale, "" if same else name)
        groups.setdefault(key, (plan, run.ledger, {}))[2][name] = joined
    return list(groups.values())

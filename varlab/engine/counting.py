"""The run's own account: the work of every branch that ran, and that of a run without accelerators."""

from typing import TYPE_CHECKING

from varlab.engine.attend import groups
from varlab.engine.stage import Site
from varlab.engine.state import State

if TYPE_CHECKING:
    from varlab.engine.loop import Run


def count(run: "Run", state: State, site: Site, tokens: int, keys: int) -> None:
    work = run.ledger.stages[site.stage.index]
    first = site.sublayer == run.model.sublayers[0]
    work.block_calls += first
    prefix, equal = run.model.prefix(site.stage.index), state.kv.equal_prefix[site.block]
    for rows, own, seen in groups(state.batch, state.guided, tokens, keys, prefix, equal):
        cost = run.model.sublayer_cost(str(site.sublayer), own, seen, state.conditioning)
        work.linear_flops += cost.linear * rows
        work.attention_flops += cost.attention * rows
        work.pairs += own * seen * rows
        work.row_blocks += rows if first else 0
        work.token_blocks += own * rows if first else 0


def count_dense(run: "Run", state: State, k: int) -> None:
    """What a run without accelerators would have computed, to tell whether one engaged."""
    work, grid_tokens = run.ledger.stages[k], run.model.schedule.lengths[k]
    tokens = grid_tokens + run.model.prefix(k)
    keys = run.model.schedule.ends[k] + sum(map(run.model.prefix, range(k + 1)))
    guided = run.model.guided(run.settings)
    guidance = run.model.guidance(k, run.settings, guided)
    head_rows = state.batch * (2 if guided and guidance.on_logits and guidance.scale != 1 else 1)
    work.images += state.batch
    work.grid_tokens += grid_tokens * state.batch
    for rows, own, seen in groups(state.batch, guided, tokens, keys, run.model.prefix(k), run.model.equal_prefix):
        costs = [run.model.sublayer_cost(name, own, seen, state.conditioning) for name in run.model.sublayers]
        work.dense_token_blocks += own * run.model.depth * rows
        work.dense_flops += sum(cost.total for cost in costs) * run.model.depth * rows
    work.dense_flops += run.model.stage_cost(k, grid_tokens, state.batch, head_rows, run.settings).total

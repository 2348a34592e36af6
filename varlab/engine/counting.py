"""The run's own account: the work of every sublayer that ran, and that of a run without accelerators."""

from varlab.engine.attend import groups
from varlab.engine.context import Context
from varlab.engine.images import Images
from varlab.engine.stage import Site


def count(context: Context, images: Images, site: Site, tokens: int, keys: int) -> None:
    work = context.ledger.stages[site.stage.index]
    first = site.sublayer == context.model.sublayers[0]
    work.block_calls += first
    prefix, equal = context.model.prefix(site.stage.index), images.kv.equal_prefix[site.block]
    for rows, own, seen in groups(images.batch, images.guided, tokens, keys, prefix, equal):
        cost = context.model.sublayer_cost(str(site.sublayer), own, seen, images.conditioning)
        work.linear_flops += cost.linear * rows
        work.attention_flops += cost.attention * rows
        work.pairs += own * seen * rows
        work.row_blocks += rows if first else 0
        work.token_blocks += own * rows if first else 0


def count_dense(context: Context, images: Images, k: int) -> None:
    """What a run without accelerators would have computed, to tell whether one engaged."""
    model, work = context.model, context.ledger.stages[k]
    grid_tokens = model.schedule.lengths[k]
    tokens = grid_tokens + model.prefix(k)
    keys = model.schedule.ends[k] + sum(map(model.prefix, range(k + 1)))
    guided = model.guided(context.settings)
    guidance = model.guidance(k, context.settings, guided)
    head_rows = images.batch * (2 if guided and guidance.on_logits and guidance.scale != 1 else 1)
    work.images += images.batch
    work.grid_tokens += grid_tokens * images.batch
    for rows, own, seen in groups(images.batch, guided, tokens, keys, model.prefix(k), model.equal_prefix):
        costs = [model.sublayer_cost(name, own, seen, images.conditioning) for name in model.sublayers]
        work.dense_token_blocks += own * model.depth * rows
        work.dense_flops += sum(cost.total for cost in costs) * model.depth * rows
    work.dense_flops += model.stage_cost(k, grid_tokens, images.batch, head_rows, context.settings).total

"""The sampling loop: one for all families, accelerators and probes.

Tensors are written over where nobody but the loop holds them: what a branch returns becomes the stream where no probe
and no method listens, and layers reuse their own (GELU, gates, rotation, see ``models.layers``). A torch forward hook
of your own that keeps what it is handed must therefore clone it; probes are told before anything is written over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from varlab.engine.attend import attend_rows, groups
from varlab.engine.dense import CanvasKeeper, Dense
from varlab.engine.hooks import Accelerator, Probe, overrides
from varlab.engine.kv import KVStore
from varlab.engine.ledger import Ledger
from varlab.engine.memory import keep_freed_pages, upload
from varlab.engine.norms import norms
from varlab.engine.plan import StagePlan, merge
from varlab.engine.randomness import Noise
from varlab.engine.rows import key_bias, part, pass_bias, row_index, take
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError
from varlab.models.base import Alike, Draw, Law, NextScaleModel, Reading
from varlab.models.guidance import Settings
from varlab.schedules import Grid

Mark = Callable[[str, int], None]  # the span that ends here: text, plan, transformer, sampling or decode; the stage
Forced = Mapping[int, Tensor]  # stage -> labels [all images, h*w, d] used in place of the drawn ones


@dataclass
class State:
    """A group of images on their way through the stages."""

    samples: tuple[int, ...]
    conditioning: Any
    canvas: Tensor
    kv: KVStore
    guided: bool
    accelerators: list[Accelerator]
    stages_run: int = 0
    attended: dict[int, int] = field(default_factory=dict)  # block -> the last stage whose keys it holds

    @property
    def batch(self) -> int:
        return len(self.samples)

    @property
    def rows(self) -> int:
        return self.batch * (2 if self.guided else 1)

    def fork(self, keep: list[int]) -> "State":
        """The state of some of the images, on its own from here on."""
        samples = torch.tensor(keep, device=self.canvas.device)
        rows = torch.cat([samples, samples + self.batch]) if self.guided else samples
        return replace(
            self,
            samples=tuple(self.samples[i] for i in keep),
            conditioning=self.conditioning.rows(rows),
            canvas=self.canvas[samples],
            kv=self.kv.rows(rows),
            accelerators=[a.fork(samples) for a in self.accelerators],
            attended=dict(self.attended),
        )

    def set_rows(self, plan: StagePlan, k: int) -> None:
        """Drop the unconditional branch if asked to. One way: its keys would be stale if it came back."""
        if plan.rows == "both" and not self.guided:
            raise VarlabError(
                f"Stage {k + 1} asks for both branches, but the unconditional one is gone for these images."
            )
        if plan.rows == "cond" and self.guided:
            rows = torch.arange(self.batch, device=self.canvas.device)
            self.conditioning, self.kv, self.guided = self.conditioning.rows(rows), self.kv.rows(rows), False


@dataclass
class Generation:
    """``image`` [B, 3, H, W] in [0, 1] and ``canvas`` in the order of the samples; the groups' last states."""

    image: Tensor
    canvas: Tensor
    ledger: Ledger
    states: list[State]

    @property
    def reports(self) -> dict[tuple[int, ...], dict[str, dict[str, Any]]]:
        """Images of a group -> method -> what it has to tell (keep ratios, decisions)."""
        return {state.samples: {a.name: a.report() for a in state.accelerators} for state in self.states}


@dataclass
class Run:
    """Everything that is fixed for a batch, and the loop itself."""

    model: NextScaleModel
    settings: Settings
    noise: Noise
    probes: Sequence[Probe] = ()
    forced: Forced = field(default_factory=dict)
    choose: Callable[[Tensor], Tensor] | None = None  # guided logits -> labels, in place of the model's draw
    on_progress: Callable[[Stage], None] | None = None
    on_mark: Mark = lambda span, stage: None
    keep_keys: bool = False  # of the last stage too, for those who read the store afterwards

    def __post_init__(self) -> None:
        self.settings.check(len(self.model.schedule), self.model.depth)
        self.ledger = Ledger.of(len(self.model.schedule))
        self._previewed: tuple[Tensor, Grid, Tensor] | None = None
        self._lengths = WeakTensorKeyDictionary()
        self.dense: Dense | None = None
        self.branch_probes = [p for p in self.probes if overrides(p, "on_branch", Probe)]
        self.block_probes = [p for p in self.probes if overrides(p, "on_block", Probe)]

    def preview(self, canvas: Tensor, grid: Grid, stage: Stage, charge: bool = False) -> Tensor:
        """Images [B, 3, h, w] of the canvas resized to a latent grid; hooks that ask for the same one share it.

        An accelerator that decides by it says ``charge``: the decode then counts as its overhead.
        """
        if charge:
            self.charge(stage, self.model.decode_cost(grid).total * stage.batch)
        if self._previewed is None or self._previewed[0] is not canvas or self._previewed[1] != grid:
            self._previewed = (canvas, grid, self.model.decode(self.model.resize(canvas, grid)))
        return self._previewed[2]

    def lengths(self, x: Tensor) -> Tensor:
        """Norms over channels of tokens [R, n, C] -> [R, n]; hooks that ask for the same tensor share them."""
        if x not in self._lengths:
            self._lengths[x] = torch.linalg.vector_norm(x, dim=-1)
        return self._lengths[x]

    def all_lengths(self, tokens: Sequence[Tensor]) -> Sequence[Tensor]:
        """``lengths`` of several tensors of one shape."""
        new = list({id(x): x for x in tokens if x not in self._lengths}.values())
        self._lengths.update(zip(new, norms(new), strict=True))
        return [self.lengths(x) for x in tokens]

    def charge(self, stage: Stage, flops: int) -> None:
        """Work that an accelerator spends on scores, fills and decisions."""
        self.ledger.stages[stage.index].overhead_flops += flops

    @torch.inference_mode()
    def generate(
        self,
        text: Any,
        samples: Sequence[int],
        accelerators: Sequence[Accelerator] = (),
        negative: Any = None,
        dense: Dense | None = None,
    ) -> Generation:
        """Images ``samples`` (their numbers key the noise) for as many prompts or text features.

        ``dense``: the dense run of the same images, for methods that need one; made here where it is not given.
        """
        _refuse_clashes(accelerators)
        for accelerator in accelerators:  # first of all: what cannot run is refused before any work
            accelerator.start(self)
        if self.model.device.type == "cpu":
            keep_freed_pages()
        if any("dense" in accelerator.needs for accelerator in accelerators):
            self.dense = self.dense_run(text, samples, negative) if dense is None else dense
        guided = self.model.guided(self.settings)
        conditioning = self.model.prepare(text, guided, negative)
        self.ledger.text_flops += self.model.text_cost(conditioning).total
        self.on_mark("text", 0)
        for probe in self.probes:
            probe.start(self)
        state = State(
            samples=tuple(samples),
            conditioning=conditioning,
            canvas=self.model.new_canvas(len(samples)),
            kv=KVStore(self.model.depth, self.model.kv_capacity if self.keep_keys else self.model.kept_keys),
            guided=guided,
            accelerators=list(accelerators),
        )
        finished: list[State] = []
        self._advance(state, 0, finished)
        return self._finish(tuple(samples), finished)

    def dense_run(self, text: Any, samples: Sequence[int], negative: Any = None) -> Dense:
        """The same images without accelerators, with all their canvases; outside this run's ledger."""
        keeper = CanvasKeeper()
        out = Run(self.model, self.settings, self.noise, [keeper], self.forced, self.choose).generate(
            text, samples, negative=negative
        )
        earlier = [self.model.decode(canvas) for canvas in keeper.canvases[:-1]]
        return Dense(tuple(samples), keeper.canvases, [*earlier, out.image])

    def _finish(self, samples: tuple[int, ...], finished: list[State]) -> Generation:
        order = {image: i for i, image in enumerate(samples)}
        back = torch.tensor([order[image] for state in finished for image in state.samples])
        canvas = torch.cat([state.canvas for state in finished])[upload(back.argsort(), self.model.device)]
        last = len(self.model.schedule) - 1
        self.on_mark("plan", last)
        image = self.model.decode(canvas)
        self.on_mark("decode", last)
        grid = (int(canvas.shape[-2]), int(canvas.shape[-1]))
        self.ledger.decode_flops += self.model.decode_cost(grid).total * len(samples)
        for probe in self.probes:
            probe.on_image(samples, image)
        return Generation(image, canvas, self.ledger, finished)

    def _advance(self, state: State, k: int, finished: list[State], given: StagePlan | None = None) -> None:
        """Run the stages from k on; a batch whose plans differ is split and its parts go on alone."""
        while k < len(self.model.schedule):
            groups = {tuple(range(state.batch)): given} if given is not None else self._plan(state, k)
            if len(groups) > 1:
                for keep, plan in groups.items():
                    self._advance(state.fork(list(keep)), k, finished, plan)
                return
            plan, given = next(iter(groups.values())), None
            assert plan is not None
            if self.model.prefix(k) and (plan.action != "run" or plan.selection is not None):
                raise VarlabError(
                    f"Stage {k + 1} carries the text of {self.model.name} and runs whole: skip or prune later stages."
                )
            self._count_dense(state, k)
            if plan.action == "stop":
                for later in range(k + 1, len(self.model.schedule)):
                    self._count_dense(state, later)
                break
            if plan.action == "run":
                self._run_stage(state, k, plan)
            k += 1
        finished.append(state)

    def _plan(self, state: State, k: int) -> dict[tuple[int, ...], StagePlan | None]:
        """Merged plans by group of positions within the batch."""
        stage = self._stage(state, k, StagePlan())
        answers = [a.plan(stage) for a in state.accelerators]
        shared = [answer for answer in answers if isinstance(answer, StagePlan)]
        if len(shared) == len(answers):
            return {tuple(range(state.batch)): merge(shared, self.model.depth)}
        groups: dict[Any, list[int]] = {}
        for i in range(state.batch):
            key = tuple(id(a) if not isinstance(a, list) else a[i] for a in answers)
            groups.setdefault(key, []).append(i)
        return {tuple(keep): merge([part(a, keep) for a in answers], self.model.depth) for keep in groups.values()}

    def _stage(self, state: State, k: int, plan: StagePlan) -> Stage:
        guidance = self.model.guidance(k, self.settings, state.guided, plan.scale)
        return Stage(k, self.model.schedule, state.samples, plan, guidance, state.guided)

    def _run_stage(self, state: State, k: int, plan: StagePlan) -> None:
        state.set_rows(plan, k)
        stage = self._stage(state, k, plan)
        stage = replace(stage, turns=self.model.turns(k, self.settings, self._noise(stage, None)))
        self._check(stage)
        self.on_mark("plan", k)
        index = row_index(stage, state.rows)
        x = self.model.embed(k, state.canvas, state.conditioning, index)
        for probe in self.probes:
            probe.on_stage(stage, self._on_grid(stage, x))
        x = self._on_grid(stage, self._blocks(state, stage, x, index))
        codes = self._codes(state, stage, x)
        residual = self.model.code_map(k, codes)
        before = state.canvas
        state.canvas = self.model.accumulate(k, before, residual)
        self.on_mark("sampling", k)
        state.stages_run += 1
        self.ledger.stages[k].tokens += x.shape[1] * state.batch
        for probe in self.probes:
            probe.on_residual(stage, residual, before, state.canvas)
        for accelerator in state.accelerators:
            accelerator.end_stage(stage, state)
        self.ledger.stages[k].kv_bytes += state.kv.bytes
        if self.on_progress is not None:
            self.on_progress(stage)

    def _check(self, stage: Stage) -> None:
        """Plans that would be misread in silence."""
        plan, tokens = stage.plan, self.model.schedule.lengths[stage.index]
        if plan.selection is not None and plan.selection.length != tokens:
            raise VarlabError(
                f"A selection over {plan.selection.length} tokens cannot serve stage {stage.index + 1} of {tokens}."
            )
        if stage.guided and plan.depth is not None and any(block >= plan.depth for block in stage.guidance.blocks):
            raise VarlabError(
                f"Guidance mixes the branches after block {max(stage.guidance.blocks)}, "
                f"but only {plan.depth} blocks run. Guide the logits (cfg_layers=0) or an earlier block."
            )

    def _blocks(self, state: State, stage: Stage, x: Tensor, index: Tensor | None) -> Tensor:
        depth = self.model.depth if stage.plan.depth is None else stage.plan.depth
        positions = self.model.positions(stage.index, state.conditioning, index)
        for block in range(depth):
            site, x_in = Site(stage, block), x
            for branch in self.model.branches:
                x = self._branch(state, Site(stage, block, branch), x, index, positions)
            for probe in self.block_probes:
                probe.on_block(site, self._on_grid(stage, x_in), self._on_grid(stage, x))
            if block in stage.plan.watch:
                for accelerator in state.accelerators:
                    accelerator.after_block(
                        site, self._on_grid(stage, x_in), self._on_grid(stage, x), stage.plan.selection
                    )
            if block in stage.guidance.blocks and stage.guided:
                cond, uncond = x.chunk(2)
                mixed = stage.guidance.scale * cond + (1 - stage.guidance.scale) * uncond
                x = torch.cat([mixed, mixed])
        return x

    def _on_grid(self, stage: Stage, x: Tensor) -> Tensor:
        """What hooks see: tokens [R, prefix + n, C] without the prefix."""
        prefix = self.model.prefix(stage.index)
        return x[:, prefix:] if prefix else x

    def _branch(self, state: State, site: Site, x: Tensor, index: Tensor | None, positions: Tensor | None) -> Tensor:
        """x + branch(x), with what an accelerator wraps around the branch. A stage with a prefix is not wrapped."""

        def compute(tokens: Tensor, keep: Tensor | None = None) -> Tensor:
            return self._compute(state, site, tokens, index, positions, keep)

        wrapper = next((a for a in state.accelerators if overrides(a, "sublayer", Accelerator)), None)
        plain = wrapper is None or self.model.prefix(site.stage.index) > 0
        y = compute(x) if wrapper is None or plain else wrapper.sublayer(site, x, compute)
        grid, added = self._on_grid(site.stage, x), self._on_grid(site.stage, y)
        for probe in self.branch_probes:
            probe.on_branch(site, grid, added)
        if site.block in site.stage.plan.watch:
            for accelerator in state.accelerators:
                accelerator.after_branch(site, grid, added, site.stage.plan.selection)
        if self.branch_probes or state.accelerators:
            return x + y
        return y.add_(x)  # nobody else holds what a branch adds

    def _compute(
        self,
        state: State,
        site: Site,
        x: Tensor,
        index: Tensor | None,
        positions: Tensor | None,
        keep: Tensor | None,
    ) -> Tensor:
        """The branch itself, on all given tokens or on those of ``keep`` [R, n]. Attention alone reads positions."""
        stage, name = site.stage, str(site.branch)
        if state.guided and self.model.alike.spared and self.model.prefix(stage.index):
            return self._compute_text(state, site, x)
        if keep is not None:
            if stage.plan.selection is not None and stage.plan.selection.valid is not None:
                raise VarlabError(
                    "A per-row token choice cannot follow a selection that differs in size between samples."
                )
            x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
            index = keep if index is None else index.expand(keep.shape[0], -1).gather(1, keep)
            if name == self.model.branches[0]:
                positions = self.model.positions(stage.index, state.conditioning, index)
        keys_seen = [0]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if state.attended.get(site.block) == stage.index:
                raise VarlabError(f"Attention of block {site.block} was computed twice in stage {stage.index + 1}.")
            state.attended[site.block] = stage.index
            bias = None if keep is not None else key_bias(stage, state.rows)
            keep_keys = self.keep_keys or stage.from_end > 0
            keys, values, bias = state.kv.append(site.block, k, v, bias, keep_keys)
            keys_seen[0] = keys.shape[2]
            bias = pass_bias(stage, index, bias, keys.shape[2], state.rows)
            alike = state.kv.alike[site.block] if state.guided else Alike()
            return attend_rows(q, keys, values, bias, self.model.attention_scale, alike)

        y = self.model.branch(site.block, name, x, state.conditioning, positions, attend)
        self._count(state, site, x.shape[1], keys_seen[0])
        return y

    def _compute_text(self, state: State, site: Site, x: Tensor) -> Tensor:
        """The branch on a stage whose unconditional rows are one token many times: that token is computed once."""
        model, scale, seen = self.model, self.model.attention_scale, list[tuple[Tensor, Tensor]]()

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            seen.append((k, v))
            return attend_rows(q, k, v, None, scale, Alike())

        rows, last = (
            torch.arange(state.rows, device=x.device),
            torch.arange(x.shape[1] - 1, x.shape[1], device=x.device),
        )
        made = []
        for half, index in zip(rows.chunk(2), (None, last), strict=True):
            conditioning, tokens = state.conditioning.rows(half), x[half] if index is None else x[half][:, index]
            positions = model.positions(site.stage.index, conditioning, index)
            made.append(model.branch(site.block, str(site.branch), tokens, conditioning, positions, attend))
        if seen:
            (k, v), (null_k, null_v) = seen
            k, v = torch.cat([k, null_k.expand_as(k)]), torch.cat([v, null_v.expand_as(v)])
            state.kv.append(site.block, k, v, None)
            state.kv.alike[site.block] = model.alike
            state.attended[site.block] = site.stage.index
        self._count(state, site, x.shape[1], x.shape[1] if seen else 0)
        return torch.cat([made[0], made[1].expand_as(made[0])])

    def _read(self, state: State, stage: Stage, x: Tensor) -> Tensor:
        """Codes of the computed tokens [B, n, d]."""
        selection, k = stage.plan.selection, stage.index
        noise = self._noise(stage, None if selection is None else selection.index)
        out = self.model.readout(x, state.conditioning, stage.guided, stage.guidance)
        self.on_mark("transformer", k)
        if self.choose is None:
            labels = self.model.draw(k, out.guided, self.settings, noise)
        else:
            labels = self.choose(out.guided)
        for probe in self.probes:
            probe.on_logits(stage, out.cond, out.uncond, out.guided, labels)
        head_rows = state.batch * (1 if out.uncond is None else 2)
        cost = self.model.stage_cost(k, x.shape[1], state.batch, head_rows, self.settings)
        self.ledger.stages[k].linear_flops += cost.linear
        forced = self.forced.get(k)
        if forced is not None:
            labels = forced[list(stage.samples)].to(x.device)
            labels = labels if selection is None else take(labels, selection.index)
        return self.model.realise(k, labels, Reading(x, out.guided, stage.guidance, self.settings, noise))

    def _noise(self, stage: Stage, index: Tensor | None) -> Draw:
        """Numbers for the whole grid of a stage, gathered at the computed positions."""

        def draw(kind: str, width: int, law: Law = "uniform") -> Tensor:
            shape = (self.model.schedule.lengths[stage.index], width)
            full = upload(getattr(self.noise, law)(kind, stage.index, stage.samples, shape), self.model.device)
            return full if index is None else take(full, index)

        return draw

    def _codes(self, state: State, stage: Stage, x: Tensor) -> Tensor:
        """Codes of the whole grid [B, h*w, d] from the hidden states of the computed tokens."""
        selection = stage.plan.selection
        if selection is None:
            return self._read(state, stage, x)
        for accelerator in state.accelerators:
            if overrides(accelerator, "expand", Accelerator):
                whole = replace(stage, plan=replace(stage.plan, selection=None))
                return self._read(state, whole, accelerator.expand(stage, x, selection))
        codes = self._read(state, stage, x)
        for accelerator in state.accelerators:
            if overrides(accelerator, "complete", Accelerator):
                return accelerator.complete(stage, codes, selection)
        raise VarlabError(
            f"Stage {stage.index + 1} computes {codes.shape[1]} of {selection.length} tokens; nothing fills the rest."
        )

    def _count(self, state: State, site: Site, tokens: int, keys: int) -> None:
        work = self.ledger.stages[site.stage.index]
        first = site.branch == self.model.branches[0]
        work.block_calls += first
        prefix, alike = self.model.prefix(site.stage.index), state.kv.alike[site.block]
        for rows, own, seen in groups(state.batch, state.guided, tokens, keys, prefix, alike):
            cost = self.model.branch_cost(str(site.branch), own, seen, state.conditioning)
            work.linear_flops += cost.linear * rows
            work.attention_flops += cost.attention * rows
            work.pairs += own * seen * rows
            work.token_blocks += own * rows if first else 0

    def _count_dense(self, state: State, k: int) -> None:
        """What a run without accelerators would have computed, to tell whether one engaged."""
        work, grid_tokens = self.ledger.stages[k], self.model.schedule.lengths[k]
        tokens = grid_tokens + self.model.prefix(k)
        keys = self.model.schedule.ends[k] + sum(map(self.model.prefix, range(k + 1)))
        guided = self.model.guided(self.settings)
        guidance = self.model.guidance(k, self.settings, guided)
        head_rows = state.batch * (2 if guided and guidance.on_logits and guidance.scale != 1 else 1)
        work.images += state.batch
        work.grid_tokens += grid_tokens * state.batch
        for rows, own, seen in groups(state.batch, guided, tokens, keys, self.model.prefix(k), self.model.alike):
            costs = [self.model.branch_cost(name, own, seen, state.conditioning) for name in self.model.branches]
            work.dense_token_blocks += own * self.model.depth * rows
            work.dense_flops += sum(cost.total for cost in costs) * self.model.depth * rows
        work.dense_flops += self.model.stage_cost(k, grid_tokens, state.batch, head_rows, self.settings).total


def _refuse_clashes(accelerators: Sequence[Accelerator]) -> None:
    for verb in ("sublayer", "complete"):
        users = [a.name for a in accelerators if overrides(a, verb, Accelerator)]
        if len(users) > 1:
            raise VarlabError(f"{' and '.join(users)} both define {verb!r}; they cannot run together.")

"""The sampling loop: one for all families, accelerators and probes.

Tensors are written over where nobody but the loop holds them: what a branch returns becomes the stream where no probe
and no method listens, and layers reuse their own (GELU, gates, rotation, see ``models.layers``). A torch forward hook
of your own that keeps what it is handed must therefore clone it; probes are told before anything is written over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from varlab.context import fixed_context
from varlab.engine.attend import attend_rows
from varlab.engine.checks import refuse_clashes, refuse_misread
from varlab.engine.counting import count, count_dense
from varlab.engine.dense import CanvasKeeper, Dense
from varlab.engine.equal_prefix import text_sublayer
from varlab.engine.hooks import Accelerator, Probe, overrides
from varlab.engine.kv import KVStore
from varlab.engine.ledger import Ledger
from varlab.engine.memory import Buffers, keep_freed_pages, release_pages, upload
from varlab.engine.norms import norms
from varlab.engine.plan import RUN, StagePlan, merge
from varlab.engine.randomness import Noise
from varlab.engine.rows import key_bias, part, pass_bias, row_index
from varlab.engine.sampling import codes_of, noise_of
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation, State
from varlab.errors import VarlabError
from varlab.models.base import EqualPrefix, NextScaleModel
from varlab.models.guidance import Settings
from varlab.schedules import Grid

Mark = Callable[[str, int], None]  # the span that ends here: text, plan, transformer, sampling or decode; the stage
Forced = Mapping[int, Tensor]  # stage -> labels [all images, h*w, d] used in place of the drawn ones


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
    on_span: Mark = lambda span, stage: None
    store_keys: bool = False  # of the last stage too, for those who read the store afterwards

    def __post_init__(self) -> None:
        self.settings.check(len(self.model.schedule), self.model.depth)
        self.ledger = Ledger.of(len(self.model.schedule))
        self._previewed: tuple[Tensor, Grid, Tensor] | None = None
        self._lengths = WeakTensorKeyDictionary()
        self.buffers = Buffers(self.model.device)  # for what probes keep of every block
        self.dense: Dense | None = None
        self.sublayer_probes = [p for p in self.probes if overrides(p, "on_sublayer", Probe)]
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
        self._lengths.update(zip(new, norms(new, self.buffers), strict=True))
        return [self.lengths(x) for x in tokens]

    def charge(self, stage: Stage, flops: int) -> None:
        """Work that an accelerator spends on scores, fills and decisions."""
        self.ledger.stages[stage.index].overhead_flops += flops

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
        with self.context():
            return self._generate(text, samples, accelerators, negative, dense)

    @contextmanager
    def context(self) -> Iterator[None]:
        """Torch as a run has it, whatever the caller's is. A model in fp32 computes in fp32 on a GPU too; what one in
        bf16 still holds in fp32 may go through tensor cores, whose TF32 has more bits than bf16."""
        if self.model.device.type == "cpu":
            keep_freed_pages()
        with fixed_context(tf32=self.model.precision == "bf16"), torch.inference_mode():
            yield

    def _generate(
        self, text: Any, samples: Sequence[int], accelerators: Sequence[Accelerator], negative: Any, dense: Dense | None
    ) -> Generation:
        refuse_clashes(accelerators)
        for accelerator in accelerators:  # first of all: what cannot run is refused before any work
            accelerator.start(self)
        if any("dense" in accelerator.needs for accelerator in accelerators):
            self.dense = self.dense_run(text, samples, negative) if dense is None else dense
        state = self.begin(text, samples, accelerators, negative)
        finished: list[State] = []
        self._advance(state, 0, finished)
        return self.finish(tuple(samples), finished)

    def begin(
        self, text: Any, samples: Sequence[int], accelerators: Sequence[Accelerator] = (), negative: Any = None
    ) -> State:
        """The text is read and charged; nothing of the images is there yet."""
        guided = self.model.guided(self.settings)
        conditioning = self.model.prepare(text, guided, negative)
        self.ledger.text_flops += self.model.text_cost(conditioning).total
        self.on_span("text", 0)
        for probe in self.probes:
            probe.start(self)
        return State(
            samples=tuple(samples),
            conditioning=conditioning,
            canvas=self.model.new_canvas(len(samples)),
            kv=KVStore(self.model.depth, self.model.kv_capacity if self.store_keys else self.model.stored_keys),
            guided=guided,
            accelerators=list(accelerators),
        )

    def dense_run(self, text: Any, samples: Sequence[int], negative: Any = None) -> Dense:
        """The same images without accelerators, with all their canvases; outside this run's ledger."""
        keeper = CanvasKeeper()
        out = Run(self.model, self.settings, self.noise, [keeper], self.forced, self.choose).generate(
            text, samples, negative=negative
        )
        earlier = [self.model.decode(canvas) for canvas in keeper.canvases[:-1]]
        return Dense(tuple(samples), keeper.canvases, [*earlier, out.image])

    def _let_go(self, finished: list[State]) -> None:
        """Keys and values make room for decoding."""
        if not self.store_keys:
            held = sum(state.kv.bytes for state in finished)
            for state in finished:
                state.kv.release()
            release_pages(held, self.model.device)

    def finish(self, samples: tuple[int, ...], finished: list[State]) -> Generation:
        self._let_go(finished)
        order = {image: i for i, image in enumerate(samples)}
        back = torch.tensor([order[image] for state in finished for image in state.samples])
        canvas = torch.cat([state.canvas for state in finished])[upload(back.argsort(), self.model.device)]
        last = len(self.model.schedule) - 1
        self.on_span("plan", last)
        image = self.model.decode(canvas)
        self.on_span("decode", last)
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
            count_dense(self, state, k)
            if plan.action == "stop":
                for later in range(k + 1, len(self.model.schedule)):
                    count_dense(self, state, later)
                break
            if plan.action == "run":
                self.run_stage(state, k, plan)
            k += 1
        finished.append(state)

    def _plan(self, state: State, k: int) -> dict[tuple[int, ...], StagePlan | None]:
        """Merged plans by group of positions within the batch."""
        stage = self.stage(state, k)
        answers = [a.plan(stage) for a in state.accelerators]
        shared = [answer for answer in answers if isinstance(answer, StagePlan)]
        if len(shared) == len(answers):
            return {tuple(range(state.batch)): merge(shared, self.model.depth)}
        groups: dict[Any, list[int]] = {}
        for i in range(state.batch):
            key = tuple(id(a) if not isinstance(a, list) else a[i] for a in answers)
            groups.setdefault(key, []).append(i)
        return {tuple(keep): merge([part(a, keep) for a in answers], self.model.depth) for keep in groups.values()}

    def stage(self, state: State, k: int, plan: StagePlan = RUN) -> Stage:
        guidance = self.model.guidance(k, self.settings, state.guided, plan.scale)
        return Stage(k, self.model.schedule, state.samples, plan, guidance, state.guided)

    def run_stage(self, state: State, k: int, plan: StagePlan) -> None:
        state.set_rows(plan, k)
        stage = self.stage(state, k, plan)
        stage = replace(stage, passes=self.model.passes(k, self.settings, noise_of(self, stage, None)))
        refuse_misread(self.model, stage)
        self.on_span("plan", k)
        index = row_index(stage, state.rows)
        x = self.model.embed(k, state.canvas, state.conditioning, index)
        for probe in self.probes:
            probe.on_stage(stage, self._on_grid(stage, x))
        x = self._on_grid(stage, self._blocks(state, stage, x, index))
        codes = codes_of(self, state, stage, x)
        residual = self.model.code_map(k, codes)
        before = state.canvas
        state.canvas = self.model.accumulate(k, before, residual)
        self.on_span("sampling", k)
        state.stages_run += 1
        self.ledger.stages[k].tokens += x.shape[1] * state.batch
        for probe in self.probes:
            probe.on_residual(stage, residual, before, state.canvas)
        for accelerator in state.accelerators:
            accelerator.end_stage(stage, state)
        self.ledger.stages[k].kv_bytes += state.kv.bytes
        if self.on_progress is not None:
            self.on_progress(stage)

    def _blocks(self, state: State, stage: Stage, x: Tensor, index: Tensor | None) -> Tensor:
        depth = self.model.depth if stage.plan.depth is None else stage.plan.depth
        positions = self.model.positions(stage.index, state.conditioning, index)
        for block in range(depth):
            site, x_in = Site(stage, block), x
            for branch in self.model.sublayers:
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

        def compute(tokens: Tensor, chosen: Tensor | None = None) -> Tensor:
            return self._compute(state, site, tokens, index, positions, chosen)

        wrapper = next((a for a in state.accelerators if overrides(a, "sublayer", Accelerator)), None)
        plain = wrapper is None or self.model.prefix(site.stage.index) > 0
        y = compute(x) if wrapper is None or plain else wrapper.sublayer(site, x, compute)
        grid, added = self._on_grid(site.stage, x), self._on_grid(site.stage, y)
        for probe in self.sublayer_probes:
            probe.on_sublayer(site, grid, added)
        if site.block in site.stage.plan.watch:
            for accelerator in state.accelerators:
                accelerator.after_sublayer(site, grid, added, site.stage.plan.selection)
        if self.sublayer_probes or state.accelerators:
            return x + y
        return y.add_(x)  # nobody else holds what a branch adds

    def _compute(
        self,
        state: State,
        site: Site,
        x: Tensor,
        index: Tensor | None,
        positions: Tensor | None,
        chosen: Tensor | None,
    ) -> Tensor:
        """The branch itself, on all given tokens or on those of ``chosen`` [R, n]. Attention alone reads positions."""
        stage, name = site.stage, str(site.sublayer)
        if state.guided and self.model.equal_prefix.spared and self.model.prefix(stage.index):
            return text_sublayer(self, state, site, x)
        if chosen is not None:
            if stage.plan.selection is not None and stage.plan.selection.valid is not None:
                raise VarlabError(
                    "A per-row token choice cannot follow a selection that differs in size between samples."
                )
            x = x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
            index = chosen if index is None else index.expand(chosen.shape[0], -1).gather(1, chosen)
            if name == self.model.sublayers[0]:
                positions = self.model.positions(stage.index, state.conditioning, index)
        keys_seen = [0]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if state.attended.get(site.block) == stage.index:
                raise VarlabError(f"Attention of block {site.block} was computed twice in stage {stage.index + 1}.")
            state.attended[site.block] = stage.index
            bias = None if chosen is not None else key_bias(stage, state.rows)
            store_keys = self.store_keys or stage.from_end > 0
            keys, values, bias = state.kv.append(site.block, k, v, bias, store_keys)
            keys_seen[0] = keys.shape[2]
            bias = pass_bias(stage, index, bias, keys.shape[2], state.rows)
            equal = state.kv.equal_prefix[site.block] if state.guided else EqualPrefix()
            return attend_rows(q, keys, values, bias, self.model.attention_scale, equal)

        y = self.model.sublayer(site.block, name, x, state.conditioning, positions, attend)
        count(self, state, site, x.shape[1], keys_seen[0])
        return y

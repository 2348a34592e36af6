"""The sampling loop: one for all families, accelerators, probes and ways of execution."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from varlab.context import fixed_context
from varlab.engine.ahead import Ahead, wanted
from varlab.engine.blocks import Blocks
from varlab.engine.canvases import CanvasStore
from varlab.engine.checks import refuse_clashes, refuse_cut_text, refuse_misread
from varlab.engine.context import Context
from varlab.engine.counting import count_dense
from varlab.engine.dense import Dense
from varlab.engine.execution import Execution
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.kv import KVStore
from varlab.engine.ledger import Ledger
from varlab.engine.memory import keep_freed_pages, upload
from varlab.engine.plan import RUN, StagePlan, merge
from varlab.engine.randomness import Noise, SeededNoise
from varlab.engine.rows import on_grid, part, row_index
from varlab.engine.sampling import Sampler, noise_of
from varlab.engine.stage import Stage
from varlab.engine.state import Generation, State
from varlab.machine import DTYPES, named_gaps
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings

OnSpan = Callable[[str, int], None]  # the span that ends here: text, plan, transformer, sampling or decode; the stage
Forced = Mapping[int, Tensor]  # stage -> labels [all images, h*w, d] used in place of the drawn ones


@dataclass
class Run:
    """Everything that is fixed for a batch, and the loop itself.

    forced: labels that stages use in place of the drawn ones. choose: guided logits -> labels, in place of the model's
    draw. store_keys: of the last stage too, for those who read the store afterwards.
    """

    model: NextScaleModel
    settings: Settings
    noise: Noise
    probes: Sequence[Probe] = ()
    forced: Forced = field(default_factory=dict)
    choose: Callable[[Tensor], Tensor] | None = None
    on_progress: Callable[[Stage], None] | None = None
    on_span: OnSpan = lambda span, stage: None
    store_keys: bool = False
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        self.settings.check(len(self.model.schedule), self.model.depth)
        ahead = self.model.device.type == "cuda" and isinstance(self.noise, SeededNoise)
        noise = Ahead(self.noise, pin=True) if ahead else self.noise
        self.context = Context(self.model, self.settings, noise, Ledger.of(len(self.model.schedule)))
        self.blocks = Blocks(self.context, self.execution, self.probes, self.store_keys)
        self.sampler = Sampler(self.context, self.probes, self.forced, self.choose, self.on_span)

    @property
    def ledger(self) -> Ledger:
        return self.context.ledger

    def generate(
        self,
        text: Any,
        samples: Sequence[int],
        accelerators: Sequence[Accelerator] = (),
        negative: Any = None,
        dense: Dense | None = None,
    ) -> Generation:
        """Images ``samples`` (their numbers key the noise) for as many prompts or text features.

        ``dense``: the dense run of the same images, for methods that need one; run here where it is not given.
        """
        with self.torch_settings():
            refuse_clashes(accelerators)
            self.execution.check(self.context, self.probes, accelerators)
            for accelerator in accelerators:  # first of all: what cannot run is refused before any work
                accelerator.start(self.context)
            if any("dense" in accelerator.needs for accelerator in accelerators):
                self.context.dense = self.dense_run(text, samples, negative) if dense is None else dense
            state = self.begin(text, samples, accelerators, negative)
            finished: list[State] = []
            self._advance(state, 0, finished)
            return self.finish(tuple(samples), finished)

    @contextmanager
    def torch_settings(self) -> Iterator[None]:
        """Torch as a run has it, whatever the caller's is. A model in fp32 computes in fp32 on a GPU too; what one in
        bf16 or fp16 still holds in fp32 may go through tensor cores, whose TF32 has as many bits as fp16."""
        if self.model.device.type == "cpu":
            keep_freed_pages()
        tf32 = DTYPES[self.model.precision].itemsize == 2
        with fixed_context(tf32=tf32), torch.inference_mode(), named_gaps(self.model.device):
            yield

    def begin(
        self, text: Any, samples: Sequence[int], accelerators: Sequence[Accelerator] = (), negative: Any = None
    ) -> State:
        """The text is read and charged; nothing of the images is there yet."""
        if isinstance(self.context.noise, Ahead):
            self.context.noise.expect(wanted(self.model, self.settings, samples))
        guided = self.model.guided(self.settings)
        conditioning = self.model.prepare(text, guided, negative)
        self.context.ledger.text_flops += self.model.text_cost(conditioning).total
        self.on_span("text", 0)
        for probe in self.probes:
            probe.start(self.context)
        capacity = self.model.kv_capacity if self.store_keys else self.model.stored_keys
        state = State(
            samples=tuple(samples),
            conditioning=conditioning,
            canvas=self.model.new_canvas(len(samples)),
            kv=KVStore(self.model.depth, capacity, self.model.kept_type),
            guided=guided,
            accelerators=list(accelerators),
        )
        self.execution.begin(self.context, state)
        return state

    def dense_run(self, text: Any, samples: Sequence[int], negative: Any = None) -> Dense:
        """The same images without accelerators, with all their canvases; outside this run's ledger."""
        canvases = CanvasStore()
        out = Run(
            self.model, self.settings, self.noise, [canvases], self.forced, self.choose, execution=self.execution
        ).generate(text, samples, negative=negative)
        return canvases.dense(samples, self.model.decode, out.image)

    def finish(self, samples: tuple[int, ...], finished: list[State]) -> Generation:
        if isinstance(self.context.noise, Ahead):
            self.context.noise.expect(())  # what a method left out
        if not self.store_keys:
            self.execution.release(finished)
        order = {image: i for i, image in enumerate(samples)}
        back = torch.tensor([order[image] for state in finished for image in state.samples])
        canvas = torch.cat([state.canvas for state in finished])[upload(back.argsort(), self.model.device)]
        last = len(self.model.schedule) - 1
        self.on_span("plan", last)
        image = self.model.decode(canvas)
        if self.context.overflow is not None:
            self.context.overflow.watch("the decoder", image)
            self.context.overflow.refuse(self.model.name)
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
                for index, plan in groups.items():
                    self._advance(state.fork(list(index)), k, finished, plan)
                return
            plan, given = next(iter(groups.values())), None
            assert plan is not None
            refuse_cut_text(self.model, k, plan)
            count_dense(self.context, state, k)
            if plan.action == "stop":
                for later in range(k + 1, len(self.model.schedule)):
                    count_dense(self.context, state, later)
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
        return {tuple(index): merge([part(a, index) for a in answers], self.model.depth) for index in groups.values()}

    def stage(self, state: State, k: int, plan: StagePlan = RUN) -> Stage:
        return self.context.stage(k, state.samples, state.guided, plan)

    def run_stage(self, state: State, k: int, plan: StagePlan) -> None:
        state.set_rows(plan, k)
        stage = self.stage(state, k, plan)
        noise = noise_of(self.context, stage, None)
        stage = replace(stage, passes=self.model.passes(k, self.settings, noise))
        refuse_misread(self.model, stage)
        self.on_span("plan", k)
        index = row_index(stage, state.rows)
        x = self.model.embed(k, state.canvas, state.conditioning, index)
        for probe in self.probes:
            probe.on_stage(stage, on_grid(self.model, stage, x))
        x = on_grid(self.model, stage, self.blocks.run(state, stage, x, index))
        if self.context.overflow is not None:
            self.context.overflow.watch(f"stage {k + 1}", x)
        self._grow(state, stage, self.sampler.codes(state, stage, x))
        work = self.context.ledger.stages[k]
        work.tokens += x.shape[1] * state.batch
        work.kv_bytes += state.kv.bytes
        if self.on_progress is not None:
            self.on_progress(stage)

    def _grow(self, state: State, stage: Stage, codes: Tensor) -> None:
        """Add the codes of a stage [B, h*w, d] to the canvas, and tell the hooks."""
        residual = self.model.code_map(stage.index, codes)
        before = state.canvas
        state.canvas = self.model.accumulate(stage.index, before, residual)
        self.on_span("sampling", stage.index)
        state.stages_run += 1
        for probe in self.probes:
            probe.on_residual(stage, residual, before, state.canvas)
        for accelerator in state.accelerators:
            accelerator.end_stage(stage, state)

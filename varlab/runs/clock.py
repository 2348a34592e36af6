"""The one clock of a run, and the one way to time several things against each other.

Spans tile a run: ``text encoder``, ``text`` (projections that are constant over the stages), and for every stage
``plan`` (decisions and their previews), ``transformer`` (embedding, blocks, read-out) and ``sampling`` (labels,
codes, canvas); then ``decode``.
"""

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from varlab.engine.dense import Dense
from varlab.engine.execution import Execution
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.state import Generation
from varlab.machine import now, peak_mib, reset_peak, settled_garbage
from varlab.measures.statistics import Interval, bootstrap_interval
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings

SPANS = ("text encoder", "text", "plan", "transformer", "sampling", "decode")
Key = tuple[str, int]  # span, stage
T = TypeVar("T")


class Clock:
    """Times between the marks of a run: CUDA events, which nobody waits for, else the wall clock, for which another GPU
    is waited for at each mark."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.keys = device, list[Key]()
        self.host: list[float] = []
        self.processor: list[float] = []  # of all threads of this process: others do not count
        self.events: list[Any] = []

    def mark(self, span: str, stage: int) -> None:
        """``span`` of ``stage`` ends here."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)
        self.keys.append((span, stage))
        self.host.append(now(self.device) if self.device.type == "mps" else time.perf_counter())
        self.processor.append(time.process_time())

    def issued(self) -> list[float]:
        """Seconds that the host took to issue what each mark ends."""
        return np.diff(self.host).tolist()

    def spent(self) -> list[float]:
        """Seconds that the device took for it."""
        now(self.device)
        pairs = zip(self.events, self.events[1:], strict=False)
        return [first.elapsed_time(last) / 1000 for first, last in pairs] if self.events else self.issued()


@dataclass(frozen=True)
class Times:
    """Seconds of a run, end to end, by span and stage on the device (``issued``: on the host), and by stage from the
    end of the text to the last canvas. ``processor``: of the process in all stages. Parts of a batch add up."""

    seconds: float
    spans: dict[Key, float]
    issued: dict[Key, float]
    stages: dict[int, float]
    processor: float
    ledger: Ledger

    @property
    def transformer(self) -> float:
        """Of all stages: neither the text nor decoding."""
        return sum(self.stages.values())


def timed_run(
    model: NextScaleModel,
    text: Any,
    samples: Sequence[int],
    methods: Sequence[Accelerator] = (),
    *,
    settings: Settings | None = None,
    seed: int = 0,
    execution: Execution | None = None,
    probes: Sequence[Probe] = (),
    dense: Dense | None = None,
) -> tuple[Generation, Times]:
    """One run of the engine under the clock, eager and with the model's own settings by default. A dense run that a
    method needs is ``dense``, or made here, outside its time. ``probes``: what they do counts."""
    clock = Clock(model.device)
    noise, chosen = SeededNoise(seed), model.settings if settings is None else settings
    run = Run(model, chosen, noise, probes, on_span=clock.mark, execution=execution or Execution())
    with run.torch_settings():
        if any("dense" in method.needs for method in methods):
            dense = (dense or run.dense_run(text, samples)).decoded()
    start = now(clock.device)
    clock.mark("start", 0)
    reader = getattr(model, "read_prompts", None)
    read = text if reader is None else reader(text)
    clock.mark("text encoder", 0)
    out = run.generate(read, samples, methods, dense=dense)
    seconds = now(clock.device) - start
    keys, spent = clock.keys[1:], clock.spent()
    first = keys.index(("text", 0)) + 1
    last = max(i for i, (span, _) in enumerate(keys) if span == "sampling") + 1
    return out, Times(
        seconds,
        _summed(keys, spent),
        _summed(keys, clock.issued()),
        _summed([stage for _, stage in keys[first:last]], spent[first:last]),
        clock.processor[last] - clock.processor[first],
        out.ledger,
    )


def _summed(keys: Sequence[Any], seconds: Sequence[float]) -> dict[Any, float]:
    sums: dict[Any, float] = {}
    for key, value in zip(keys, seconds, strict=True):
        sums[key] = sums.get(key, 0.0) + value
    return sums


@dataclass(frozen=True)
class Rounds(Generic[T]):
    """By variant: what its runs gave, a round each, and the MiB that its first one, which warms up, held at most."""

    passes: dict[str, list[T]]
    peaks: dict[str, float]


def interleaved(
    variants: Sequence[str],
    run: Callable[[str, int], T],
    rounds: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    warm_up: bool = True,
    done: Container[int] = (),
) -> Rounds[T]:
    """Call ``run(variant, round)`` for all variants in every round, in turning order: a drift of the machine hits all.

    Rounds count from 1; before them round 0 warms up, and its results are dropped. ``done``: rounds that an earlier
    call ran.
    """
    found = Rounds[T]({variant: [] for variant in variants}, {})
    # Each ``reset_peak`` looks for what the last run left, not through all that was there before.
    with settled_garbage():
        for turn in range(0 if warm_up else 1, rounds + 1):
            for i in range(0 if turn in done else len(variants)):
                variant = variants[(i + turn) % len(variants)]
                forgot = not turn and reset_peak(device)  # not while time is taken: the pages that it frees cost some
                made = run(variant, turn)
                if turn:
                    found.passes[variant].append(made)
                else:
                    found.peaks[variant] = peak_mib(device, forgot)
            if progress is not None:
                progress(turn, rounds)
    return found


def paired_ratio(own: Sequence[float] | Any, other: Sequence[float] | Any) -> Interval:
    """Median of ``own`` over ``other``, paired by round, and its 95 % bootstrap interval."""
    return bootstrap_interval(np.asarray(own, dtype=np.float64) / np.asarray(other, dtype=np.float64), np.nanmedian)

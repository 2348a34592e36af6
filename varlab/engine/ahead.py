"""Noise that a run will surely ask for, drawn by threads while the device computes what comes before.

The host draws it (``randomness``), and HART's mixtures of codes take a number a token and label: tens of millions an
image at full size, for which a GPU would wait. Each image and stage has its own stream, so order changes nothing.
"""

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from varlab.engine.randomness import Noise
from varlab.models.base import Distribution, NextScaleModel
from varlab.models.guidance import Settings

LIMIT = 1 << 27  # numbers that wait to be asked for, but for those of one draw: half a gigabyte


class Want(NamedTuple):
    """One image's numbers of a stage."""

    distribution: Distribution
    kind: str
    stage: int
    image: int
    shape: tuple[int, ...]


def wanted(model: NextScaleModel, settings: Settings, samples: Sequence[int]) -> list[Want]:
    """What a dense run of these images asks for, in its order."""
    return [
        Want(distribution, kind, k, image, (model.schedule.lengths[k], width))
        for k in range(len(model.schedule))
        for kind, width, distribution in model.foreseen(k, settings)
        for image in samples
    ]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "noise")


class Ahead:
    """The same numbers as ``noise``. pin: where a GPU copies them without waiting."""

    def __init__(self, noise: Noise, pin: bool = False) -> None:
        self.noise, self.pin = noise, pin
        self.left: list[Want] = []
        self.drawing: dict[Want, Future[Tensor]] = {}

    def expect(self, wants: Iterable[Want]) -> None:
        """Begin with the first of them, in place of those of an earlier batch."""
        self._drop(list(self.drawing))
        self.left = list(wants)
        self._go_on()

    def uniform(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return self._asked("uniform", kind, stage, samples, shape)

    def normal(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return self._asked("normal", kind, stage, samples, shape)

    def exponential(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return self._asked("exponential", kind, stage, samples, shape)

    def _asked(
        self, distribution: Distribution, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]
    ) -> Tensor:
        wants = [Want(distribution, kind, stage, image, shape) for image in samples]
        if not any(want in self.drawing or want in self.left for want in wants):
            drawn: Tensor = getattr(self.noise, distribution)(kind, stage, samples, shape)
            return drawn
        coming = [self.drawing.pop(want) if want in self.drawing else self._begun(want) for want in wants]
        self._drop([want for want in self.drawing if want.stage < stage])  # of stages that a method left out
        self.left = [want for want in self.left if want.stage >= stage and want not in wants]
        self._go_on()
        parts = [numbers.result() for numbers in coming]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _go_on(self) -> None:
        held = sum(math.prod(want.shape) for want in self.drawing)
        while self.left and (not self.drawing or held + math.prod(self.left[0].shape) <= LIMIT):
            want = self.left.pop(0)
            held += math.prod(want.shape)
            self.drawing[want] = self._begun(want)

    def _begun(self, want: Want) -> Future[Tensor]:
        return _pool().submit(self._drawn, want)

    def _drawn(self, want: Want) -> Tensor:
        numbers: Tensor = getattr(self.noise, want.distribution)(want.kind, want.stage, [want.image], want.shape)
        return numbers.pin_memory() if self.pin else numbers

    def _drop(self, wants: Iterable[Want]) -> None:
        for want in wants:
            self.drawing.pop(want).cancel()

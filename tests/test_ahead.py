"""Noise drawn ahead by threads: the same pictures, begun before it is asked for, and never much of it."""

import math
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import hart_features, tiny_hart, tiny_var
from varlab.comparison import methods_of
from varlab.engine import ahead
from varlab.engine.ahead import Ahead, wanted
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings

SETTINGS = HartSettings(cfg=2.0, top_k=20)


class Watched(SeededNoise):
    """Notes who draws what."""

    def __init__(self) -> None:
        super().__init__(0)
        self.drawn: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {"noise": [], "Main": []}

    def _stack(self, kind: str, stage: int, samples: Sequence[int], draw: Any) -> Tensor:
        self.drawn[threading.current_thread().name[:5].rstrip("T_")].append((kind, stage, tuple(samples)))
        return super()._stack(kind, stage, samples, draw)


@pytest.mark.parametrize("limit", [ahead.LIMIT, 500])
@pytest.mark.parametrize("spec", ["none", "truncate:last=1", "sparsevar:keep=0.5,last=2"])
def test_pictures_are_those_of_noise_that_is_drawn_when_it_is_asked_for(
    spec: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "LIMIT", limit)
    model, noise = tiny_hart(), Watched()
    run = Run(model, SETTINGS, Ahead(noise))
    images = [
        one.generate(hart_features(3, 5), [4, 7], methods_of(spec)).image
        for one in (run, run, Run(model, SETTINGS, SeededNoise(0)))
    ]
    assert torch.equal(images[0], images[2]) and torch.equal(images[1], images[2])
    large = {"mixture", "diffusion-start", "diffusion-1", "diffusion-2"}
    assert {kind for kind, *_ in noise.drawn["noise"]} <= large == {want.kind for want in wanted(model, SETTINGS, [0])}
    assert not {kind for kind, *_ in noise.drawn["Main"]} & large and noise.drawn["noise"]
    assert not run.context.noise.drawing and not run.context.noise.left  # type: ignore[attr-defined]


def test_it_begins_at_once_and_holds_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LIMIT", 2500)
    model = tiny_hart()
    noise, wants = Ahead(SeededNoise(0)), wanted(model, SETTINGS, [0, 1])
    noise.expect(wants)
    begun = list(noise.drawing)
    assert begun == wants[: len(begun)] and 1 < len(begun) < len(wants)
    for want in wants:
        found, whole = (
            getattr(source, want.distribution)(want.kind, want.stage, [want.image], want.shape)
            for source in (noise, SeededNoise(0))
        )
        assert torch.equal(found, whole)
        sizes = [math.prod(held.shape) for held in noise.drawing]
        assert sum(sizes) <= 2500 or len(sizes) == 1


def test_a_gpu_draws_ahead_and_a_processor_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_hart()
    assert isinstance(Run(model, SETTINGS, SeededNoise(0)).context.noise, SeededNoise)
    monkeypatch.setattr(Hart, "device", torch.device("cuda"))
    assert isinstance(Run(model, SETTINGS, SeededNoise(0)).context.noise, Ahead)
    assert wanted(tiny_var(), tiny_var().settings, [0]) == []

"""The caller's torch does not reach into a run, and a run leaves it as it was."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import varlab as vl
from tests.conftest import text_for, tiny_hart, tiny_infinity, tiny_var
from varlab.accelerators import build
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import shared_runs
from varlab.machine import rates
from varlab.probes import PROBES
from varlab.weights.writing import hash_tensors

MKLDNN: Any = torch.backends.mkldnn  # replaced at run time by an object that has more
FAMILIES: dict[str, Callable[[], Any]] = {"infinity": tiny_infinity, "hart": tiny_hart, "var": tiny_var}


@contextmanager
def switched(switch: Callable[[Any], object], on: Any, off: Any) -> Iterator[None]:
    switch(on)
    try:
        yield
    finally:
        switch(off)


@contextmanager
def without_onednn() -> Iterator[None]:
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = True  # type: ignore[assignment]


@contextmanager
def rounded_convolutions() -> Iterator[None]:
    MKLDNN.conv.fp32_precision = "bf16"
    try:
        yield
    finally:
        MKLDNN.conv.fp32_precision = "none"


AROUND: dict[str, Callable[[], Any]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64 by default": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16 by default": lambda: switched(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "another device by default": lambda: switched(torch.set_default_device, "meta", None),
    "on another device": lambda: torch.device("meta"),
    "on the CPU": lambda: torch.device("cpu"),
    "unfused encoder layers": lambda: switched(torch.backends.mha.set_fastpath_enabled, False, True),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "deterministic algorithms": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "rounded products": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "rounded convolutions": rounded_convolutions,
    "plain attention": lambda: sdpa_kernel(SDPBackend.MATH),
    "without oneDNN": without_onednn,
}


def state() -> list[Any]:
    """All of the caller's torch that a run could change."""
    backends = torch.backends
    return [
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        [part.fp32_precision for part in (backends.cuda.matmul, MKLDNN.matmul, MKLDNN.conv)],
        [backends.mkldnn.enabled, backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.allow_tf32],
        [backends.cuda.flash_sdp_enabled(), backends.cuda.math_sdp_enabled(), backends.cuda.cudnn_sdp_enabled()],
        torch.random.get_rng_state().tolist(),
        random.getstate(),
        [str(part) for part in np.random.get_state()],
    ]


def drawn(model: Any, methods: tuple[str, ...]) -> torch.Tensor:
    run = Run(model, model.settings, SeededNoise(3))
    return run.generate(TEXTS[model.family], (0, 1), build(methods)).image


TEXTS = {family: text_for(make(), (3, 5), (0, 1)) for family, make in FAMILIES.items()}
METHODS = ((), ("random-tokens:keep=0.5,last=2",))


@pytest.fixture(scope="module", params=FAMILIES)
def plain(request: pytest.FixtureRequest) -> tuple[Any, list[torch.Tensor]]:
    """A model of each family, and what it draws with nothing around it."""
    model = FAMILIES[request.param]()
    return model, [drawn(model, methods) for methods in METHODS]


@pytest.mark.parametrize("around", AROUND)
def test_images_are_the_same_whatever_is_switched_on_around_them(
    plain: tuple[Any, list[torch.Tensor]], around: str
) -> None:
    model, images = plain
    with AROUND[around]():
        before = state()
        found = [drawn(model, methods) for methods in METHODS]
        assert state() == before
    for ours, theirs in zip(found, images, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs)


def test_default_generators_neither_decide_nor_move() -> None:
    model = tiny_hart()
    plain = drawn(model, ())
    torch.manual_seed(77)
    np.random.seed(77)
    random.seed(77)
    before = state()
    assert torch.equal(drawn(model, ()), plain)
    rates(torch.device("cpu"), "fp32", width=64, head_width=32, tokens=8, keys=8)
    assert state() == before


def test_a_failing_run_gives_the_state_back() -> None:
    model = tiny_infinity()
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        before = state()
        with pytest.raises(vl.errors.VarlabError):
            drawn(model, ("truncate:last=1", "freqexit:exits=99"))
        assert state() == before


def digest(model: Any) -> str:
    return hash_tensors(dict(model.transformer.state_dict()) | dict(model.tokenizer.state_dict()))


@pytest.mark.parametrize("init", ["checkpoint", "random"])
def test_weights_load_the_same_and_can_be_trained(init: str) -> None:
    plain = digest(vl.load("nano-infinity", init))
    for around in ("autocast", "float64 by default", "another device by default", "inference mode"):
        with AROUND[around]():
            before = state()
            model = vl.load("nano-infinity", init)
            assert state() == before
        assert digest(model) == plain, around
        weight = next(model.transformer.parameters())
        assert weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.is_inference()


def test_a_comparison_under_autocast_measures_the_same_fidelity() -> None:
    model, names = vl.load("nano-infinity"), ["psnr", "ssim", "high_frequency_ssim", "work_ratio"]
    plain = vl.compare(model, "scenes", ["truncate:last=1"], n=2, batch=2, frontier=False).table[names]
    with torch.autocast("cpu", torch.bfloat16), switched(torch.set_default_device, "meta", None):
        found = vl.compare(model, "scenes", ["truncate:last=1"], n=2, batch=2, frontier=False).table[names]
    assert found.equals(plain)


@pytest.fixture(scope="module")
def whole() -> tuple[Any, Any]:
    """A model and a whole run of it with nothing around."""
    model = vl.load("nano-infinity")
    return model, vl.sample(model, "a red star", probes=list(PROBES))


@pytest.mark.parametrize("around", AROUND)
def test_a_whole_run_with_texts_and_probes_logs_the_same(whole: tuple[Any, Any], around: str) -> None:
    """Images are rounded to 8 bits; a log is not, and shows the text encoder's last digit."""
    model, plain = whole
    with AROUND[around]():
        before = state()
        found = vl.sample(model, "a red star", probes=list(PROBES))
        assert state() == before
    assert found.images[0].tobytes() == plain.images[0].tobytes()
    for group in plain.log.children:
        assert found.log[group].to_dataset().equals(plain.log[group].to_dataset()), group


def test_runs_that_share_their_beginning_have_the_same_context_and_lend_none() -> None:
    model = tiny_infinity()

    def images() -> Iterator[torch.Tensor]:
        methods = {name: build((name,)) for name in ("truncate:last=1", "truncate:last=2")}
        for _, out in shared_runs(Run(model, model.settings, SeededNoise(3)), TEXTS["infinity"], (0, 1), methods):
            yield out.image

    plain = list(images())
    with torch.autocast("cpu", torch.bfloat16):
        before = state()
        for ours, theirs in zip(images(), plain, strict=True):
            assert torch.equal(ours, theirs) and state() == before

"""Tiny random models for the laws of the engine: seconds, no weights."""

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import hypothesis
import numpy as np
import pytest
import torch
import typer

from tests.skips import pytest_runtest_logreport, pytest_sessionfinish, pytest_terminal_summary  # noqa: F401
from varlab import schedules
from varlab.models.guidance import Settings
from varlab.models.hart import HartConfig, HartText, HartTransformer
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings, Savings
from varlab.models.infinity import InfinityConfig, InfinityTransformer, TextBatch
from varlab.models.infinity_model import Infinity
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARConfig, VARTransformer
from varlab.models.var_model import VAR
from varlab.parity import weights
from varlab.reports import nbformats  # noqa: F401  (before a test's own import, which is slow)
from varlab.runs import run as runs
from varlab.runs.provenance import stage_seconds
from varlab.timing import latency

SCHEDULES = {
    "square": schedules.square((1, 2, 3, 5), "square"),
    "odd-tall": schedules.custom([(1, 1), (2, 1), (3, 2), (5, 3)], "odd-tall"),
    "long": schedules.square((1, 2, 3, 4, 5, 6, 7, 8), "long"),
    "official-wide": schedules.Schedule(schedules.infinity("0.06M", 0.571).grids[:4], (48, 84), "wide"),
}
TEXT_WIDTH = 128


# How long an example takes says how slow the machine is, and no more.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# Bit equality needs one order of summation; fixtures of any scope must see it, so no fixture sets it.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """A run asks for free memory and so collects garbage, hundreds of times in a suite: modules and tests are none."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Nor is what the tests of a file imported and left in caches: looking through it took a seventh of seven files'
    time in one process."""
    yield
    if nextitem is None or nextitem.path != item.path:
        pytest_collection_finish()


@pytest.fixture(scope="session", autouse=True)
def done_once() -> Iterator[None]:
    """The commands are built once, and not for each call; the stages of a logged run are timed once, on one image (how
    they are timed is for test_runs.py); the numbers of goldens that a name and a seed give are drawn once, and the
    speed of the processor at a shape is measured once."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("typer.main.get_command", "typer.testing._get_command"):
            patch.setattr(place, cache(typer.main.get_command))
        patch.setattr(latency, "rates", cache(latency.rates))
        patch.setattr(weights, "numbers", cache(partial(read_only, weights.numbers)))
        patch.setattr(runs, "stage_seconds", lambda job, batch: stage_seconds(job, 1, longest=0))
        yield


def read_only(draw: Callable[..., np.ndarray], *given: object) -> np.ndarray:
    values = draw(*given)
    values.setflags(write=False)
    return values


def tiny_infinity(schedule: str = "square", patchify: bool = False, seed: int = 0) -> Infinity:
    """Four blocks, 64 channels; gates are enlarged so that every branch matters."""
    torch.manual_seed(seed)
    bits = 4
    config = InfinityConfig(
        depth=4, width=64, heads=2, bits=bits * (4 if patchify else 1), chunks=2, text_width=TEXT_WIDTH,
        text_length=16, patchify=patchify,
    )  # fmt: skip
    tokenizer = BSQTokenizer(BSQConfig(bits=bits, stride=4, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4))
    transformer = InfinityTransformer(config)
    with torch.no_grad():
        for block in transformer.blocks:
            block.ada_gss.mul_(3)
    model = Infinity(
        transformer.eval().requires_grad_(False),
        tokenizer.eval().requires_grad_(False),
        SCHEDULES[schedule],
        name="tiny",
        settings=Settings(cfg=2.0, tau=1.0),
    )
    return model


def tiny_var(schedule: str = "square", shared: bool = False, cosine: bool = True, seed: int = 0) -> VAR:
    """Four blocks, 64 channels, 32 codes; gates and positions enlarged so that branches matter and tokens differ."""
    torch.manual_seed(seed)
    sides = tuple(height for height, _ in SCHEDULES[schedule].grids)
    config = VARConfig(
        4, 64, 2, classes=10, codes=32, code_width=4, sides=sides, shared_modulation=shared, cosine=cosine
    )
    tokenizer = VQTokenizer(
        VQConfig(32, 4, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4, stages=len(sides), phis=4)
    )
    transformer = VARTransformer(config)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            enlarged = "ada_" in name and not name.startswith("head_nm")
            parameter.mul_(
                {"pos_1LC": 8.0, "word_embed.weight": 3.0, "head.weight": 4.0}.get(name, 3.0 if enlarged else 1)
            )
    parts = transformer.eval().requires_grad_(False), tokenizer.eval().requires_grad_(False)
    return VAR(*parts, name="tiny-var", settings=Settings(cfg=2.0))


def features(*lengths: int, seed: int = 1) -> TextBatch:
    generator = torch.Generator().manual_seed(seed)
    return TextBatch(torch.randn(sum(lengths), TEXT_WIDTH, generator=generator), lengths)


HART_TEXT, HART_TEXT_WIDTH = 6, 24


def tiny_hart(
    schedule: str = "square",
    seed: int = 0,
    settings: HartSettings | None = None,
    savings: Savings | None = None,
    **variant: object,
) -> Hart:
    """Four blocks, 96 channels, a codebook of 48; the residual branches are enlarged so that every one matters."""
    torch.manual_seed(seed)
    config = HartConfig(
        depth=4, width=96, heads=2, vocabulary=48, latents=4, text_length=HART_TEXT, text_width=HART_TEXT_WIDTH,
        stages=len(SCHEDULES[schedule]), diffusion_width=16, diffusion_depth=1, diffusion_steps=3,
        **variant,  # type: ignore[arg-type]
    )  # fmt: skip
    tokenizer = channels_last(HybridTokenizer(HybridConfig(48, 4, channels=32, multipliers=(1, 1, 1), blocks=0)))
    transformer = HartTransformer(config)
    with torch.no_grad():
        for block in transformer.blocks:
            block.attn.proj.weight.mul_(3)  # type: ignore[union-attr, operator]
            block.ffn.down_proj.weight.mul_(3)  # type: ignore[union-attr, operator]
        transformer.head.weight.mul_(3)
    return Hart(
        transformer.eval().requires_grad_(False),
        tokenizer.eval().requires_grad_(False),
        SCHEDULES[schedule],
        name="tiny-hart",
        settings=settings or HartSettings(cfg=2.0, top_k=20),
        savings=savings,
    )


def hart_features(*lengths: int, seed: int = 1) -> HartText:
    """One row a prompt, real tokens first."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(lengths), HART_TEXT, HART_TEXT_WIDTH, generator=generator)
    return HartText(features, torch.arange(HART_TEXT) < torch.tensor(lengths)[:, None])


def text_for(model: Infinity | Hart | VAR, lengths: Sequence[int], images: Sequence[int], seed: int = 1) -> object:
    """Features of some of the prompts with these lengths, the same whichever are asked for together; VAR's labels."""
    if isinstance(model, VAR):
        return [(lengths[i] + seed) % 10 for i in images]
    if isinstance(model, Hart):
        whole = hart_features(*lengths, seed=seed)
        return HartText(whole.features[list(images)], whole.mask[list(images)])
    text = features(*lengths, seed=seed)
    rows = text.features.split(text.lengths)
    return TextBatch(torch.cat([rows[i] for i in images]), tuple(lengths[i] for i in images))

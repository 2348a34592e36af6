"""The laws of the engine, over every registered accelerator and probe: registering one is enough to be tested."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SCHEDULES, features, tiny_infinity, tiny_var
from varlab.accelerators import ACCELERATORS, Entry
from varlab.accelerators import build as accelerators
from varlab.engine.hooks import Accelerator
from varlab.engine.loop import Generation, Run
from varlab.engine.randomness import SeededNoise
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.probes import PROBES, build

LENGTHS = (3, 5)


def template() -> Entry:
    """The method that the guide starts from is held to the same laws."""
    path = Path(__file__).parents[1] / "docs" / "accelerator_template.py"
    spec = importlib.util.spec_from_file_location("accelerator_template", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entry: Entry = module.ENTRY
    return entry


ACCELERATORS["roughness"] = template()  # before the parameters below are collected

Method = str | Callable[[], Accelerator]
ENGAGING = [name for name, entry in ACCELERATORS.items() if entry.engaging]


def made(method: Method) -> str | Accelerator:
    return method if isinstance(method, str) else method()


def engaging(model: NextScaleModel, name: str) -> str | Accelerator:
    """The entry's forced setting; the test is skipped where the schedule is too short for the method."""
    entry = ACCELERATORS[name]
    if len(model.schedule) < entry.stages:
        pytest.skip(f"{name} needs {entry.stages} stages")
    assert entry.engaging is not None
    return made(entry.engaging)


def generate(
    model: NextScaleModel,
    specs: tuple[str | Accelerator, ...] = (),
    probes: tuple[str, ...] = (),
    images: tuple[int, ...] = (0, 1),
    **settings,
) -> Generation:
    run = Run(model, Settings(cfg=2.0), SeededNoise(7), build(probes))
    return run.generate(prompts(model, images), images, accelerators(specs))


def prompts(model: NextScaleModel, images: tuple[int, ...] = (0, 1), seed: int = 1) -> Any:
    """Text features of Infinity, class labels of VAR; image i has the same one in any batch."""
    if model.family == "var":
        return [(LENGTHS[i] + seed) % 10 for i in images]
    text = features(*LENGTHS, seed=seed)
    rows = text.features.split(text.lengths)
    return type(text)(torch.cat([rows[i] for i in images]), tuple(LENGTHS[i] for i in images))


def tiny(family: str, *options: Any, seed: int = 0) -> NextScaleModel:
    make: Callable[..., NextScaleModel] = {"infinity": tiny_infinity, "var": tiny_var}[family]
    return make(*options, seed=seed)


MODELS = [("infinity", name, patchify) for name in SCHEDULES for patchify in (False, True)]
MODELS += [("var", "square", False, True), ("var", "long", True, True), ("var", "square", False, False)]


@pytest.fixture(params=MODELS, ids=lambda options: "-".join(map(str, options)))
def model(request: pytest.FixtureRequest) -> NextScaleModel:
    return tiny(*request.param)


@pytest.mark.parametrize("probes", [(name,) for name in PROBES] + [tuple(PROBES)], ids=str)
def test_probes_and_the_null_accelerator_change_nothing(model: NextScaleModel, probes: tuple[str, ...]) -> None:
    plain = generate(model)
    assert torch.equal(plain.image, generate(model, probes=probes).image)
    assert torch.equal(plain.image, generate(model, ("none",)).image)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_neutral_settings_are_dense(model: NextScaleModel, name: str) -> None:
    engaging(model, name) if ACCELERATORS[name].engaging else None
    plain, neutral = generate(model), generate(model, (made(ACCELERATORS[name].neutral),))
    assert torch.equal(plain.image, neutral.image)
    assert not neutral.ledger.engaged
    decided = ["overhead_flops", "flops"]  # a method that decides has paid for it, whatever it decided
    tables = [run.ledger.table().drop(columns=decided) for run in (neutral, plain)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("name", ENGAGING)
def test_real_settings_change_the_image_and_compute_less(model: NextScaleModel, name: str) -> None:
    plain, fast = generate(model), generate(model, (engaging(model, name),))
    assert fast.ledger.engaged and fast.image.isfinite().all()
    assert not torch.equal(plain.image, fast.image)
    assert fast.ledger.transformer_flops < plain.ledger.transformer_flops
    assert sum(w.pairs for w in fast.ledger.stages) < sum(w.pairs for w in plain.ledger.stages)


@pytest.mark.parametrize("name", ENGAGING)
def test_no_state_leaks_between_runs(model: NextScaleModel, name: str) -> None:
    method = accelerators((engaging(model, name),))

    def run() -> torch.Tensor:
        return Run(model, Settings(cfg=2.0), SeededNoise(7)).generate(prompts(model), (0, 1), method).image

    first = run()
    other = "long" if ACCELERATORS[name].stages > 4 else "odd-tall" if model.family == "infinity" else "square"
    generate(tiny(model.family, other, seed=3), tuple(method))
    Run(model, Settings(cfg=3.0), SeededNoise(8)).generate(prompts(model, (0,), seed=9), (0,), method)
    assert torch.equal(first, run())


@pytest.mark.parametrize("name", ["none", *ENGAGING])
def test_a_seed_means_the_same_in_any_batch(model: NextScaleModel, name: str) -> None:
    def specs() -> tuple[str | Accelerator, ...]:
        return () if name == "none" else (engaging(model, name),)

    both = generate(model, specs())
    for image in (0, 1):
        alone = generate(model, specs(), images=(image,))
        # Kernels sum in another order for another batch: no bit may differ in the codes drawn, pixels only by rounding.
        assert torch.allclose(both.canvas[image], alone.canvas[0], atol=1e-5)
        assert torch.allclose(both.image[image], alone.image[0], atol=1e-4)


def test_another_seed_is_another_image() -> None:
    model = tiny_infinity()
    a = Run(model, Settings(cfg=2.0), SeededNoise(1)).generate(features(3), (0,))
    b = Run(model, Settings(cfg=2.0), SeededNoise(2)).generate(features(3), (0,))
    assert not torch.equal(a.canvas, b.canvas)

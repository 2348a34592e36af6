"""The laws of the engine, over every registered accelerator and probe: registering one is enough to be tested."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import SCHEDULES, text_for, tiny_hart, tiny_infinity, tiny_var
from varlab.accelerators import ACCELERATORS, Entry
from varlab.accelerators import build as accelerators
from varlab.engine.hooks import Accelerator
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.state import Generation
from varlab.models.hart_model import Hart, HartSettings, Savings
from varlab.models.infinity_model import Infinity
from varlab.models.var_model import VAR
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

Model = Infinity | Hart | VAR
Method = str | Callable[[], Accelerator]
ENGAGING = [name for name, entry in ACCELERATORS.items() if entry.engaging]


def made(method: Method) -> str | Accelerator:
    return method if isinstance(method, str) else method()


def engaging(model: Model, name: str) -> str | Accelerator:
    """The entry's forced setting; the test is skipped where the schedule is too short for the method."""
    entry = ACCELERATORS[name]
    if len(model.schedule) < entry.stages:
        pytest.skip(f"{name} needs {entry.stages} stages")
    assert entry.engaging is not None
    return made(entry.engaging)


def generate(
    model: Model,
    specs: tuple[str | Accelerator, ...] = (),
    probes: tuple[str, ...] = (),
    images: tuple[int, ...] = (0, 1),
    **settings,
) -> Generation:
    run = Run(model, model.settings, SeededNoise(7), build(probes))
    return run.generate(text_for(model, LENGTHS, images), images, accelerators(specs))


MODELS: dict[str, Callable[[], Model]] = {
    f"infinity-{name}{'-patchify' if patchify else ''}": partial(tiny_infinity, name, patchify)
    for name in SCHEDULES
    for patchify in (False, True)
} | {
    "hart-square": partial(tiny_hart, "square"),
    "hart-long": partial(tiny_hart, "long"),
    "hart-odd-tall": partial(tiny_hart, "odd-tall", settings=HartSettings(cfg=2.0, top_k=0, smooth=False)),
    "hart-passes": partial(tiny_hart, "square", settings=HartSettings(cfg=2.0, top_k=20, passes=3)),
    "hart-saving": partial(tiny_hart, "square", savings=Savings(one_null=True, constants=True)),
    "hart-modulated": partial(tiny_hart, "square", modulation="block", unit_attention=True, learned_levels=True),
    "var-square": partial(tiny_var, "square"),
    "var-long-shared": partial(tiny_var, "long", shared=True),
    "var-square-plain": partial(tiny_var, "square", cosine=False),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]()


@pytest.mark.parametrize("probes", [(name,) for name in PROBES] + [tuple(PROBES)], ids=str)
def test_probes_and_the_null_accelerator_change_nothing(model: Model, probes: tuple[str, ...]) -> None:
    plain = generate(model)
    assert torch.equal(plain.image, generate(model, probes=probes).image)
    assert torch.equal(plain.image, generate(model, ("none",)).image)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_neutral_settings_are_dense(model: Model, name: str) -> None:
    engaging(model, name) if ACCELERATORS[name].engaging else None
    plain, neutral = generate(model), generate(model, (made(ACCELERATORS[name].neutral),))
    assert torch.equal(plain.image, neutral.image)
    assert not neutral.ledger.engaged
    decided = ["overhead_flops", "flops"]  # a method that decides has paid for it, whatever it decided
    tables = [run.ledger.table().drop(columns=decided) for run in (neutral, plain)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("name", ENGAGING)
def test_real_settings_change_the_image_and_compute_less(model: Model, name: str) -> None:
    plain, fast = generate(model), generate(model, (engaging(model, name),))
    assert fast.ledger.engaged and fast.image.isfinite().all()
    assert not torch.equal(plain.image, fast.image)
    assert fast.ledger.transformer_flops < plain.ledger.transformer_flops
    assert sum(w.pairs for w in fast.ledger.stages) < sum(w.pairs for w in plain.ledger.stages)


@pytest.mark.parametrize("name", ENGAGING)
def test_no_state_leaks_between_runs(model: Model, name: str) -> None:
    method = accelerators((engaging(model, name),))

    def run(images: tuple[int, ...] = (0, 1), seed: int = 7, cfg: float = 2.0) -> torch.Tensor:
        made = Run(model, replace(model.settings, cfg=cfg), SeededNoise(seed))
        return made.generate(text_for(model, LENGTHS, images, seed=seed), images, method).image

    first = run()
    other = "long" if ACCELERATORS[name].stages > 4 else "odd-tall"
    generate(tiny_infinity(other, seed=3), tuple(method))
    generate(tiny_hart(other, seed=3), tuple(method))
    generate(tiny_var(other if other == "long" else "square", seed=3), tuple(method))
    run((1,), seed=8, cfg=3.0)
    assert torch.equal(first, run())


@pytest.mark.parametrize("name", ["none", *ENGAGING])
def test_a_seed_means_the_same_in_any_batch(model: Model, name: str) -> None:
    def specs() -> tuple[str | Accelerator, ...]:
        return () if name == "none" else (engaging(model, name),)

    both = generate(model, specs())
    for image in (0, 1):
        alone = generate(model, specs(), images=(image,))
        # Kernels sum in another order for another batch: no label may differ in what is drawn, pixels only by rounding,
        # which a softened mixture of codes divides by its temperature.
        rounding = 1e-3 if getattr(model.settings, "smooth", False) else 1e-5
        assert torch.allclose(both.canvas[image], alone.canvas[0], atol=rounding)
        assert torch.allclose(both.image[image], alone.image[0], atol=10 * rounding)


@pytest.mark.parametrize("model", [tiny_infinity(), tiny_hart(), tiny_var()], ids=["infinity", "hart", "var"])
def test_another_seed_is_another_image(model: Model) -> None:
    text = text_for(model, LENGTHS, (0,))
    a = Run(model, model.settings, SeededNoise(1)).generate(text, (0,))
    b = Run(model, model.settings, SeededNoise(2)).generate(text, (0,))
    assert not torch.equal(a.canvas, b.canvas)

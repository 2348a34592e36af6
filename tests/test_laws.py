"""The laws of the engine, over every registered accelerator and probe: registering one is enough to be tested."""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import SCHEDULES, text_for, tiny_hart, tiny_infinity, tiny_var
from varlab.accelerators import ACCELERATORS
from varlab.accelerators import build as accelerators
from varlab.engine.canvases import CanvasStore
from varlab.engine.hooks import Accelerator, Compute
from varlab.engine.images import Images
from varlab.engine.loop import Run
from varlab.engine.plan import Selection, StagePlan
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings, Savings
from varlab.models.infinity_model import Infinity
from varlab.models.var_model import VAR
from varlab.probes import PROBES, build

LENGTHS = (3, 5)


def template(name: str) -> ModuleType:
    """What the guides start from is held to the same laws."""
    path = Path(__file__).parents[1] / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


ADDED = {"roughness": template("accelerator_template").ENTRY}
LISTENS = {"added-energy": template("probe_template").AddedEnergy}
METHODS, LISTENERS = ACCELERATORS | ADDED, PROBES | LISTENS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The templates are registered while these tests run, and for no other test."""
    for registry, entries in ((ACCELERATORS, ADDED), (PROBES, LISTENS)):
        for name, entry in entries.items():
            monkeypatch.setitem(registry, name, entry)  # type: ignore[arg-type]


Model = Infinity | Hart | VAR
Method = str | Callable[[], Accelerator]
ENGAGING = [name for name, entry in METHODS.items() if entry.engaging]


def made(method: Method) -> str | Accelerator:
    return method if isinstance(method, str) else method()


def engaging(name: str) -> str | Accelerator:
    """The entry's forced setting."""
    setting = METHODS[name].engaging
    assert setting is not None
    return made(setting)


class PassedOn(Accelerator):
    """Overrides every verb that an engine may leave out, and passes everything on as it is."""

    name = "passed-on"

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan(watch=frozenset(range(4)))

    def sublayer(self, site: Site, x: torch.Tensor, compute: Compute) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return compute(x)

    def after_sublayer(self, site: Site, x: torch.Tensor, y: torch.Tensor, selection: Selection | None) -> None:
        self.seen = getattr(self, "seen", 0) + 1

    def after_block(self, site: Site, x_in: torch.Tensor, x_out: torch.Tensor, selection: Selection | None) -> None:
        self.blocks = getattr(self, "blocks", 0) + 1

    def end_stage(self, stage: Stage, images: Images) -> None:
        self.stages = getattr(self, "stages", 0) + 1


def generate(
    model: Model,
    specs: tuple[str | Accelerator, ...] = (),
    probes: tuple[str, ...] = (),
    images: tuple[int, ...] = (0, 1),
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


# For what lies in a method or a probe rather than in the schedule and variant of a model.
EACH_KIND = ("infinity-long", "infinity-official-wide-patchify", "hart-long", "hart-passes", "var-long-shared")


@cache
def model_of(name: str) -> Model:
    """One for all tests: no run may change it."""
    return MODELS[name]()


@cache
def dense(name: str) -> Generation:
    """Its image and work without any method or probe."""
    return generate(model_of(name))


@cache
def accelerated(name: str, method: str) -> Generation:
    """Its image and work under the forced setting of a method."""
    return generate(model_of(name), (engaging(method),))


def pairs(methods: Sequence[str], models: Iterable[str] = MODELS) -> list[tuple[str, str]]:
    """Every model with every method that its schedule is long enough for."""
    lengths = {name: len(SCHEDULES[MODELS[name].args[0]]) for name in models}  # type: ignore[attr-defined]
    return [(name, method) for name, long in lengths.items() for method in methods if long >= METHODS[method].stages]


@pytest.mark.parametrize(
    ("model", "probes"),
    [(model, tuple(LISTENERS)) for model in MODELS] + [(model, (name,)) for model in EACH_KIND for name in LISTENERS],
    ids=str,
)
def test_probes_change_nothing(model: str, probes: tuple[str, ...]) -> None:
    assert torch.equal(dense(model).image, generate(model_of(model), probes=probes).image)


@pytest.mark.parametrize("model", MODELS)
def test_the_null_accelerator_changes_nothing_even_where_every_verb_is_called(model: str) -> None:
    passed = PassedOn()
    plain, null, through = dense(model), generate(model_of(model), ("none",)), generate(model_of(model), (passed,))
    assert min(passed.calls, passed.seen, passed.blocks, passed.stages) > 0
    for other in (null, through):
        assert torch.equal(plain.image, other.image) and not other.ledger.engaged
    assert null.ledger.table().equals(plain.ledger.table())


@pytest.mark.parametrize(("model", "name"), pairs(ENGAGING))
def test_neutral_settings_are_dense(model: str, name: str) -> None:
    plain, neutral = dense(model), generate(model_of(model), (made(METHODS[name].neutral),))
    assert torch.equal(plain.image, neutral.image)
    assert not neutral.ledger.engaged
    decided = ["overhead_flops", "flops"]  # a method that decides has paid for it, whatever it decided
    tables = [run.ledger.table().drop(columns=decided) for run in (neutral, plain)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(("model", "name"), pairs(ENGAGING))
def test_real_settings_change_the_image_and_compute_less(model: str, name: str) -> None:
    plain, fast = dense(model), accelerated(model, name)
    assert fast.ledger.engaged and fast.image.isfinite().all()
    assert not torch.equal(plain.image, fast.image)
    assert fast.ledger.transformer_flops < plain.ledger.transformer_flops
    assert sum(w.pairs for w in fast.ledger.stages) < sum(w.pairs for w in plain.ledger.stages)


@pytest.mark.parametrize("name", ENGAGING)
def test_no_state_leaks_between_runs(name: str) -> None:
    """One method on model after model, of every family, grid and length, and on each with other settings first."""
    method = accelerators((engaging(name),))
    models = [model for model, _ in pairs([name], EACH_KIND)]
    for i, model_name in enumerate((*models, models[0])):
        model, images = model_of(model_name), (0, 1)[i % 2 :]  # as many as after it, and fewer
        other_settings = Run(model, replace(model.settings, cfg=3.0), SeededNoise(8))
        other_settings.generate(text_for(model, LENGTHS, images, seed=7), images, method)
        assert torch.equal(accelerated(model_name, name).image, generate(model, tuple(method)).image), model_name


@pytest.mark.parametrize(("model_name", "name"), [*pairs(["none"]), *pairs(ENGAGING, EACH_KIND)])
def test_a_seed_means_the_same_in_any_batch(model_name: str, name: str) -> None:
    model, plain = model_of(model_name), name == "none"
    both = dense(model_name) if plain else accelerated(model_name, name)
    for image in (0, 1):
        alone = generate(model, () if plain else (engaging(name),), images=(image,))
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


def test_the_probe_of_the_guide_logs_a_share_of_every_stage() -> None:
    """The first stage adds all that is there; the figure of another stage by hand."""
    canvases, model = CanvasStore(), tiny_infinity()
    (probe,) = build(["added-energy:power=2"])
    run = Run(model, model.settings, SeededNoise(7), [probe, canvases])
    run.generate(text_for(model, LENGTHS, (0, 1)), (0, 1))
    share = probe.log()["added-energy"].variables["share"][1]
    before, after = canvases.canvases[2:4]
    energy = [x.square().sum((1, 2, 3)) for x in (after - before, after)]
    assert share.shape == (2, len(model.schedule)) and (share[:, 0] == 1).all()
    torch.testing.assert_close(torch.from_numpy(share[:, 2]), energy[0] / energy[1])

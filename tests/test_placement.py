"""Nothing of the host mixes with the device inside the loop, and nobody waits for a value, but where a method says so.

On torch's meta device there are no values: what reads one, or adds a tensor of the CPU, stops there. So a run by shapes
at full width and up to the full grid is the proof for a GPU that is not at hand.
"""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

import varlab as vl
from tests.minis import refused
from varlab import schedules
from varlab.accelerators import ACCELERATORS
from varlab.comparison import methods_of
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.gpus import DEVICES, absent, described, rate_of
from varlab.models.base import NextScaleModel
from varlab.models.diffusion import denoiser_flops
from varlab.models.hart import HartConfig
from varlab.probes import PROBES
from varlab.probes import build as build_probes
from varlab.timing.estimate import shallow
from varlab.timing.roofline import fit, predict
from varlab.timing.shapes import shape_run
from varlab.weights.options import LoadOptions
from varlab.weights.registry import find
from varlab.weights.zoo import assemble

FULL = ("infinity-2b", "hart-0.7b", "var-d16")


def by_shape(name: str, precision: str = "bf16") -> NextScaleModel:
    """At full width up to the full grid; two blocks, four stages and two steps of diffusion stand for the others."""
    entry = find(name)
    height, width = entry.schedule(None, 1.0).final
    grids = [(1, 1), *((height // n, width // n) for n in (4, 2, 1))]
    few = shallow(entry, 2, schedules.custom(grids, "four stages"))
    if isinstance(few.transformer, HartConfig):
        few = replace(few, transformer=replace(few.transformer, diffusion_steps=2))
    return assemble(few, LoadOptions("empty", precision=precision))


@pytest.fixture(scope="module", params=FULL)
def shapes(request: pytest.FixtureRequest) -> NextScaleModel:
    return by_shape(request.param)


def specs(model: NextScaleModel) -> list[str]:
    """The forced setting of every shipped method that a spec can name."""
    shipped = [entry for entry in ACCELERATORS.values() if entry.kind.__module__.startswith("varlab.")]
    return [entry.engaging for entry in shipped if isinstance(entry.engaging, str)]


def test_no_method_mixes_host_and_device_or_waits(shapes: NextScaleModel) -> None:
    dense = shape_run(shapes)
    assert dense.stages[-1].tokens == shapes.schedule.lengths[-1]
    for spec in specs(shapes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ledger = shape_run(shapes, spec)
        assert ledger.engaged, spec


def test_no_probe_mixes_host_and_device_or_waits_before_its_log(shapes: NextScaleModel) -> None:
    assert shape_run(shapes, probes=build_probes(list(PROBES))).stages[0].tokens > 0


def test_passes_of_the_last_stage_are_laid_out_without_a_wait() -> None:
    """What repeats by counts that lie on the device waits for them, and stops on meta."""
    hart = by_shape("hart-0.7b")
    last, settings = len(hart.schedule) - 1, replace(hart.settings, passes=3)
    length = hart.schedule.lengths[last]

    def numbers(kind: str, width: int, distribution: Any = "uniform") -> torch.Tensor:
        return torch.empty(2, length, width, device="meta")

    found = hart.passes(last, settings, numbers)
    assert found is not None and found.shape == (2, length) and found.is_meta


def test_the_ledger_by_shapes_is_that_of_a_real_run() -> None:
    model = vl.load("nano-infinity")
    empty = vl.load("nano-infinity", init="empty")
    for spec in ("none", "sparsevar:keep=0.3,last=2", "truncate:last=1+cfg-off:last=2"):
        real = Run(model, model.settings, SeededNoise(0)).generate(["a red star"], [0], methods_of(spec)).ledger
        columns = ["tokens", "pairs", "token_blocks", "kv_bytes"]
        pairs = zip(real.table()[columns].to_numpy(), shape_run(empty, spec).table()[columns].to_numpy(), strict=True)
        assert all((a[[0, 2, 3]] == b[[0, 2, 3]]).all() for a, b in pairs), spec


def reads(monkeypatch: pytest.MonkeyPatch, model: NextScaleModel, spec: str, verb: str) -> int:
    """How often a run takes values of a tensor to the host by this verb; what is reported after it counts too."""
    calls, original = [0], getattr(torch.Tensor, verb)

    def counted(self: torch.Tensor, *given: Any) -> Any:
        calls[0] += 1
        return original(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, verb, counted)
        run = Run(model, model.settings, SeededNoise(0))
        state = run.begin(["a red star"], [0], methods_of(spec))
        for method in state.accelerators:
            method.start(run.context)
        run._advance(state, 0, [])
    return calls[0]


def test_a_method_that_sees_values_waits_once_a_stage_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vl.load("mini-infinity")
    stages = len(model.schedule)
    for spec in ("none", "sparsevar:keep=0.3,last=2", "truncate:last=1", "fastvar:ratios=0.5,drop=1,first=1"):
        assert reads(monkeypatch, model, spec, "tolist") + reads(monkeypatch, model, spec, "item") == 0, spec
    assert 0 < reads(monkeypatch, model, "sparsevar:tau=0.6", "tolist") <= stages
    assert 0 < reads(monkeypatch, model, "skipvar:target=0.86", "cpu") <= stages


def test_what_decides_by_values_is_refused_by_shapes() -> None:
    empty = vl.load("mini-infinity", init="empty")
    refused(lambda: shape_run(empty, "sparsevar:tau=0.6"), "decides by values", "fixed share")
    refused(lambda: shape_run(vl.load("nano-infinity")), "init='empty'")


# Devices that are not here


def test_devices_and_sizes_by_name() -> None:
    assert absent("h200") and absent("24GiB") and not absent("cpu") and not absent("cuda:0")
    assert described("24GiB") == (None, 24 * 2**30)
    refused(lambda: described("h20"), "h200")
    refused(lambda: rate_of(DEVICES["t4"], "bf16"), "fp16")


def test_a_model_fits_or_what_fits_is_said() -> None:
    assert fit("infinity-2b", DEVICES["h200"].memory, "bf16", None, 1.0, 1, None).endswith("fits.")
    said = fit("infinity-2b", 16 * 2**30, "fp32", None, 1.0, 1, None)
    assert "does NOT fit" in said and "bf16" in said


def test_a_roofline_by_hand() -> None:
    """A stage takes its operations over the rate that is reached, or its bytes over the bandwidth."""
    model, device = by_shape("infinity-2b"), DEVICES["h200"]
    (made,) = predict(model, [device], ["truncate:last=1"])
    last = shape_run(model).stages[-1]
    assert last.fp32_flops == model.stage_cost(3, last.tokens, 1, 2, model.settings).linear  # the head alone
    halved = last.linear_flops - last.fp32_flops
    expected = halved / (989e12 * 0.6) + last.attention_flops / (989e12 * 0.4) + last.fp32_flops / (494.5e12 * 0.6)
    assert made.stages.loc[("none", len(model.schedule)), "seconds"] == pytest.approx(expected)
    assert made.stages.loc[("none", 1), "bound"] == "host"
    row = made.table.loc["truncate:last=1"]
    assert row.speed_up > row.speed_up_eager > 1
    assert row.graph_seconds == pytest.approx(made.table.loc["none"].graph_seconds - expected)
    assert made.facts["weights"] == "none: shapes alone" and made.facts["measured"] is False


def test_a_diffusion_head_in_half_precision_runs_by_shapes_and_at_its_own_rate() -> None:
    """The head's products move from the rate of TF32 to that of bf16, and nothing else changes."""
    models = [by_shape("hart-0.7b", precision) for precision in ("bf16", "bf16-diffusion")]
    assert [model.precision for model in models] == ["bf16", "bf16-diffusion"]
    first, second = (shape_run(model).stages[-1] for model in models)
    config, tokens = models[0].transformer.config, models[0].schedule.lengths[-1]  # type: ignore[attr-defined]
    sizes = config.latents, config.width, config.diffusion_width, config.diffusion_depth
    head = denoiser_flops(*sizes, config.diffusion_steps, 2 * tokens)
    assert replace(first, fp32_flops=first.fp32_flops - head) == second
    seconds = [predict(model, [DEVICES["h200"]])[0].stages.operations.iloc[-1] for model in models]
    assert seconds[0] - seconds[1] == pytest.approx(head / (494.5e12 * 0.6) - head / (989e12 * 0.6))

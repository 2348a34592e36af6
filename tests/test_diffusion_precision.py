"""HART's diffusion head in half precision: near to fp32, said in every record, refused where there is none."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import varlab as vl
from tests.conftest import tiny_hart
from tests.minis import refused
from varlab.cli import app
from varlab.machine import DTYPES
from varlab.models.base import NextScaleModel
from varlab.models.diffusion import RESIDUAL_SCALE
from varlab.runs import Job
from varlab.runs.dense import Batch
from varlab.runs.provenance import provenance, record_of
from varlab.weights.memory import account
from varlab.weights.registry import find

HALVES = {"bf16": 2.0**-8, "fp16": 2.0**-11}  # the largest relative rounding of one number
TEXT = ("a red star",)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: vl.load("mini-hart", precision=name) for name in ("fp32", "bf16", "bf16-diffusion")}


def seeded(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(len(kind) + ord(kind[-1]))
    return torch.randn(2, 64, 8, generator=generator)


@torch.inference_mode()
@pytest.mark.parametrize("half", HALVES)
def test_noise_that_the_head_predicts_is_a_few_roundings_from_fp32(models: dict[str, Any], half: str) -> None:
    """Of the largest: the network is 14 products deep. And residuals of the solver stay near, in fp32."""
    hidden = torch.randn(4, 64, 192, generator=torch.Generator().manual_seed(0))
    whole = models["fp32"].transformer.diffloss
    halved = deepcopy(whole).to(DTYPES[half])

    def predicted(head: Any) -> Tensor:
        kind = next(head.parameters()).dtype
        made: Tensor = head.net(seeded("x").to(kind), head.times(8)[3], head.net.cond_embed(hidden[:2].to(kind)))
        return made.float()

    exact = predicted(whole)
    error = float((predicted(halved) - exact).abs().max() / exact.abs().max())

    assert 0 < error < 4 * HALVES[half]
    first, second = (head.sample(hidden, 2, 0.5, head.times(8), seeded) for head in (whole, halved))
    assert first.dtype == second.dtype == torch.float32 and float(second.abs().max()) <= 1.001 * RESIDUAL_SCALE

    assert float((first - second).abs().mean() / first.std()) < 2 * HALVES[half]


def test_nothing_but_the_head_changes_and_every_record_says_it(models: dict[str, Any]) -> None:
    plain, head = models["bf16"], models["bf16-diffusion"]
    pairs = zip(plain.transformer.state_dict().items(), head.transformer.state_dict().items(), strict=True)
    assert all(
        a.dtype == b.dtype or (key.startswith("diffloss.") and b.dtype == torch.bfloat16) for (key, a), (_, b) in pairs
    )
    assert (plain.precision, head.precision) == ("bf16", "bf16-diffusion") and "bf16-diffusion on cpu" in repr(head)
    jobs = [Job(model, TEXT, model.settings) for model in (plain, head)]
    assert [provenance(job)["precision"] for job in jobs] == ["bf16", "bf16-diffusion"]
    assert len({record_of(job, "one", 1)["key"] for job in jobs}) == 2
    assert len({Batch(model, model.settings, 0, 0, TEXT).name for model in (plain, head)}) == 2


def test_its_memory_is_half(models: dict[str, Any]) -> None:
    entry = find("mini-hart")
    weights = [account(entry, entry.schedule(None, 1.0), name).weights for name in ("bf16", "bf16-diffusion")]
    assert weights[0] - weights[1] == 2 * sum(p.numel() for p in models["fp32"].transformer.diffloss.parameters())


@pytest.mark.parametrize(
    "call",
    [
        lambda: vl.load("nano-infinity", precision="bf16-diffusion"),
        lambda: vl.load("mini-var", precision="bf16-diffusion"),
        lambda: vl.load("infinity-2b", "empty", precision="bf16-diffusion"),
    ],
)
def test_a_model_without_such_a_head_refuses(call: Callable[[], NextScaleModel]) -> None:
    refused(call, "no diffusion head", "take precision bf16")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sample", "nano-infinity", "a red star", "--precision", "fp16-diffusion"], "no diffusion head"),
        (["estimate", "infinity-2b", "--device", "24GiB", "--precision", "bf16-diffusion"], "no diffusion head"),
        (["estimate", "infinity-2b", "--device", "24GiB", "--precision", "bf16-heads"], "Known: bf16, bf16-diffusion"),
    ],
)
def test_commands_refuse_it_before_anything_is_written(
    command: list[str], said: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert done.exit_code and said in f"{done.exception}" and not list(tmp_path.iterdir())


@torch.inference_mode()
def test_what_passes_the_range_of_fp16_is_no_number_and_not_a_clamped_one() -> None:
    """The solver clamps, and an infinite prediction would look like a usual residual."""
    head = tiny_hart().transformer.diffloss.half()
    head.net.final_layer.linear.bias.fill_(6e4)
    head.net.final_layer.linear.weight.mul_(1e6)
    hidden = torch.randn(2, 9, 96, generator=torch.Generator().manual_seed(0))
    out = head.sample(hidden, 2, 0.0, head.times(3), lambda kind: torch.ones(2, 9, 4))
    assert out.isnan().any()

"""Equal keys that attention looks at once, or a few times where its type cannot hold the logarithm of their number."""

from functools import partial

import pytest
import torch

import varlab as vl
from tests.conftest import HART_TEXT, hart_features, tiny_hart
from tests.minis import refused
from varlab.engine.attend import attend_rows
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.base import EqualPrefix
from varlab.models.hart_settings import Savings
from varlab.weights.fitting import load_into


def rows(dtype: torch.dtype, equal: int = 300, other: int = 100) -> list[torch.Tensor]:
    """Queries, keys and values of two rows, the second of which begins with equal keys that take half its weight."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 32, generator=generator) for n in (64, equal + other, equal + other))
    k[1, :, :equal], v[1, :, :equal] = -1.1 * q[1].mean(1, keepdim=True).sign(), 3.0
    return [part.to(dtype) for part in (q * 0.3, k, v)]


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true).abs().mean())


def test_bf16_attention_on_few_of_the_equal_keys_errs_by_rounding_alone() -> None:
    q, k, v = rows(torch.bfloat16)
    true = attend_rows(q.double(), k.double(), v.double(), None, 1.0, EqualPrefix())
    plain, few, one = (
        error(attend_rows(q, k, v, None, 1.0, equal)[1], true[1])
        for equal in (EqualPrefix(), EqualPrefix.of(300, torch.bfloat16), EqualPrefix(300, 1))
    )
    assert few < 1.2 * plain and one > 2 * plain


@pytest.mark.parametrize("bias", [False, True])
def test_fp32_attention_on_one_of_the_equal_keys_is_the_plain_one(bias: bool) -> None:
    q, k, v = rows(torch.float32)
    added = torch.randn(2, 1, 1, 400, generator=torch.Generator().manual_seed(1)) if bias else None
    if added is not None:
        added[1, ..., :300] = 0
    plain, one = (
        attend_rows(q, k, v, added, 1.0, equal) for equal in (EqualPrefix(), EqualPrefix.of(300, torch.float32))
    )
    torch.testing.assert_close(one, plain, atol=1e-5, rtol=1e-5)


def test_how_many_are_looked_at() -> None:
    assert EqualPrefix.of(300, torch.float32) == (300, 1) and EqualPrefix.of(300, torch.bfloat16) == (300, 5)
    assert EqualPrefix.of(300, torch.bfloat16).spared == 295 and not EqualPrefix().spared
    assert EqualPrefix.of(1, torch.bfloat16).spared == 0


def test_the_ledger_counts_the_keys_that_bf16_looks_at() -> None:
    model = tiny_hart(savings=Savings(one_null=True))
    load_into(model.transformer, {k: t.clone() for k, t in model.transformer.state_dict().items()}, "own", "bf16")
    assert model.precision == "bf16" and model.equal_prefix == (HART_TEXT, 4)
    out = Run(model, model.settings, SeededNoise(7)).generate(hart_features(3), (0,))
    assert out.image.isfinite().all() and not out.ledger.engaged
    ends = [HART_TEXT, HART_TEXT + 4, HART_TEXT + 13, HART_TEXT + 38]
    for k, (work, tokens, end) in enumerate(zip(out.ledger.stages, (HART_TEXT, 4, 9, 25), ends, strict=True)):
        null = 1 if k == 0 else tokens * (end - HART_TEXT + 4)
        assert work.pairs == (tokens * end + null) * 4


# Switches, as load takes them


@pytest.mark.parametrize("given", [{"one_null": True}, Savings(one_null=True)], ids=["by name", "as they are"])
def test_the_switches_of_a_loaded_model(given: object) -> None:
    for name in ("mini-hart", "hart-0.7b"):
        model = vl.load(name, "empty", savings=given)
        assert model.savings == Savings(one_null=True, constants=True) and model.equal_prefix.spared
        assert vl.load(name, "empty").savings == Savings()
    assert vl.load("mini-hart", savings={"constants": False}).savings == Savings(constants=False)


def test_switches_that_do_not_fit_are_refused() -> None:
    refused(lambda: vl.load("mini-hart", savings={"one_nul": True}), "Unknown saving 'one_nul'", "mean one_null?")
    refused(lambda: vl.load("mini-hart", savings={"one_null": "off"}), "one_null", "'off'")
    for name in ("mini-infinity", "var-d16"):
        refused(partial(vl.load, name, savings={"one_null": True}), f"{name} has no such", "leave savings out")
    refused(lambda: vl.load("mini-hart", saving={}), "'saving'", "Did you mean savings?")

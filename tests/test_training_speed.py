"""What makes training fast changes nothing that is learnt: the optimizer, the calls of attention, compiled blocks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.test_training import TINY
from varlab.models.infinity import Block, InfinityConfig
from varlab.models.layers import attention, block_causal_attend
from varlab.models.rotary import rotary_table
from varlab.training.muon import Muon, orthogonal
from varlab.training.precision import autocast, product_type


def test_muon_has_the_bits_and_the_states_of_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("varlab.training.muon.product_type", lambda device: torch.bfloat16)
    torch.manual_seed(0)
    shapes = [(24, 8), (8, 8), (8, 24), (24, 8), (8, 8)]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for start in [[torch.randn(s) for s in shapes]] * 2)
    plain = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    pair = Muon(ours, 1e-2, 0.1), plain
    for _ in range(3):
        for a, b in zip(ours[1:], theirs[1:], strict=True):  # the first has no gradient and stays
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in pair:
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    held = [str(sorted(optimizer.state_dict()["state"].items())) for optimizer in pair]
    assert held[0] == held[1] and "momentum_buffer" in held[0]
    assert not torch.equal(ours[1], ours[4])


def test_training_multiplies_in_fp32_where_there_are_no_bf16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices, known = torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(0)), (3.4445, -4.775, 2.0315)
    found = {}
    for flags in ("avx2", "avx2 avx512_bf16", "asimd bf16", "avx2 amx_bf16"):
        monkeypatch.setattr("varlab.machine._cpuinfo", lambda: f"flags : {flags}")  # noqa: B023
        product_type.cache_clear()
        with autocast("cpu"):
            product = matrices @ matrices.mT
        steps = orthogonal(matrices, known, 5, 1e-7)
        assert product.dtype == steps.dtype == product_type("cpu")
        found[flags] = steps
    product_type.cache_clear()
    assert [steps.dtype for steps in found.values()] == [torch.float32, *[torch.bfloat16] * 3]
    torch.testing.assert_close(found["avx2"], found["avx2 amx_bf16"].float(), rtol=0, atol=0.05)


def test_neighbouring_stages_share_calls_and_see_what_they_should() -> None:
    lengths = (1, 4, 9, 60, 40, 130, 70, 30)  # one call for four stages, one alone, one alone, one for two
    stage = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, len(stage), 8).double() for _ in range(3))
    whole = F.scaled_dot_product_attention(q, k, v, stage[:, None] >= stage, scale=0.7)
    torch.testing.assert_close(block_causal_attend(lengths, 0.7)(q, k, v), whole)
    torch.testing.assert_close(block_causal_attend(lengths, 0.7)(q.requires_grad_(), k, v), whole)


def test_what_is_compiled_is_the_same_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channels of queries and keys stand in another order there, and GELU is written another way."""
    torch.manual_seed(0)
    config, schedule = TINY.transformer, TINY.schedule
    assert isinstance(config, InfinityConfig)
    block, table = Block(config), rotary_table(schedule, config.width // config.heads)
    attend, n = block_causal_attend(tuple(schedule.lengths)), sum(schedule.lengths)
    x, shared, text = (torch.randn(2, *shape) for shape in ((n, 64), (1, 6, 64), (5, 64)))
    with torch.no_grad():
        block.sa.q_bias.normal_()
        block.sa.v_bias.normal_()
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)  # noqa: B023
        block.zero_grad()
        y = block(x, shared, text, None, table, attend)
        y.square().sum().backward()
        found.append([y, *(p.grad for p in block.parameters())])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(plain, compiled, rtol=1e-4, atol=1e-4 * float(plain.detach().abs().max()))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("half", ["", "v", "qkv"])
def test_attention_has_the_gradients_of_its_formula(half: str, autocast: bool) -> None:
    """Of any types, as autocast and norms in fp32 leave them."""
    torch.manual_seed(0)
    held = [torch.randn(2, 3, 6, 8, dtype=torch.bfloat16 if name in half else torch.float32) for name in "qkv"]
    seen, found = torch.rand(6, 6) > 0.3, []
    for plain in (True, False):
        q, k, v = (tensor.clone().requires_grad_() for tensor in held)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            scores = (0.5 * q @ k.mT).masked_fill(~seen, -1e9)
            y = scores.softmax(-1).to(v.dtype) @ v if plain else attention(q, k, v, seen, 0.5)
        y.float().square().sum().backward()
        found.append([y, q.grad, k.grad, v.grad])
    for formula, ours in zip(*found, strict=True):
        near = 1e-5 if not half and not autocast else 0.03 * float(formula.detach().abs().max())
        torch.testing.assert_close(ours, formula, rtol=0, atol=near)

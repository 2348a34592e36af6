"""One call that says whether a module of others and our model are the same on its weights."""

from typing import Any

import numpy as np
import pytest
import torch

import varlab as vl
from tests.conftest import features, hart_features, tiny_hart, tiny_infinity, tiny_var
from tests.minis import refused
from varlab.attached.standins import hart, infinity, var


def test_infinity_is_the_same_by_the_released_sampler_and_by_a_call() -> None:
    own, text = tiny_infinity("odd-tall"), features(3, 5)
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    found = vl.same_model(model, own, vae=vae, text=text, cfg=2.0)
    assert found.passed
    assert found.table["conditional"].max() < 1e-6
    assert found.table["agree"].min() == 1
    assert found.image < 1e-5
    assert "the same" in repr(found) and "NOT" not in repr(found)
    other = tiny_infinity("odd-tall", seed=3)
    before = {name: tensor.clone() for name, tensor in other.transformer.state_dict().items()}
    assert vl.same_model(model, other, vae=vae, text=text).passed  # its weights are not used, and not touched
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.transformer.state_dict().items())

    def call() -> Any:
        return model.autoregressive_infer_cfg(**infinity.arguments(own, text, vae=vae, top_k=0, cfg_list=3.0))

    drawn = vl.same_model(model, vae=vae, generate=call)  # sizes, schedule, text and labels from the call itself
    assert drawn.passed
    run = vl.sample(drawn.ours, text, probes=["token-mse"], batch=2, top_k=1, top_p=0.0)
    wanted = vl.sample(own, text, probes=["token-mse"], batch=2, top_k=1, top_p=0.0, cfg=3.0)
    np.testing.assert_array_equal(run.log["token-mse"].mse, wanted.log["token-mse"].mse)


@pytest.mark.parametrize("variant", [{}, {"shared": True}, {"cosine": False}])
def test_var_is_the_same(variant: dict[str, bool]) -> None:
    found = vl.same_model(var.StandIn(tiny_var("square", **variant)), text=[3, 4], cfg=2.0)
    assert found.passed
    assert found.image < 1e-5


def test_hart_is_the_same_but_for_what_its_head_draws() -> None:
    own = tiny_hart()
    found = vl.same_model(hart.StandIn(own), own, text=hart_features(3, 5))
    assert found.passed
    assert np.isnan(found.image)
    assert found.table["canvas"].isna().tolist() == [False, False, False, True]
    assert "drawn at random" in repr(found)


def test_another_network_on_the_same_weights_is_not_the_same() -> None:
    own = tiny_var()
    model = var.StandIn(own)
    for block in model.blocks:
        block.attn.scale = 0.8  # type: ignore[union-attr]
    found = vl.same_model(model, text=[3])
    assert not found.passed
    assert "NOT the same" in repr(found)
    assert vl.same_model(model, text=[3], tolerance=10.0).passed


def test_what_cannot_be_compared_is_refused() -> None:
    own = tiny_infinity("odd-tall")
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    refused(lambda: vl.same_model(model, own, vae=vae), "text=", "generate=")
    refused(lambda: vl.same_model(model, vae=vae, text=features(3)), "our model")
    refused(lambda: vl.same_model(model, own, vae=vae, text=["a red star"]), "TextBatch")
    refused(lambda: vl.same_model(model, tiny_var(), vae=vae, text=features(3)), "is a var")
    call = lambda: model.autoregressive_infer_cfg(**infinity.arguments(own, features(3), vae=vae))  # noqa: E731
    refused(lambda: vl.same_model(model, tiny_infinity("square"), vae=vae, generate=call), "up to (5, 5)")
    model.extra = torch.nn.Parameter(torch.zeros(1))
    refused(lambda: vl.same_model(model, own, vae=vae, text=features(3)), "unexpected", "extra")
    other = var.StandIn(tiny_var())
    refused(
        lambda: vl.same_model(other, generate=lambda: other.autoregressive_infer_cfg(1, 3, 0, 2.0, more_smooth=True)),
        "more_smooth",
    )
    refused(lambda: vl.same_model(hart.StandIn(tiny_hart()), text=["a"]), "HartText")
    refused(lambda: vl.same_model(other, text="red"), "class numbers")

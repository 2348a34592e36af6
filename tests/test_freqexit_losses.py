"""FreqExit's losses: wavelets against PyWavelets, the switches between code and paper, curriculum, gradients."""

import numpy as np
import pytest
import pywt
import torch

from tests.minis import refused
from varlab.training.freqexit import CORRECTED, OFFICIAL, Objective, losses
from varlab.training.freqexit.curriculum import executed, rotation, shares, supervised
from varlab.training.freqexit.fgsr import Gate, Predictor, Reconstruction
from varlab.training.freqexit.losses import FrequencyLoss, fine_stages, frequency_weight, grids, recipe
from varlab.training.freqexit.wavelets import haar, inverse

SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
TOKENS = sum(side * side for side in SIDES)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Wavelets


@pytest.mark.parametrize("shape", [(6, 6), (13, 13), (5, 8), (3, 3)])
def test_haar_equals_pywavelets(shape: tuple[int, int]) -> None:
    x = normal(2, 3, *shape).double()
    ll, details = haar(x)
    expected, (lh, hl, hh) = pywt.dwt2(x.numpy(), "haar", mode="reflect")
    assert np.allclose(ll, expected) and np.allclose(details, np.stack([lh, hl, hh], -3))
    assert torch.allclose(inverse(ll, details)[..., : shape[0], : shape[1]], x)


@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (1, 1), (1, 4)])
def test_exact_gradient(shape: tuple[int, int]) -> None:
    x = normal(1, 1, *shape).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: haar(x, "exact"), (x,))


def test_the_library_loses_the_gradient_of_mirrored_samples() -> None:
    gradients = {}
    for name in ("exact", "library"):
        for side in (6, 13):
            x = normal(1, 2, side, side).requires_grad_()
            (haar(x, name)[1] * normal(1, 2, 3, (side + 1) // 2, (side + 1) // 2, seed=1)).sum().backward()  # type: ignore[arg-type]
            assert x.grad is not None
            gradients[name, side] = x.grad
    assert torch.equal(gradients["exact", 6], gradients["library", 6])
    assert not torch.allclose(gradients["exact", 13], gradients["library", 13], atol=0.1)


# Curriculum


def test_rotation_covers_all_layers_and_always_the_last() -> None:
    assert [rotation(step, 20) for step in range(4)] == [list(range(5 * g, 5 * g + 5)) for g in range(4)]
    assert supervised(5, 20) == [5, 6, 7, 8, 9, 19] and supervised(3, 8) == [6, 7]
    assert sorted({layer for step in range(4) for layer in rotation(step, 13)}) == list(range(13))


def test_deeper_layers_weigh_more() -> None:
    share = shares(supervised(0, 20))
    assert share[0] == 0 and round(share[19], 3) == 0.905 and round(share[4], 3) == 0.048
    assert round(shares(supervised(3, 20))[15], 3) == 0.156
    assert shares([0]) == {0: 1.0}


def test_masks_repeat_and_never_drop_a_whole_batch() -> None:
    masks = executed(7, 20, 6, 0.9)
    assert torch.equal(masks, executed(7, 20, 6, 0.9)) and not torch.equal(masks, executed(8, 20, 6, 0.9))
    assert masks[0].all() and masks.any(1).all() and not masks.all()
    assert executed(0, 20, 1, 1.0).all()


# High frequencies


def test_the_raw_layout_mixes_channels_and_places() -> None:
    maps = normal(2, 16, 3)
    assert torch.equal(grids(maps, 4)[:, :, 1, 2], maps[:, 6])
    assert grids(maps, 4, "raw").flatten().tolist() == maps.flatten().tolist()


def test_smooth_maps_have_no_detail_in_the_right_layout_only() -> None:
    flat = torch.tensor([0.0, 5.0, -5.0]).expand(1, 55 + 625, 3)  # one vector everywhere, channels far apart
    zero = torch.zeros_like(flat)
    right, raw = (FrequencyLoss(SIDES, layout).layer(flat, zero) for layout in ("transposed", "raw"))  # type: ignore[arg-type]
    assert right == 0 and raw > 1


def test_windows() -> None:
    code = [frequency_weight(p, "code") for p in (0.0, 0.249, 0.25, 0.499, 0.5, 1.0)]
    assert code == [0, 0, 0.3, 0.3, 0, 0]
    paper = [frequency_weight(p, "paper") for p in (0.0, 0.25, 0.375, 0.5, 1.0)]
    assert np.allclose(paper, [0, 0, 0.15, 0.3, 0.3])


def test_fewer_than_ten_stages_are_refused_with_a_way_out() -> None:
    refused(lambda: FrequencyLoss(SIDES[:8]), "stages 6 to 10", "has 8", "fine_stages")
    assert fine_stages((1, 2, 3, 4, 6)) == (2, 3, 4) and fine_stages(SIDES) == (5, 6, 7, 8, 9)
    FrequencyLoss(SIDES[:8], stages=fine_stages(SIDES[:8]))
    refused(lambda: Objective(OFFICIAL, 8, SIDES[:6], 4), "high-frequency")


# Reconstruction


def test_the_shipped_predictor_is_a_penalty_on_detail() -> None:
    """With its last convolution at zero the error is the detail energy over the number of entries."""
    maps = normal(2, TOKENS, 4)
    module = Reconstruction(Predictor, 4, SIDES)
    energy, weights = 0.0, module.stages()
    start = sum(side * side for side in SIDES[:6])
    for k, weight in weights.items():
        side = SIDES[k]
        part = grids(maps[:, start : start + side * side], side)
        start += side * side
        rebuilt = inverse((bands := haar(part))[0], torch.zeros_like(bands[1]))[..., :side, :side]
        energy += weight * float((rebuilt - part).square().mean())
        if side % 2 == 0:
            assert torch.allclose((rebuilt - part).square().sum(), bands[1].square().sum(), rtol=1e-4)
    assert np.isclose(module({19: maps}).item(), energy / sum(weights.values()), rtol=1e-5)
    assert set(weights) == {6, 7, 8, 9}


def test_gates_cover_every_stage_and_train() -> None:
    module = Reconstruction(Gate, 4, SIDES)
    assert len(module.stages()) == 10
    module({19: normal(1, TOKENS, 4)}).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


# The sum


def test_recipes_differ_in_every_switch() -> None:
    names = ("hf_layout", "hf_window", "dwt_grad", "fgsr", "fgsr_trainable", "kd_shared_label_drop", "kd_last")
    assert all(getattr(OFFICIAL, name) != getattr(CORRECTED, name) for name in names)
    assert recipe("official") is OFFICIAL
    refused(lambda: recipe("oficial"), "Did you mean official")


@pytest.mark.parametrize("config", [OFFICIAL, CORRECTED], ids=["official", "corrected"])
def test_an_update_of_each_recipe(config: losses.LossConfig) -> None:
    objective = Objective(config, 8, SIDES, 4)
    logits = {layer: normal(2, TOKENS, 12, seed=layer).requires_grad_() for layer in (2, 3, 7)}
    ids = torch.zeros(2, TOKENS, dtype=torch.long)
    kept = {3: torch.tensor([False, True])}
    for progress, active in ((0.1, False), (0.3, True), (0.9, config is CORRECTED)):
        out = objective(logits, normal(2, TOKENS, 12), ids, normal(12, 4), kept, progress)
        assert (out.frequency is not None) == active and out.total.isfinite()
    out.total.backward()
    assert logits[3].grad is not None and not logits[3].grad[0].any() and logits[3].grad[1].any()
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    assert bool(trained) == config.fgsr_trainable

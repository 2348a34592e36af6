"""Sobel edges and SkipVAR's two features, against closed forms, plain loops and the official numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.spectra_parts import noise, wave
from varlab.errors import VarlabError
from varlab.measures import edges, spectra

GOLDEN = Path(__file__).parent / "goldens" / "skipvar_features_small.npz"


def test_sobel_of_a_step_and_a_ramp():
    step = torch.zeros(5, 6)
    step[:, 3:] = 1
    found = edges.sobel_magnitude(step)
    assert found[2].tolist() == [0, 0, 4, 4, 0, 0]
    torch.testing.assert_close(edges.sobel_magnitude(step.mT), found.mT)
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    assert edges.sobel_magnitude(3 * x + 4 * y)[2, 2] == 8 * 5
    with pytest.raises(VarlabError, match="zeros"):
        edges.sobel_magnitude(step, padding="zero")  # type: ignore[arg-type] # the fault under test


def test_sobel_border():
    flat = torch.ones(2, 4, 4)
    assert edges.sobel_magnitude(flat).max() == 0
    framed = edges.sobel_magnitude(flat, padding="zeros")
    assert framed[0, 1:3, 1:3].max() == 0
    assert framed[0, 0, 1] == 4
    assert framed[0, 0, 0] == pytest.approx(3 * math.sqrt(2))


def test_skipvar_closed_forms():
    flat = torch.full((3, 32, 32), 0.4)
    assert edges.skipvar_hf_ratio(flat) < 1e-6
    assert edges.skipvar_hf_diff(flat, flat) == 0
    assert edges.skipvar_hf_diff(flat, 0.5 * flat) > 0.01  # the zero border, as in the official code
    # Radius int(.4 * 32 / 2) = 6, the rim inside.
    ratios = [edges.skipvar_hf_ratio(wave(32, 32, 0, k).expand(3, 32, 32)).item() for k in (6, 7)]
    assert ratios == pytest.approx([0, 1], abs=1e-5)
    # Magnitude, not power, and DC counts: amplitudes 1/2 + 1/2 of the wave against a mean of 3, all over 4.
    assert edges.skipvar_hf_ratio((3 + wave(32, 32, 9, 0).expand(3, 32, 32)) / 4) == pytest.approx(0.25, rel=1e-5)
    # The channels are averaged before the transform: opposite ones vanish.
    opposite = torch.stack([wave(32, 32, 9, 0), -wave(32, 32, 9, 0), torch.zeros(32, 32)]) / 2 + 0.5
    assert edges.skipvar_hf_ratio(opposite) < 1e-5


# Kind 1 of the golden file: cosines of (5 + i, 1 + i) and (6 + i, 1 + i) cycles, channel mean .2166667 at phase
# -1.736288; HF_Diff, HF_Ratio(new), HF_Ratio(old), HF_Ratio(new, .25) of the official code.
OFFICIAL_WAVES = [
    ((32, 32), (0.522511303, 0, 1, 1)),
    ((128, 128), (0.204087541, 0, 0, 0)),
    ((48, 32), (0.507802188, 1, 1, 1)),
    ((31, 45), (0.558346152, 1, 1, 1)),
    ((64, 96), (0.492474794, 0, 0, 1)),
]


@pytest.mark.parametrize("i", range(5))
def test_skipvar_features_of_the_official_code_on_sinusoids(i):
    (height, width), expected = OFFICIAL_WAVES[i]
    new, old = (
        (0.2166667 * wave(height, width, ky, 1 + i, phase=-1.736288)).expand(3, height, width) for ky in (5 + i, 6 + i)
    )
    assert edges.skipvar_hf_diff(new, old) == pytest.approx(expected[0], rel=1e-5)
    ratios = [edges.skipvar_hf_ratio(new), edges.skipvar_hf_ratio(old), edges.skipvar_hf_ratio(new, 0.25)]
    assert ratios == pytest.approx(expected[1:], abs=2e-4)


def test_skipvar_features_of_the_official_code_on_constants():
    new, old = (
        torch.tensor(means)[:, None, None].expand(3, 32, 32)
        for means in [(0.08083654, -0.02907905, -0.5574325), (-0.06406303, -0.07169853, -0.3017926)]
    )
    assert edges.skipvar_hf_diff(new, old) == pytest.approx(0.011020189, rel=1e-5)


@pytest.mark.parametrize("size", [(20, 20), (15, 22)])
def test_skipvar_features_as_convolution_and_shifted_disc(size):
    new, old = noise(2, 3, *size).tanh(), noise(2, 3, *size, seed=1).tanh()
    y, x = np.ogrid[: size[0], : size[1]]
    outside = np.hypot(y - size[0] // 2, x - size[1] // 2) > int(0.4 * min(size) / 2)
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(new.mean(1).numpy()), axes=(-2, -1)))
    expected = (magnitude * outside).sum((-2, -1)) / (magnitude.sum((-2, -1)) + 1e-6)
    np.testing.assert_allclose(edges.skipvar_hf_ratio(new).numpy(), expected, rtol=1e-5)

    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([kernel, kernel.mT])[:, None]
    gradients = [
        torch.nn.functional.conv2d(m.mean(1, keepdim=True), kernels, padding=1).norm(dim=1) for m in (new, old)
    ]
    difference = (gradients[0] - gradients[1]).abs().mean((-2, -1))
    torch.testing.assert_close(edges.skipvar_hf_diff(new, old), difference)


def test_skipvar_features_of_the_golden_file():
    with np.load(GOLDEN) as golden:
        pairs = sorted(name.removeprefix("new_") for name in golden if name.startswith("new_"))
        for name, expected in zip(pairs, golden["rows"], strict=True):
            new, old = (torch.from_numpy(golden[f"{which}_{name}"]) for which in ("new", "old"))
            ours = [
                edges.skipvar_hf_diff(new, old).item(),
                edges.skipvar_hf_ratio(new).item(),
                edges.skipvar_hf_ratio(old).item(),
                edges.skipvar_hf_ratio(new, 0.25).item(),
            ]
            np.testing.assert_allclose(ours, expected[3:], rtol=1e-5, atol=1e-6)
            if f"sobel_new_{name}" in golden:
                sobel = edges.sobel_magnitude(new.mean(-3), padding="zeros")
                np.testing.assert_allclose(sobel.numpy(), golden[f"sobel_new_{name}"][:, 0], atol=1e-5)
        new, old = (torch.from_numpy(np.concatenate([golden[f"{w}_0_3"], golden[f"{w}_0_2"]])) for w in ("new", "old"))
        np.testing.assert_allclose(edges.skipvar_hf_ratio(new).numpy(), golden["batch2_ratio"][:, 0], rtol=1e-5)
        # The official code averages HF_Diff over the batch, ours stays per image.
        difference = edges.skipvar_hf_diff(new, old).mean().item()
        assert difference == pytest.approx(float(golden["batch2_l1"]), rel=1e-5)


def test_the_summary_equals_its_parts() -> None:
    maps = torch.randn(2, 3, 5, 8, 6, generator=torch.Generator().manual_seed(0))
    power, high, centroid = spectra.spectral_summary(maps)
    assert torch.allclose(power, spectra.radial_power(maps)[0].mean(-2), atol=1e-6)
    assert torch.allclose(high, spectra.high_frequency_share(maps, channel_dim=-3))
    assert torch.allclose(centroid, spectra.spectral_centroid(maps, channel_dim=-3))

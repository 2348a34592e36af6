"""Image metrics against closed forms, scikit-image and SciPy."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from varlab.errors import VarlabError
from varlab.measures import metrics


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pattern(height: int, width: int) -> torch.Tensor:
    """A smooth image [3, H, W] in [0, 1] from a closed form."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    waves = [torch.sin(0.31 * x + 0.17 * y), torch.cos(0.23 * x - 0.41 * y), torch.sin(0.05 * x * y)]
    return 0.5 + 0.4 * torch.stack(waves)


# --- fidelity -----------------------------------------------------------------------------------------------


def test_psnr_of_a_known_error():
    image = torch.full((2, 3, 8, 8), 0.5)
    assert metrics.psnr(image, image + 0.1).tolist() == pytest.approx([20, 20], rel=1e-4)
    assert metrics.psnr(image, image).tolist() == [math.inf, math.inf]
    one_pixel = image.clone()
    one_pixel[:, 0, 0, 0] += 0.5
    assert metrics.psnr(image, one_pixel)[0] == pytest.approx(10 * math.log10(192 / 0.25), rel=1e-5)


@pytest.mark.parametrize("size", [(11, 11), (23, 40), (64, 48)])
@pytest.mark.parametrize("strength", [0.02, 0.3, 1.0])
def test_ssim_equals_scikit_image(size, strength):
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    image = pattern(*size)
    other = (1 - strength) * image + strength * noise(3, *size)
    expected = skimage.structural_similarity(
        image.double().numpy(),
        other.double().numpy(),
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
    )
    assert metrics.ssim(image, other) == pytest.approx(expected, abs=2e-6)


def test_ssim_numbers_of_scikit_image():
    """Numbers of scikit-image 0.26 for images that need no generator, for where it is not installed."""
    image = pattern(24, 32)
    others = [image.square(), image.flip(-1), 0.5 * image + 0.5]
    expected = [0.7890912, -0.0317763, 0.6970656]
    assert [metrics.ssim(image, other).item() for other in others] == pytest.approx(expected, abs=2e-6)


def test_ssim_closed_forms():
    image = noise(2, 3, 20, 20)
    assert metrics.ssim(image, image).tolist() == [1, 1]
    assert metrics.ssim(image, image.flip(0)).diff() == 0  # symmetric
    # Two constants: the luminance term alone.
    a, b = torch.full((3, 16, 16), 0.2), torch.full((3, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=2e-4)
    for value in (0.0, 0.999, 1.0):  # where float32 loses most digits to cancellation
        flat = torch.full((3, 16, 16), value)
        assert metrics.ssim(flat, flat) == 1


def test_ssim_ignores_autocast():
    image, other = pattern(32, 32), noise(3, 32, 32)
    plain = metrics.ssim(image, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert metrics.ssim(image, other) == plain


def test_leading_dimensions_broadcast():
    previews, final = noise(4, 2, 3, 12, 14), noise(2, 3, 12, 14, seed=1)
    for metric in (metrics.psnr, metrics.ssim, metrics.high_frequency_ssim):
        values = metric(previews, final)
        assert values.shape == (4, 2)
        torch.testing.assert_close(values[2, 1], metric(previews[2, 1], final[1]))


@pytest.mark.parametrize("metric", [metrics.ssim, metrics.high_frequency_ssim])
def test_images_below_the_window_are_refused(metric):
    small = torch.zeros(3, 10, 64)
    with pytest.raises(VarlabError, match="11 x 11"):
        metric(small, small)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.high_frequency_ssim])
def test_different_sizes_are_refused(metric):
    with pytest.raises(VarlabError, match="Resize"):
        metric(torch.zeros(3, 16, 16), torch.zeros(3, 16, 32))


def test_high_pass_is_scipys():
    image = noise(2, 3, 17, 13)
    sigma = (0, 0, 1.5, 1.5)
    blurred = scipy.ndimage.gaussian_filter(image.double().numpy(), sigma, mode="mirror", truncate=3.5)
    np.testing.assert_allclose(metrics.high_pass(image).numpy(), image.numpy() - blurred, atol=1e-6)


def test_high_pass_gains():
    x = torch.arange(64)
    for cycles, gain in [(0, 0), (0.125, 0.5), (0.5, 1)]:
        m = torch.cos(2 * math.pi * cycles * x).expand(3, 64, 64)
        passed = metrics.high_pass(m)[..., 8:-8]
        assert (passed.square().sum() / m[..., 8:-8].square().sum()).sqrt() == pytest.approx(gain, abs=0.01)


def test_high_frequency_ssim_looks_at_detail_only():
    image = 0.3 + 0.4 * noise(3, 32, 32)
    lighter = image + 0.2
    assert metrics.high_frequency_ssim(image, image) == 1
    assert metrics.high_frequency_ssim(image, lighter) == pytest.approx(1, abs=1e-3)
    assert metrics.ssim(image, lighter) < 0.95
    shaded = 0.7 * pattern(32, 32) + 0.15 * image
    blurred = shaded - metrics.high_pass(shaded)
    assert metrics.high_frequency_ssim(shaded, blurred) < metrics.ssim(shaded, blurred) - 0.05
    negative = image - 2 * metrics.high_pass(image)
    assert metrics.high_frequency_ssim(image, negative) < -0.5


# --- edges --------------------------------------------------------------------------------------------------


def test_luma_weights():
    primaries = torch.eye(3).reshape(3, 3, 1, 1)
    assert metrics.luma(primaries).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    torch.testing.assert_close(metrics.luma(torch.ones(3, 2, 2)), torch.ones(2, 2))
    with pytest.raises(VarlabError, match="RGB"):
        metrics.luma(torch.ones(1, 4, 4))


def test_edge_energy_finds_the_edge_cells():
    image = torch.zeros(2, 3, 16, 24)
    image[0, :, :, 10:] = 1  # the step responds in columns 9 and 10, both in cell column 2 of width 4
    edges = metrics.edge_energy(image, (4, 6))
    assert edges.shape == (2, 4, 6)
    assert edges[0, 1].tolist() == pytest.approx([0, 0, 2, 0, 0, 0], abs=1e-6)  # mean of 4, 4, 0, 0
    assert edges[1].max() == 0
    odd = metrics.edge_energy(image, (5, 7))
    expected = torch.nn.functional.adaptive_avg_pool2d(metrics.sobel_magnitude(metrics.luma(image)), (5, 7))
    torch.testing.assert_close(odd, expected)


# --- spread -------------------------------------------------------------------------------------------------


def test_concentration_closed_forms():
    edges = torch.arange(8.0)
    energy = torch.tensor([1.0, 1, 1, 1, 1, 1, 4, 10])
    assert metrics.concentration(energy, edges) == pytest.approx(14 / 20)
    assert metrics.concentration(energy, -edges) == pytest.approx(2 / 20)
    assert metrics.concentration(energy, edges, quarter=1) == 1
    assert metrics.concentration(torch.ones(8), edges) == 0.25
    batch = metrics.concentration(energy.expand(3, 2, 8), edges)
    assert batch.shape == (3, 2)
    for bad in (0, 1.5, -1):
        with pytest.raises(VarlabError, match="share"):
            metrics.concentration(energy, edges, quarter=bad)
    with pytest.raises(VarlabError, match="8 cells"):
        metrics.concentration(energy, edges[:4])


def test_concentration_ties_and_fractions():
    edges = torch.tensor([5.0, 1, 1, 1, 1, 0, 0, 0])
    energy = torch.tensor([2.0, 8, 0, 0, 0, 0, 0, 0])
    # Two cells count: the first, and a quarter of each of the four that tie.
    assert metrics.concentration(energy, edges) == pytest.approx((2 + 8 / 4) / 10)
    order = torch.tensor([3, 1, 0, 7, 6, 5, 4, 2])
    assert metrics.concentration(energy[order], edges[order]) == pytest.approx(0.4)
    # 1.5 of 6 cells: the second largest counts by half.
    assert metrics.concentration(torch.tensor([4.0, 4, 1, 1, 0, 0]), torch.arange(6, 0, -1)) == 0.6
    assert metrics.concentration(noise(9), torch.ones(9)) == pytest.approx(0.25)
    # .07 * 100 is 7.000000000000001 in floating point, yet seven cells.
    assert metrics.concentration(torch.ones(100), torch.arange(100), quarter=0.07) == pytest.approx(0.07)


def test_concentration_without_energy_or_edges_is_nan():
    assert metrics.concentration(torch.zeros(8), torch.arange(8)).isnan()
    edges = torch.arange(8.0)
    edges[0] = torch.nan
    assert metrics.concentration(torch.ones(8), edges).isnan()


def test_gini():
    assert metrics.gini(torch.full((5,), 3.0)) == 0
    assert metrics.gini(torch.tensor([0.0, 0, 7, 0])) == pytest.approx(0.75)
    assert metrics.gini(torch.zeros(4)).isnan()
    x = noise(2, 3, 50)
    mean_difference = (x[..., :, None] - x[..., None, :]).abs().mean((-2, -1))
    torch.testing.assert_close(metrics.gini(x), mean_difference / (2 * x.mean(-1)))
    torch.testing.assert_close(metrics.gini(100 * x), metrics.gini(x))


@pytest.mark.parametrize("levels", [1000000, 5, 2])  # few levels: many ties
def test_spearman_equals_scipy(levels):
    a, b = (noise(3, 2, 40, seed=s).mul(levels).floor() for s in (0, 1))
    b = b + 0.5 * a
    ours = metrics.spearman(a, b)
    expected = [scipy.stats.spearmanr(x, y).statistic for x, y in zip(a.view(-1, 40), b.view(-1, 40), strict=True)]
    np.testing.assert_allclose(ours.flatten().numpy(), expected, atol=1e-6)


def test_spearman_closed_forms():
    a = noise(4, 30)
    assert metrics.spearman(a, a.exp()).tolist() == pytest.approx([1] * 4)
    assert metrics.spearman(a, -a).tolist() == pytest.approx([-1] * 4)
    assert metrics.spearman(a, a[0]).shape == (4,)
    assert metrics.spearman(a.mT.contiguous().mT, a).tolist() == pytest.approx([1] * 4)  # any strides
    assert metrics.spearman(a[0].bfloat16(), torch.arange(30)).isfinite()
    assert metrics.spearman(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 3, 2])) == pytest.approx(0.5)
    with pytest.raises(VarlabError, match="pair"):
        metrics.spearman(a, a[:, 1:])


def test_spearman_is_nan_without_order():
    a = noise(6)
    assert metrics.spearman(a, torch.ones(6)).isnan()
    assert metrics.spearman(torch.ones(1), torch.ones(1)).isnan()
    holed = torch.stack([a, a])
    holed[0, 3] = torch.nan
    assert metrics.spearman(holed, a).isnan().tolist() == [True, False]

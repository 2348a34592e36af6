"""MS-SSIM, DISTS, wavelet bands, spectra of differences: against scipy, PyWavelets, numpy and definitions by hand."""

from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.measures.differences import ROUNDING, spectrum_difference, wavelet_difference
from varlab.measures.metrics import ms_ssim, ssim, ssims
from varlab.measures.spectra import radial_power, wavelet_energy
from varlab.weights import dists
from varlab.weights.dists import load_dists
from varlab.weights.lpips import load_lpips


def pair(*shape: int, noise: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(shape, generator=generator)
    return image, (0.9 * image + noise * torch.rand(shape, generator=generator)).clamp(0, 1)


# MS-SSIM


def by_scipy(x: np.ndarray, y: np.ndarray) -> float:
    """One channel in double precision, with Gaussian windows of scipy."""
    powers, product = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333), 1.0

    def blur(z: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(z, 1.5, radius=5)[5:-5, 5:-5]

    for scale, power in enumerate(powers):
        mx, my = blur(x), blur(y)
        cs = (2 * (blur(x * y) - mx * my) + 0.0009) / (blur(x * x) - mx**2 + blur(y * y) - my**2 + 0.0009)
        luminance = (2 * mx * my + 0.0001) / (mx**2 + my**2 + 0.0001)
        product *= ((luminance * cs if scale == 4 else cs).mean()) ** power
        height, width = (side // 2 * 2 for side in x.shape)
        x, y = (z[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for z in (x, y))
    return float(product)


@pytest.mark.parametrize("size", [(176, 176), (203, 181), (256, 320)])
def test_ms_ssim_is_its_definition(size: tuple[int, int]) -> None:
    a, b = pair(2, 3, *size)
    expected = [np.mean([by_scipy(x.double().numpy(), y.double().numpy()) for x, y in zip(*images, strict=True)])
                for images in zip(a, b, strict=True)]  # fmt: skip
    assert ms_ssim(a, b).tolist() == pytest.approx(expected, abs=2e-6)


def test_ms_ssim_shares_its_first_scale_and_knows_equal_images() -> None:
    a, b = pair(2, 3, 180, 190)
    fine, multi = ssims(a, b)
    assert torch.allclose(fine, ssim(a, b), atol=1e-6) and (multi > fine).all()
    assert ms_ssim(a, a).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert 0 <= float(ms_ssim(a[0], 1 - a[0])) < 0.1  # negative structure counts as none


def test_ms_ssim_refuses_small_images() -> None:
    with pytest.raises(VarlabError, match="176 pixels"):
        ms_ssim(*pair(3, 175, 300))


# Wavelets and spectra


@pytest.mark.parametrize("size", [(32, 48), (33, 48), (31, 29)])
def test_wavelet_errors_are_energies_of_pywavelets(size: tuple[int, int]) -> None:
    a, b = pair(3, *size)
    found = wavelet_difference(a, b)
    modes = tuple("symmetric" if side % 2 else "periodization" for side in size)
    for tensor, image in ((found.error, a - b), (found.gain, a)):
        energies = []
        for part in (image, b):
            low, details = pywt.dwt2(part.double().numpy(), "haar", modes, axes=(-2, -1))
            energies.append(np.array([np.square(band).sum() for band in (low, *details)]))
        assert tensor.tolist() == pytest.approx((energies[0] / energies[1]).tolist(), rel=1e-4)
    details = [sum(float(e) for e in wavelet_energy(part, channel_dim=-3)[1:4]) for part in (a - b, a, b)]
    assert float(found.detail_error) == pytest.approx(details[0] / details[2], rel=1e-4)
    assert float(found.detail_gain) == pytest.approx(details[1] / details[2], rel=1e-4)


def test_equal_images_differ_in_no_band_and_a_flat_one_has_none() -> None:
    a, _ = pair(2, 3, 16, 16)
    same = wavelet_difference(a, a)
    assert (same.error == 0).all() and (same.gain == 1).all() and (same.detail_error == 0).all()
    flat = wavelet_difference(a, torch.full_like(a, 0.5))
    assert flat.error[:, 1:].isnan().all() and flat.detail_gain.isnan().all() and flat.error[:, 0].isfinite().all()
    with pytest.raises(VarlabError, match="Unknown wavelet"):
        wavelet_difference(a, a, "none")


def test_spectra_of_a_difference_are_numpys() -> None:
    a, b = pair(3, 24, 24)
    found = spectrum_difference(a, b)
    rho = np.hypot(np.fft.fftfreq(24)[:, None], np.fft.fftfreq(24)[None])
    ring = np.floor(rho * 24 + 0.5).astype(int)
    for tensor, image in ((found.image, a), (found.reference, b), (found.difference, a - b)):
        power = (np.abs(np.fft.fft2(image.double().numpy(), norm="ortho")) ** 2).mean(0)
        expected = [power[ring == n].mean() for n in range(ring.max() + 1)]
        assert tensor.tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(found.image, radial_power(a)[0].mean(-2), rtol=1e-5)
    inside = (found.frequency > 0) & (found.frequency <= 0.5)
    apart = 10 * np.log10((found.image.numpy() + ROUNDING) / (found.reference.numpy() + ROUNDING))[inside.numpy()]
    assert float(found.decibels()) == pytest.approx(np.sqrt(np.mean(apart**2)), rel=1e-4)


def test_decibels_of_half_the_contrast_and_of_flat_images() -> None:
    a, _ = pair(3, 64, 64)
    assert float(spectrum_difference(a / 2, a).decibels()) == pytest.approx(20 * np.log10(2), abs=0.01)
    flat = torch.full((3, 32, 32), 0.5)
    assert float(spectrum_difference(flat, flat).decibels()) == 0


# DISTS


class Pool(nn.Module):
    """The square root of the blurred square, with a window of numpy's."""

    def forward(self, x: Tensor) -> Tensor:
        taps = np.hanning(5)[1:-1]
        kernel = torch.tensor(np.outer(taps, taps) / np.outer(taps, taps).sum(), dtype=x.dtype)
        blurred = [nn.functional.conv2d(part**2, kernel[None, None], stride=2, padding=1) for part in x.split(1, 1)]
        return (torch.cat(blurred, 1) + 1e-12).sqrt()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in two files named and laid out as the official ones."""
    place, generator = tmp_path_factory.mktemp("dists"), torch.Generator().manual_seed(0)
    made = {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in dists.shapes().items()}
    torch.save({name: made.pop(name).abs() for name in ("alpha", "beta")}, place / "weights.pt")
    torch.save(made | {"classifier.0.bias": torch.zeros(3)}, place / "vgg16-397923af.pth")
    return place


def by_hand(a: Tensor, b: Tensor, folder: Path) -> float:
    """Layers of VGG-16 in torchvision's order; statistics by numpy's var and cov."""
    weights = torch.load(folder / "vgg16-397923af.pth")
    shares = torch.load(folder / "weights.pt")
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, y = ((z - mean.view(3, 1, 1)) / deviation.view(3, 1, 1) for z in (a[None], b[None]))
    maps, numbers = [(a[None], b[None])], iter(range(31))
    for layers in (2, 2, 3, 3, 3):
        for _ in range(layers):
            n = next(numbers)
            next(numbers)  # its ReLU
            x, y = (nn.functional.conv2d(z, weights[f"features.{n}.weight"], weights[f"features.{n}.bias"], padding=1)
                    .relu() for z in (x, y))  # fmt: skip
        maps.append((x, y))
        x, y = Pool()(x), Pool()(y)
        next(numbers)
    total, alike, start = shares["alpha"].sum() + shares["beta"].sum(), 0.0, 0
    for p, q in maps:
        for channel in range(p.shape[1]):
            u, v = p[0, channel].double().numpy().ravel(), q[0, channel].double().numpy().ravel()
            texture, structure = (float(shares[name][0, start + channel, 0, 0] / total) for name in ("alpha", "beta"))
            covariance = np.cov(u, v, ddof=0)
            alike += texture * (2 * u.mean() * v.mean() + 1e-6) / (u.mean() ** 2 + v.mean() ** 2 + 1e-6)
            alike += structure * (2 * covariance[0, 1] + 1e-6) / (covariance[0, 0] + covariance[1, 1] + 1e-6)
        start += p.shape[1]
    return 1 - alike


def test_dists_is_its_definition(folder: Path) -> None:
    a, b = pair(2, 3, 40, 56, noise=0.3)
    measure = load_dists(folder)
    assert measure is not None
    assert measure(a, b).tolist() == pytest.approx([by_hand(x, y, folder) for x, y in zip(a, b, strict=True)], abs=2e-5)
    assert measure(a, a).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_dists_shrinks_large_images_as_pil_does() -> None:
    pixels = torch.randint(0, 256, (300, 420, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    small = dists._shrunk(pixels.movedim(-1, 0)[None].float() / 255)
    expected = np.asarray(Image.fromarray(pixels.numpy()).resize((358, 256), Image.Resampling.BILINEAR)) / 255
    assert small.shape == (1, 3, 256, 358)
    assert np.abs(small[0].movedim(0, -1).numpy() - expected).max() < 1.01 / 255


def test_both_distances_may_share_a_folder_and_say_what_they_lack(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(dists.VARIABLE, raising=False)
    assert load_dists() is None
    with pytest.raises(VarlabError, match=r"vgg16-397923af.pth and weights.pt"):
        load_dists(tmp_path)
    with pytest.raises(VarlabError, match="LPIPS"):
        load_lpips(folder)  # VGG's convolutions have AlexNet's names, and other shapes
    with pytest.raises(VarlabError, match="at least 16"):
        measure = load_dists(folder)
        assert measure is not None
        measure(*pair(1, 3, 15, 40))

"""Spectra against closed forms, PyWavelets and the features of the official SkipVAR code."""

import math

import numpy as np
import pytest
import pywt
import torch

from tests.spectra_parts import noise, wave
from varlab.errors import VarlabError
from varlab.measures import spectra

SIZES = [(16, 16), (15, 21), (32, 48), (9, 8), (1, 12), (1, 1)]


# --- radial spectra ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_parseval(size):
    m = noise(2, 3, *size) + 1
    sums, bins, frequency = spectra.radial_sums(m)
    assert sums.shape == (2, 3, len(frequency))
    torch.testing.assert_close(sums.sum(-1), m.square().sum((-2, -1)), rtol=1e-5, atol=1e-5)
    power, _ = spectra.radial_power(m)
    torch.testing.assert_close((power * bins).sum(-1), m.square().sum((-2, -1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (2, 64), (7, 3)])
def test_rings_partition_the_plane(size):
    height, width = size
    table = spectra.rings(height, width, torch.device("cpu"))
    members = table.members[table.members < height * width]
    assert members.sort().values.tolist() == list(range(height * width))
    assert table.bins[0] == 1 and table.members[0, 0] == 0  # DC alone
    assert table.bins.min() >= 1
    rho = spectra.bin_frequency(height, width, torch.device("cpu")).flatten()
    for ring, centre in zip(table.members, table.frequency, strict=True):
        distance = (rho[ring[ring < height * width]] - centre).abs()
        assert distance.max() <= 0.5 / max(height, width) + 1e-6


def test_rings_match_a_loop_over_bins():
    m = noise(6, 9)
    power = np.abs(np.fft.fft2(m.numpy().astype(np.float64), norm="ortho")) ** 2
    expected = np.zeros(8)
    for y in range(6):
        for x in range(9):
            rho = math.hypot(min(y, 6 - y) / 6, min(x, 9 - x) / 9)
            expected[math.floor(rho * 9 + 0.5)] += power[y, x]
    sums = spectra.radial_sums(m)[0].numpy()
    np.testing.assert_allclose(sums, expected[: len(sums)], rtol=1e-5)
    assert expected[len(sums) :].sum() == 0


@pytest.mark.parametrize(("ky", "kx", "ring"), [(0, 5, 5), (5, 0, 5), (3, 4, 5), (1, 1, 1), (12, 12, 17)])
def test_a_sinusoid_lies_in_its_ring(ky, kx, ring):
    sums, _, frequency = spectra.radial_sums(wave(32, 32, ky, kx))
    assert sums.argmax() == ring
    assert sums[ring] == pytest.approx(32 * 32 / 2, rel=1e-5)
    assert frequency[ring] == pytest.approx(ring / 32)
    assert sums.sum() - sums[ring] < 1e-6 * sums[ring]


def test_frequency_is_per_sample_on_both_axes_of_a_rectangle():
    # 4 of 16 samples and 8 of 32 are the same .25 cycles per sample.
    for ky, kx in [(4, 0), (0, 8)]:
        power, frequency = spectra.radial_power(wave(16, 32, ky, kx))
        assert frequency[power.argmax()] == 0.25


def test_constant_is_dc_alone():
    sums, _, frequency = spectra.radial_sums(torch.full((10, 14), 0.7))
    assert frequency[0] == 0
    assert sums[0] == pytest.approx(140 * 0.49, rel=1e-5)
    assert sums[1:].max() < 1e-10


def test_white_noise_is_flat():
    power, _ = spectra.radial_power(noise(64, 64, 64))
    torch.testing.assert_close(power.mean(0), torch.ones(power.shape[-1]), rtol=0, atol=0.15)


@pytest.mark.parametrize("size", [(16, 16), (15, 22)])
def test_rotation_and_shift_keep_the_spectrum(size):
    m = noise(*size)
    expected = spectra.radial_power(m)[0]
    for moved in (torch.rot90(m), m.flip(0), m.roll((3, 5), (0, 1))):
        torch.testing.assert_close(spectra.radial_power(moved)[0], expected, rtol=1e-4, atol=1e-5)
    assert spectra.spectral_centroid(torch.rot90(m)) == pytest.approx(spectra.spectral_centroid(m).item())


def test_low_precision_input_is_measured_in_float32():
    m = noise(16, 16).bfloat16()
    power, _ = spectra.radial_power(m)
    assert power.dtype == torch.float32
    torch.testing.assert_close(power, spectra.radial_power(m.float())[0])


def test_tables_made_in_inference_mode_serve_outside_of_it():
    spectra.rings.cache_clear()
    with torch.inference_mode():
        spectra.radial_power(noise(11, 13))
    m = noise(11, 13).requires_grad_()
    spectra.radial_power(m)[0].sum().backward()
    assert m.grad is not None


def test_a_vector_is_refused():
    with pytest.raises(VarlabError, match="H, W"):
        spectra.radial_power(torch.ones(5))


# --- shares and centroid ------------------------------------------------------------------------------------


def test_high_frequency_share_splits_strictly_above_q():
    low, high = wave(32, 32, 0, 2), wave(32, 32, 10, 0)
    assert spectra.high_frequency_share(low) == pytest.approx(0, abs=1e-6)
    assert spectra.high_frequency_share(high) == pytest.approx(1)
    assert spectra.high_frequency_share(0.5 + 3 * low + high) == pytest.approx(0.1, rel=1e-4)  # DC left out
    on_edge = wave(40, 40, 3, 4)  # rho = 5 / 40, whatever hypot rounds it to
    assert spectra.high_frequency_share(on_edge, q=0.125) == pytest.approx(0, abs=1e-6)
    assert spectra.high_frequency_share(on_edge, q=0.1249) == pytest.approx(1)


def test_spectral_centroid_of_sinusoids():
    assert spectra.spectral_centroid(wave(24, 24, 0, 6)) == pytest.approx(0.25, rel=1e-5)
    two = wave(24, 24, 0, 6) + wave(24, 24, 3, 0)
    assert spectra.spectral_centroid(two) == pytest.approx((0.25 + 0.125) / 2, rel=1e-5)
    diagonal = wave(24, 24, 6, 6) + 7
    assert spectra.spectral_centroid(diagonal) == pytest.approx(0.25 * math.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.7, -123.4])
@pytest.mark.parametrize("size", [(31, 45), (64, 64), (127, 97), (1, 1)])
def test_nothing_beyond_dc_is_nan(value, size):
    m = torch.full(size, value)
    assert spectra.high_frequency_share(m).isnan()
    assert spectra.spectral_centroid(m).isnan()
    assert spectra.explained_share(m, m, (0, 0.1, 1)).isnan().all()


def test_one_flat_map_in_a_batch_leaves_the_others_alone():
    m = torch.stack([torch.ones(8, 8), wave(8, 8, 0, 3)])
    share = spectra.high_frequency_share(m)
    assert share.isnan().tolist() == [True, False]


def test_channel_dim_adds_powers_before_it_divides():
    m = torch.stack([3 * wave(32, 32, 0, 2), wave(32, 32, 10, 0)])  # powers 9 : 1, shares 0 and 1
    assert spectra.high_frequency_share(m).tolist() == pytest.approx([0, 1], abs=1e-6)
    assert spectra.high_frequency_share(m, channel_dim=-3) == pytest.approx(0.1, rel=1e-4)
    assert spectra.high_frequency_share(m[None], channel_dim=-3).shape == (1,)
    expected = (9 * 2 / 32 + 10 / 32) / 10
    assert spectra.spectral_centroid(m, channel_dim=0) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(VarlabError, match="side"):
        spectra.high_frequency_share(m, channel_dim=-1)


def test_band_power_partitions():
    m = noise(3, 12, 20)
    bands = spectra.band_power(m, (-1, 0, 0.1, 0.25, torch.inf))
    torch.testing.assert_close(bands.sum(-1), m.square().sum((-2, -1)))
    torch.testing.assert_close(bands[:, 0], m.sum((-2, -1)).square() / 240, rtol=1e-4, atol=1e-5)  # DC
    for edges in [(0.1,), (0.2, 0.1), (0.1, 0.1)]:
        with pytest.raises(VarlabError, match="ascending"):
            spectra.band_power(m, edges)


def test_explained_share_per_band():
    low, high = wave(32, 32, 0, 2), wave(32, 32, 10, 0)
    edges = (0, 0.125, 0.5)
    final = 0.5 + low + high

    def share(partial):
        return spectra.explained_share(final, partial, edges).tolist()

    assert share(final) == [1, 1]
    assert share(torch.zeros(32, 32)) == pytest.approx([0, 0], abs=1e-5)
    assert share(0.5 + low) == pytest.approx([1, 0], abs=1e-5)
    assert share(low + 0.5 * high) == pytest.approx([1, 0.75], abs=1e-5)  # a wrong mean is in no band
    assert share(-low) == pytest.approx([-3, 0], abs=1e-4)
    previews = torch.stack([low, final])[:, None]
    assert spectra.explained_share(final[None], previews, edges).shape == (2, 1, 2)
    assert spectra.explained_share(low, low, edges).isnan().tolist() == [False, True]
    with pytest.raises(VarlabError, match="Resize"):
        spectra.explained_share(final, low[:16], edges)


# --- wavelet bands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
@pytest.mark.parametrize("size", [(8, 8), (15, 21), (12, 7), (2, 2), (3, 2)])
def test_wavelet_energy_equals_pywavelets(size, wavelet):
    m = noise(2, *size)
    energy = spectra.wavelet_energy(m, wavelet)
    mode = tuple("symmetric" if side % 2 else "periodization" for side in size)
    approximation, details = pywt.dwt2(m.double().numpy(), wavelet, mode=mode)
    expected = [(band**2).sum((-2, -1)) for band in (approximation, *details)]
    for ours, theirs in zip(energy[:4], expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-5)
    share = sum(expected[1:]) / sum(expected)
    np.testing.assert_allclose(energy.detail_share.numpy(), share, rtol=1e-4)


def test_wavelet_bands_answer_to_their_direction():
    stripes = torch.ones(8, 8)
    stripes[1::2] = -1  # rows alternate: horizontal edges
    energy = spectra.wavelet_energy(stripes)
    assert [e.item() for e in energy] == pytest.approx([0, 64, 0, 0, 1], abs=1e-5)
    assert pytest.approx(64) == spectra.wavelet_energy(stripes.mT).HL
    assert pytest.approx(64) == spectra.wavelet_energy(stripes * stripes.mT).HH


def test_periodization_keeps_the_energy():
    m = noise(10, 16)
    assert sum(spectra.wavelet_energy(m, "db3")[:4]) == pytest.approx(m.square().sum().item(), rel=1e-5)


def test_wavelet_edge_cases():
    assert spectra.wavelet_energy(torch.full((6, 7), 0.3)).detail_share == 0
    assert spectra.wavelet_energy(torch.zeros(6, 6)).detail_share.isnan()
    for size in [(1, 1), (1, 8), (8, 1)]:
        assert all(e.shape == (3,) and e.isnan().all() for e in spectra.wavelet_energy(noise(3, *size)))
    with pytest.raises(VarlabError, match="haar"):
        spectra.wavelet_energy(noise(4, 4), "harr")


def test_wavelet_channel_dim():
    m = torch.stack([torch.full((4, 4), 3.0), torch.tensor([1.0, -1.0]).repeat(4, 2)])
    assert spectra.wavelet_energy(m).detail_share.tolist() == pytest.approx([0, 1], abs=1e-6)
    assert spectra.wavelet_energy(m, channel_dim=0).detail_share == pytest.approx(0.1)


# --- Sobel and SkipVAR --------------------------------------------------------------------------------------

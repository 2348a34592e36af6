"""Images of another range, type or shape are refused with their fix; what lies in [0, 1] gives the known number."""

import numpy as np
import pytest
import torch

import varlab as vl
from varlab.errors import VarlabError
from varlab.evaluation.scattering import scattering, scattering_of
from varlab.measures import edges, metrics, spectra

GENERATOR = torch.Generator().manual_seed(0)
REFERENCE = torch.randint(0, 256, (3, 16, 16), generator=GENERATOR, dtype=torch.uint8)
PICTURE = (REFERENCE.int() + torch.randint(-15, 16, (3, 16, 16), generator=GENERATOR)).clamp(0, 255).to(torch.uint8)
PAIRS = (metrics.psnr, metrics.ssim, metrics.high_frequency_ssim)
MAPS = (
    metrics.high_pass, metrics.luma, lambda x: metrics.edge_energy(x, (4, 4)), metrics.sobel_magnitude,
    spectra.power_spectrum, spectra.radial_power, lambda x: spectra.band_power(x, (0.0, 0.5)), spectra.wavelet_energy,
    spectra.high_frequency_share, spectra.spectral_centroid, spectra.spectral_summary, edges.skipvar_hf_ratio,
    lambda x: edges.skipvar_hf_diff(x, x), lambda x: spectra.explained_share(x, x, (0.0, 0.5)),
)  # fmt: skip


def test_pictures_of_8_bits_divided_by_255_have_their_psnr() -> None:
    error = np.square(PICTURE.numpy() / 255.0 - REFERENCE.numpy() / 255.0).mean()
    found = metrics.psnr(PICTURE.float() / 255, REFERENCE.float() / 255)
    assert float(found) == pytest.approx(-10 * np.log10(error), abs=1e-4) and 25 < found < 35


@pytest.mark.parametrize("measure", PAIRS)
def test_pairs_outside_their_range_are_refused(measure) -> None:
    good = REFERENCE.float() / 255
    measure(good, good + 5e-4)  # rounding is no other range
    for bad, fix in (
        (REFERENCE, r"torch.uint8. Give x.float\(\) / 255"),
        (REFERENCE.float(), "Give image / 255"),
        (good * 2 - 1, r"Give \(image \+ 1\) / 2"),
        (good.numpy(), "torch.from_numpy"),
        (good * 300 - 20, "clamp"),
    ):
        for pair in ((bad, good), (good, bad)):
            with pytest.raises(VarlabError, match=fix):
                measure(*pair)
    with pytest.raises(VarlabError, match="of one size"):
        measure(good, good[:, :12])


def test_features_of_another_range_or_type_are_refused() -> None:
    good = REFERENCE[None].float() / 255
    scattering(good)
    for bad, fix in ((REFERENCE[None], "torch.uint8"), (good * 255, "image / 255"), (good * 2 - 1, "image \\+ 1")):
        with pytest.raises(VarlabError, match=fix):
            scattering(bad)
    pictures = REFERENCE.movedim(0, -1)[None].numpy()
    assert np.allclose(scattering_of(pictures), scattering(good).numpy(), atol=1e-5)
    with pytest.raises(VarlabError, match="uint8"):
        scattering_of(pictures / 255)


def test_features_of_skipvar_are_taken_of_pictures_in_their_range() -> None:
    good = REFERENCE.float() / 127.5 - 1
    for measure in (edges.skipvar_hf_ratio, lambda x: edges.skipvar_hf_diff(x, good)):
        measure(good * (1 + 5e-4))
        for bad, fix in ((REFERENCE.float(), r"Give image / 127.5 - 1"), (good * 300, r"Give image.clamp\(-1, 1\)")):
            with pytest.raises(VarlabError, match=rf"measured in \[-1, 1\].*{fix}"):
                measure(bad)
    with pytest.raises(VarlabError, match="of one size"):
        edges.skipvar_hf_diff(good, good[:, :12])


@pytest.mark.parametrize("function", MAPS)
def test_maps_of_whole_numbers_and_arrays_are_refused(function) -> None:
    for bad in (REFERENCE, REFERENCE.long(), REFERENCE > 9, torch.zeros(3, 16, 16, dtype=torch.complex64)):
        with pytest.raises(VarlabError, match=r"Give x\.(float|abs)"):
            function(bad)
    with pytest.raises(VarlabError, match="torch tensor"):
        function(REFERENCE.numpy())
    function(REFERENCE.double() / 255)


def test_tab_completion_offers_what_is_public() -> None:
    assert set(dir(vl)) == {*vl.__all__, "__version__"} and vl.__version__ == "0.1.0"
    assert all(getattr(vl, name).__doc__ for name in vl.__all__)

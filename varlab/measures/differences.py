"""At which frequencies an image departs from its reference: bands of a wavelet, rings of the spectrum.

Images are [..., 3, H, W] in [0, 1], gamma-coded RGB as stored. Power is added over channels before anything is
divided, as everywhere here. Pictures of 8 bits hold the noise of rounding, about 1.3e-6 of power a frequency: ratios of
bands that have no more than that say nothing.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pywt
import torch
from torch import Tensor

from varlab.errors import VarlabError, unknown
from varlab.measures.metrics import check_pair
from varlab.measures.spectra import NO_POWER, bin_frequency, rings

BANDS = ("LL", "LH", "HL", "HH")  # as ``spectra.wavelet_energy``
ROUNDING = 1 / 12 / 255**2  # power a bin of 8-bit rounding


class WaveletDifference(NamedTuple):
    """Of one level of a wavelet transform, [..., 4] for the bands LL, LH, HL, HH, then [...] for the three details."""

    error: Tensor  # energy of the difference over that of the reference: 0 for equal images
    gain: Tensor  # energy of the image over that of the reference: above 1 it has more of the band
    detail_error: Tensor
    detail_gain: Tensor


def wavelet_difference(image: Tensor, reference: Tensor, wavelet: str = "haar") -> WaveletDifference:
    """How far an image departs from its reference in each band of ``pywt.dwt2``.

    An even side is extended periodically, an odd one symmetrically, as in ``wavelet_energy``. NaN where the reference
    has nothing of a band.
    """
    check_pair(image, reference)
    if wavelet not in (known := pywt.wavelist(kind="discrete")):
        raise unknown("wavelet", wavelet, known)
    own, other = (_bands(pixels, wavelet) for pixels in (image, reference))
    of_image, of_reference, of_difference = (
        torch.stack([band.square().sum((-3, -2, -1)) for band in bands], -1)
        for bands in (own, other, [a - b for a, b in zip(own, other, strict=True)])
    )
    total = of_reference.sum(-1)
    there = of_reference > NO_POWER * total[..., None]
    error, gain = (torch.where(there, part / of_reference, torch.nan) for part in (of_difference, of_image))
    detail = of_reference[..., 1:].sum(-1)
    details = (torch.where(detail > NO_POWER * total, part[..., 1:].sum(-1) / detail, torch.nan)
               for part in (of_difference, of_image))  # fmt: skip
    return WaveletDifference(error, gain, *details)


def _bands(pixels: Tensor, wavelet: str) -> list[Tensor]:
    """LL, LH, HL, HH of ``pywt.dwt2``, sides swapped: along y as along x, since its strided steps take nine times as
    long."""
    maps = pixels.float().cpu().numpy()
    along_y, along_x = ("symmetric" if side % 2 else "periodization" for side in maps.shape[-2:])
    halves = (np.ascontiguousarray(half.swapaxes(-2, -1)) for half in pywt.dwt(maps, wavelet, along_x))
    return [torch.from_numpy(band) for half in halves for band in pywt.dwt(half, wavelet, along_y)]


class SpectrumDifference(NamedTuple):
    """Mean power of each ring [..., n_rings], over channels; ring n lies about n cycles per longer side."""

    image: Tensor
    reference: Tensor
    difference: Tensor
    frequency: Tensor  # [n_rings] cycles per pixel

    def decibels(self) -> Tensor:
        """Root mean square [...] over rings, DC and what lies beyond Nyquist left out, of 10 log10 of image over
        reference, both with the noise of 8-bit rounding added, so that nothing over nothing is 0 dB."""
        rings_in = (self.frequency > 0) & (self.frequency <= 0.5)
        ratio = ((self.image + ROUNDING) / (self.reference + ROUNDING))[..., rings_in]
        return (10 * ratio.log10()).square().mean(-1).sqrt()


def spectrum_difference(image: Tensor, reference: Tensor) -> SpectrumDifference:
    """Radial spectra of an image, its reference and their difference."""
    check_pair(image, reference)
    if image.shape != reference.shape:
        raise VarlabError(f"Spectra are of pairs of one shape, not {tuple(image.shape)} and {tuple(reference.shape)}.")
    height, width = image.shape[-2:]
    own, other, apart = (_ring_means(m, height, width) for m in (image, reference, image.float() - reference.float()))
    return SpectrumDifference(own, other, apart, rings(height, width, torch.device("cpu")).frequency)


def _ring_means(m: Tensor, height: int, width: int) -> Tensor:
    """``radial_power`` averaged over channels, from the half of the plane that real maps need: a fifth of the time."""
    half = torch.fft.rfft2(m.float(), norm="ortho")
    power = (half.real.square() + half.imag.square()).mean(-3).cpu().numpy()
    ring, weight = _half_rings(height, width)
    flat = (power * weight).reshape(-1, ring.size)
    sums = np.stack([np.bincount(ring, row) for row in flat]).reshape(*power.shape[:-2], -1)
    return torch.from_numpy(sums / np.bincount(ring, weight.ravel())).float()


@lru_cache(maxsize=8)
def _half_rings(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(ring of each bin of ``rfft2`` [bins], how many bins of ``fft2`` it stands for [height, bins a row])."""
    rho = bin_frequency(height, width, torch.device("cpu")).numpy()[:, : width // 2 + 1]
    weight = np.full((height, width // 2 + 1), 2.0)
    weight[:, 0] = 1
    weight[:, width // 2] = 1 if width % 2 == 0 else weight[:, width // 2]
    return np.floor(rho * max(height, width) + 0.5).astype(int).ravel(), weight

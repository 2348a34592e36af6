"""Where a map keeps its power: radial Fourier spectra and wavelet bands.

Pure tensor functions of maps `m [..., H, W]`; every leading index is a map of its own. All of them compute in
float32 on the device of their input: without convolutions and matrix products, which autocast or TF32 would
round, and without atomic additions, so that a run repeats to the bit.

Conventions, used by every function here:
* power P = |F|^2 with F = fft2(m, norm="ortho"), hence sum P = sum m^2 (Parseval).
* frequency rho = sqrt(fy^2 + fx^2) of a bin, in cycles per sample: .5 is Nyquist, .707 the plane's corner.
  Times max(H, W) it is in cycles per image, the axis that maps of different size share.
* channels are averaged after the power is taken. Functions that form a ratio take a `channel_dim` (negative,
  so that it holds for any leading dimensions): the powers along it are added before they are divided. Without
  it each channel gets a ratio of its own.
* no power: a share of nothing is NaN. Power below `NO_POWER` of the map's total, DC included, counts as
  nothing: rounding leaves a constant map up to 1e-13.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.context import fixed_context
from varlab.errors import VarlabError, unknown

NO_POWER = 1e-12
MARGIN = 1e-3  # beyond the range of an image: rounding, not another range


# --- the frequency plane ------------------------------------------------------------------------------------


class Rings(NamedTuple):
    """The rings of an H x W frequency plane: ring n lies about n cycles per longer side, ring 0 is DC."""

    members: Tensor  # [n_rings, widest] flat indices of the bins of a ring, filled up with H * W
    bins: Tensor  # [n_rings] how many bins a ring has, never 0
    frequency: Tensor  # [n_rings] centre of a ring, cycles per sample


# Tables outlive the call that builds them, and a tensor born in inference mode is of little use outside it.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
@fixed_context()
def bin_frequency(height: int, width: int, device: torch.device) -> Tensor:
    """rho [H, W] of the bins of `fft2`, cycles per sample; float64, so that an edge like .125 is exact."""
    fy = torch.fft.fftfreq(height, dtype=torch.float64)
    fx = torch.fft.fftfreq(width, dtype=torch.float64)
    return torch.hypot(fy[:, None], fx[None, :]).round(decimals=12).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
@fixed_context()
def rings(height: int, width: int, device: torch.device) -> Rings:
    """The rings of width 1 / max(H, W) of an H x W plane."""
    side = max(height, width)
    rho = bin_frequency(height, width, torch.device("cpu"))
    ring = torch.floor(rho.flatten() * side + 0.5).long()  # [H * W]
    count = torch.bincount(ring)
    order = torch.argsort(ring, stable=True)
    sorted_ring = ring[order]
    place = torch.arange(height * width) - (count.cumsum(0) - count)[sorted_ring]
    members = torch.full((len(count), int(count.max())), height * width)
    members[sorted_ring, place] = order
    frequency = torch.arange(len(count), dtype=torch.float32) / side
    return Rings(members.to(device), count.to(device), frequency.to(device))


def check_maps(m: Tensor, what: str = "A map") -> None:
    """Refuse what holds no real numbers of floating point, such as the uint8 of pictures, and say how to convert it."""
    if not isinstance(m, Tensor):
        raise VarlabError(
            f"{what} is a torch tensor [..., H, W], not {type(m).__name__}. Give torch.from_numpy(np.array(x) / 255) "
            "of a picture, with its channels first (movedim(-1, -3))."
        )
    if not m.is_floating_point():
        fix = "x.float() / 255" if m.dtype == torch.uint8 else "x.abs()" if m.is_complex() else "x.float()"
        raise VarlabError(f"{what} holds real numbers, an image those in [0, 1]; this one is {m.dtype}. Give {fix}.")


def check_range(image: Tensor, least: int = 0) -> None:
    """Refuse what is no image in [``least``, 1], 0 or -1, and say how to convert it."""
    check_maps(image, "An image")
    low, high = (float(bound) for bound in image.aminmax()) if image.numel() else (0.0, 0.0)
    if low < least - MARGIN or high > 1 + MARGIN:
        fix = "image.clamp(0, 1)" if least == 0 else "image.clamp(-1, 1)"
        if low >= -1 - MARGIN and high <= 255:
            fix = "image / 255" if least == 0 else "image / 127.5 - 1"
        if least == 0 and low >= -1 - MARGIN and high <= 1 + MARGIN:
            fix = "(image + 1) / 2"
        raise VarlabError(f"Images are measured in [{least}, 1], this one lies in [{low:.3g}, {high:.3g}]. Give {fix}.")


def power_spectrum(m: Tensor) -> Tensor:
    """P [..., H, W] of maps m [..., H, W], in the order of `fft2` (DC first)."""
    check_maps(m)
    if m.ndim < 2:
        raise VarlabError(f"A spectrum needs maps [..., H, W], not shape {tuple(m.shape)}.")
    return torch.fft.fft2(m.float(), norm="ortho").abs().square()


# --- radial spectra -----------------------------------------------------------------------------------------


def radial_sums(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(sum of P [..., n_rings], bins [n_rings], frequency [n_rings]) of maps; the sums add to sum m^2."""
    power = power_spectrum(m)
    table = rings(m.shape[-2], m.shape[-1], m.device)
    return ring_sums(power), table.bins, table.frequency


def ring_sums(power: Tensor) -> Tensor:
    """Sum of P [..., H, W] over each ring, [..., n_rings]."""
    padded = F.pad(power.flatten(-2), (0, 1))  # the index H * W of the table is this zero
    return padded[..., rings(power.shape[-2], power.shape[-1], power.device).members].sum(-1)


def radial_power(m: Tensor) -> tuple[Tensor, Tensor]:
    """(mean of P over each ring [..., n_rings], frequency [n_rings] in cycles per sample) of maps."""
    sums, bins, frequency = radial_sums(m)
    return sums / bins, frequency


def power_exponent(m: Tensor, low: int = 2, high: int = 24) -> Tensor:
    """a of maps [..., H, W] whose power falls as frequency ** -a from ``low`` to ``high`` cycles along the longer side.

    A line through the logarithms of the rings, every octave of the same weight, under a Hann window, without which the
    jump between opposite borders would count as a slope of its own. 0 is white noise; infinite or NaN of constant maps.
    """
    check_maps(m)
    window = torch.outer(*(torch.hann_window(n, dtype=m.dtype, device=m.device) for n in m.shape[-2:]))
    middle = (m * window).sum((-2, -1), keepdim=True) / window.sum()
    power, frequency = radial_power((m - middle) * window)
    x, y = frequency[low : high + 1].log(), power[..., low : high + 1].log()
    x = x - (x / x.exp()).sum() / (1 / x.exp()).sum()
    share = (x / x.exp()) / (x.square() / x.exp()).sum()
    return -(y * share).sum(-1)


def band_power(m: Tensor, edges: Sequence[float]) -> Tensor:
    """Sum of P over each band [..., n_bands]; band b holds the bins with edges[b] < rho <= edges[b + 1].

    Edges ascend, in cycles per sample, `inf` allowed. With edges[0] = 0 no band contains DC.
    """
    _check_edges(edges)
    return _sum_bands(power_spectrum(m), edges)


def high_frequency_share(m: Tensor, q: float = 0.125, channel_dim: int | None = None) -> Tensor:
    """HF(q): power with rho > q / power without DC, in [0, 1]; NaN for a constant map.

    q is in cycles per sample; the default is a quarter of Nyquist.
    """
    power = _add_channels(power_spectrum(m), channel_dim)
    return _share(_sum_bands(power, (q, torch.inf))[..., 0], _beyond_dc(power), power)


def spectral_centroid(m: Tensor, channel_dim: int | None = None) -> Tensor:
    """sum rho P / sum P without DC, in cycles per sample (0 to .707); NaN for a constant map."""
    power = _add_channels(power_spectrum(m), channel_dim)
    rho = bin_frequency(m.shape[-2], m.shape[-1], m.device).float()
    return _share((rho * power).sum((-2, -1)), _beyond_dc(power), power)


def spectral_summary(m: Tensor, q: float = 0.125) -> tuple[Tensor, Tensor, Tensor]:
    """(radial power [..., n_rings], HF(q) [...], centroid [...]) of maps [..., c, H, W] from one transform.

    The same numbers as `radial_power` averaged over channels, and the two ratios with channel_dim=-3.
    """
    power = power_spectrum(m).sum(-3)
    table = rings(m.shape[-2], m.shape[-1], m.device)
    rho = bin_frequency(m.shape[-2], m.shape[-1], m.device).float()
    above, whole = (_bands(m.shape[-2], m.shape[-1], m.device, (low, torch.inf))[0] for low in (q, 0))
    high, whole, weighted = torch.stack([power * above, power * whole, rho * power]).sum((-2, -1)).unbind()
    shares = _share(torch.stack([high, weighted]), whole, power)
    return ring_sums(power) / table.bins / m.shape[-3], shares[0], shares[1]


def explained_share(final: Tensor, partial: Tensor, edges: Sequence[float], channel_dim: int | None = None) -> Tensor:
    """1 - sum_b |F(final) - F(partial)|^2 / sum_b |F(final)|^2 per band b of `band_power`: [..., n_bands].

    1 where `partial` already has the band, 0 where it has nothing of it, negative where it is further from
    `final` than nothing would be; NaN where `final` has no power in the band. Leading dimensions broadcast.
    """
    if final.shape[-2:] != partial.shape[-2:]:
        raise VarlabError(
            f"Maps of {tuple(final.shape[-2:])} and {tuple(partial.shape[-2:])} have no bins in common. "
            "Resize one of them first."
        )
    _check_edges(edges)
    whole = _add_channels(power_spectrum(final), channel_dim)
    missing = _add_channels(power_spectrum(final.float() - partial.float()), channel_dim)
    return 1 - _share(_sum_bands(missing, edges), _sum_bands(whole, edges), whole[..., None, :, :])


def _check_edges(edges: Sequence[float]) -> None:
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise VarlabError(f"Band edges must be at least two ascending frequencies, not {list(edges)}.")


def _sum_bands(power: Tensor, edges: Sequence[float]) -> Tensor:
    bands = _bands(power.shape[-2], power.shape[-1], power.device, tuple(edges))
    return torch.stack([(power * band).sum((-2, -1)) for band in bands], dim=-1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
@fixed_context()
def _bands(height: int, width: int, device: torch.device, edges: tuple[float, ...]) -> Tensor:
    """[bands, H, W] bool: the bins of each band."""
    rho = bin_frequency(height, width, device)
    edges = tuple(round(edge, 12) for edge in edges)  # as rho is, so that a bin on an edge is on it
    return torch.stack([(rho > low) & (rho <= high) for low, high in pairwise(edges)])


def _add_channels(power: Tensor, channel_dim: int | None) -> Tensor:
    if channel_dim is None:
        return power
    if channel_dim % power.ndim >= power.ndim - 2:
        raise VarlabError(f"channel_dim={channel_dim} is a side of the maps of shape {tuple(power.shape)}.")
    return power.sum(channel_dim)


def _beyond_dc(power: Tensor) -> Tensor:
    return _sum_bands(power, (0, torch.inf))[..., 0]


def _share(part: Tensor, whole: Tensor, power: Tensor) -> Tensor:
    """part / whole, NaN where `whole` is nothing beside the total of the maps `power [..., H, W]`."""
    something = whole > NO_POWER * power.sum((-2, -1))
    return torch.where(something, part / whole, torch.nan)


# --- wavelet bands ------------------------------------------------------------------------------------------


class WaveletEnergy(NamedTuple):
    """Sums of squares of the four bands of one level of a 2-D wavelet transform, each of shape [...]."""

    LL: Tensor  # pywt's cA
    LH: Tensor  # pywt's cH: low-pass along x, high-pass along y; answers to horizontal edges
    HL: Tensor  # pywt's cV: high-pass along x, low-pass along y; answers to vertical edges
    HH: Tensor  # pywt's cD
    detail_share: Tensor  # (LH + HL + HH) / (LL + LH + HL + HH), in [0, 1]


def wavelet_energy(m: Tensor, wavelet: str = "haar", channel_dim: int | None = None) -> WaveletEnergy:
    """Energies of the bands LL, LH, HL, HH of maps m [..., H, W] and the share of the three detail bands.

    One level of `pywt.dwt2`: an even side is extended periodically (mode "periodization", which keeps the
    energy of an orthogonal wavelet), an odd side symmetrically (mode "symmetric", which counts its last
    sample twice). A map with a side of 1 has no bands: all five are NaN. The share of a zero map is NaN, of a
    constant map 0.
    """
    check_maps(m)
    if m.ndim < 2:
        raise VarlabError(f"Wavelet bands need maps [..., H, W], not shape {tuple(m.shape)}.")
    bands = _analyse(_analyse(m.float(), wavelet).mT, wavelet).mT  # [y, x, ...]: LL, HL; LH, HH
    energies = _add_channels(bands.square(), channel_dim).sum((-2, -1))
    if min(m.shape[-2:]) == 1:
        energies = torch.full_like(energies, torch.nan)
    (ll, hl), (lh, hh) = energies.unbind()
    details = lh + hl + hh
    return WaveletEnergy(ll, lh, hl, hh, details / (ll + details))


def _analyse(x: Tensor, wavelet: str) -> Tensor:
    """Low- and high-pass coefficients of one transform step along the last dimension [2, ..., coefficients]."""
    index, low, high = _wavelet_taps(x.shape[-1], wavelet, x.device)
    windows = x[..., index]  # [..., coefficients, taps]
    return torch.stack([(windows * taps).sum(-1) for taps in (low, high)])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
@fixed_context()
def _wavelet_taps(side: int, wavelet: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(samples under the filter [coefficients, taps], low-pass taps, high-pass taps), as PyWavelets."""
    known = pywt.wavelist(kind="discrete")
    if wavelet not in known:
        raise unknown("wavelet", wavelet, known)
    filters = pywt.Wavelet(wavelet)
    taps = torch.arange(filters.dec_len)
    if side % 2 == 0:
        start = 2 * torch.arange(side // 2) + filters.dec_len // 2
        index = (start[:, None] - taps) % side
    else:
        start = 2 * torch.arange((side + filters.dec_len - 1) // 2) + 1
        index = (start[:, None] - taps) % (2 * side)
        index = torch.where(index < side, index, 2 * side - 1 - index)
    low, high = torch.tensor([filters.dec_lo, filters.dec_hi], dtype=torch.float32, device=device)
    return index.to(device), low, high

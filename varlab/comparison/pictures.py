"""Pictures of any origin as tensors: checked before any work, decoded one at a time, and what is measured of a pair."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from varlab.errors import VarlabError, cause
from varlab.measures.differences import BANDS, SpectrumDifference, spectrum_difference, wavelet_difference
from varlab.measures.metrics import LEAST_MS, WINDOW, high_frequency_ssim, psnr, ssim, ssims
from varlab.weights.dists import DISTS
from varlab.weights.lpips import LPIPS

COLOUR = "RGB as stored (gamma-coded, no profile applied), 8 bits over 255; fidelity in float32 on these rounded values"
TAIL = 64  # bytes in which the end mark of a whole file stands
ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
SPECTRUM = 16  # bands, from one cycle a side to Nyquist, evenly on a logarithmic scale


def check_picture(path: Path) -> tuple[tuple[int, int], str]:
    """(width and height, format) of a picture that can be read; its pixels are decoded only where its end is missing.

    Raises
    ------
    VarlabError
        It cannot be read, is cut short, or holds what RGB of 8 bits would lose: transparency, 16 bits, CMYK.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "L", "P", "1", "RGBA"):
                raise VarlabError(f"{path} is {image.mode}, not RGB of 8 bits. Convert it, stating how.")
            kind = str(image.format)
            if not _has_end(path, kind) or image.mode in ("RGBA", "P"):
                image.load()
                if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                    raise VarlabError(f"{path} is partly transparent. Lay it on a background, and save it as RGB.")
            return image.size, kind
    except (OSError, ValueError, SyntaxError) as error:
        raise VarlabError(f"{path} cannot be read ({cause(error)}): draw or copy it again.") from error


def _has_end(path: Path, kind: str) -> bool:
    if kind not in ENDS:
        return False
    with path.open("rb") as file:
        file.seek(-min(TAIL, path.stat().st_size), 2)
        return ENDS[kind] in file.read()


def read_picture(path: Path) -> Tensor:
    """RGB [3, H, W] in [0, 1]."""
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise VarlabError(f"{path} cannot be read ({cause(error)}): draw or copy it again.") from error
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 255


def crops(image: Tensor, side: int | None) -> list[Tensor]:
    """The samples of a grid, row by row; the image itself where no side is given."""
    if side is None:
        return [image]
    return [part for row in image.split(side, -2) for part in row.split(side, -1)]


def check_grid(path: Path, size: tuple[int, int], side: int | None) -> None:
    if side is not None and (size[0] % side or size[1] % side):
        raise VarlabError(f"{path} is {size[0]} x {size[1]}, no grid of samples of {side} pixels. Give their side.")


def measures_of(lpips: LPIPS | None, dists: DISTS | None) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Learned distances, where the user has their weights."""
    given: Mapping[str, Callable[[Tensor, Tensor], Tensor] | None] = {"lpips": lpips, "dists": dists}
    return {name: measure for name, measure in given.items() if measure is not None}


def fidelity(
    image: Tensor, reference: Tensor, learned: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
) -> tuple[dict[str, float], SpectrumDifference]:
    """All measures of a pair [3, H, W], and its spectra; what an image is too small for is left out."""
    found: dict[str, float] = {"psnr": float(psnr(image, reference))}
    small = min(image.shape[-2:])
    if small >= LEAST_MS:
        found["ssim"], found["ms_ssim"] = map(float, ssims(image, reference))
    elif small >= WINDOW:
        found["ssim"] = float(ssim(image, reference))
    if small >= WINDOW:
        found["high_frequency_ssim"] = float(high_frequency_ssim(image, reference))
    found |= {name: float(measure(image[None], reference[None])) for name, measure in learned.items()}
    wavelet, spectrum = wavelet_difference(image, reference), spectrum_difference(image, reference)
    found |= {f"haar_{band.lower()}_error": float(wavelet.error[i]) for i, band in enumerate(BANDS)}
    found |= {"detail_error": float(wavelet.detail_error), "detail_gain": float(wavelet.detail_gain)}
    return found | {"spectrum_db": float(spectrum.decibels())}, spectrum


def band_edges(height: int, width: int) -> np.ndarray:
    """Frequencies between which a spectrum is summed, in cycles per pixel."""
    return np.geomspace(1 / max(height, width) / 1.001, 0.5, SPECTRUM + 1)

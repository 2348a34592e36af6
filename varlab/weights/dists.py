"""DISTS (Ding et al. 2020, arXiv 2004.07728) on VGG-16, from the user's own weight files.

The convolutions are torchvision's ``vgg16-397923af.pth``, the weights of structure and texture ``weights.pt`` of the
DISTS package.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.measures.metrics import check_pair
from varlab.weights.perceptual import perceptual_tensors

VARIABLE = "VARLAB_DISTS"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# of each stage: channels, and the numbers of its convolutions within torchvision's ``features``
STAGES = ((64, (0, 2)), (128, (5, 7)), (256, (10, 12, 14)), (512, (17, 19, 21)), (512, (24, 26, 28)))
CHANNELS = (3, *(channels for channels, _ in STAGES))
SIDE = 256  # pixels of the shorter side, to which the authors shrink larger images
LEAST = 16  # pixels: four pools leave one
SMALL = 1e-6


class DISTS:
    """Distance [n] of images to references, both [n, 3, H, W] in [0, 1]: 0 for equal ones, higher is less alike.

    One less a weighted sum, over the channels of the image and of five stages, of how alike means (texture) and
    covariances (structure) are. As by the authors, images are first shrunk until the shorter side has ``SIDE`` pixels
    (bilinear, antialiased; theirs rounds to 8 bits there).
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        total = tensors["alpha"].sum() + tensors["beta"].sum()
        self.texture, self.structure = ((tensors[name] / total).split(CHANNELS, 1) for name in ("alpha", "beta"))

    def features(self, image: Tensor) -> list[Tensor]:
        """The image, then its maps after the last convolution of each stage."""
        mean, deviation = (image.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        found, x = [image], (image - mean) / deviation
        for stage, (_, layers) in enumerate(STAGES):
            x = _pool(x) if stage else x
            for layer in layers:
                weight, bias = (self.tensors[f"features.{layer}.{part}"] for part in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            found.append(x)
        return found

    @fixed_context()
    def __call__(self, image: Tensor, reference: Tensor) -> Tensor:
        check_pair(image, reference)
        if image.shape != reference.shape or min(image.shape[-2:]) < LEAST:
            raise VarlabError(
                f"DISTS compares images of one size, at least {LEAST} pixels a side, not {tuple(image.shape)} with "
                f"{tuple(reference.shape)}."
            )
        pairs = zip(_shrunk(image).split(1), _shrunk(reference).split(1), strict=True)
        return torch.stack([self._distance(*pair) for pair in pairs])

    def _distance(self, image: Tensor, reference: Tensor) -> Tensor:
        """Of one pair [1, 3, H, W]: the maps of a single image of 256 pixels take 16 MiB."""
        alike = image.new_zeros(())
        pairs = zip(self.features(image), self.features(reference), self.texture, self.structure, strict=True)
        for a, b, texture, structure in pairs:
            mean_a, mean_b = (x.mean((2, 3), keepdim=True) for x in (a, b))
            variance_a, variance_b = ((x - m).square().mean((2, 3), True) for x, m in ((a, mean_a), (b, mean_b)))
            covariance = ((a - mean_a) * (b - mean_b)).mean((2, 3), keepdim=True)
            means = (2 * mean_a * mean_b + SMALL) / (mean_a.square() + mean_b.square() + SMALL)
            structures = (2 * covariance + SMALL) / (variance_a + variance_b + SMALL)
            alike = alike + (texture * means + structure * structures).sum()
        return 1 - alike


def _pool(x: Tensor) -> Tensor:
    """Root of the Hann-weighted mean of squares: half the size, without the aliasing of a maximum."""
    taps = x.new_tensor([0.25, 0.5, 0.25])
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def _shrunk(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    if min(height, width) <= SIDE:
        return image.float()
    size = (SIDE, SIDE * width // height) if height <= width else (SIDE * height // width, SIDE)
    return F.interpolate(image.float(), size, mode="bilinear", antialias=True).clamp(0, 1)


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, as the two official files have them."""
    named: dict[str, tuple[int, ...]] = dict.fromkeys(("alpha", "beta"), (1, sum(CHANNELS), 1, 1))
    inner = 3
    for channels, layers in STAGES:
        for layer in layers:
            named |= {f"features.{layer}.weight": (channels, inner, 3, 3), f"features.{layer}.bias": (channels,)}
            inner = channels
    return named


@fixed_context()
def load_dists(folder: Path | str | None = None) -> DISTS | None:
    """DISTS with the weights in a folder, by default ``$VARLAB_DISTS``; None where neither is given.

    Raises VarlabError for a folder that does not hold both files, and says what is missing.
    """
    found = perceptual_tensors(
        "DISTS", folder, VARIABLE, shapes(),
        "torchvision's vgg16-397923af.pth and weights.pt of the DISTS package (dists-pytorch)",
    )  # fmt: skip
    return None if found is None else DISTS(found)

"""LPIPS with AlexNet (Zhang et al. 2018, arXiv 1801.03924, version 0.1), from the user's own weight files.

Nothing is shipped or fetched: the five convolutions are torchvision's ``alexnet-owt-7be5be79.pth``, the five linear
layers ``alex.pth`` of the LPIPS repository.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.measures.metrics import check_pair
from varlab.weights.perceptual import perceptual_tensors

VARIABLE = "VARLAB_LPIPS"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
# name in the file, shape, stride, padding, and whether a max-pool of 3 by 2 comes before
LAYERS = (
    ("features.0", (64, 3, 11, 11), 4, 2, False),
    ("features.3", (192, 64, 5, 5), 1, 2, True),
    ("features.6", (384, 192, 3, 3), 1, 1, True),
    ("features.8", (256, 384, 3, 3), 1, 1, False),
    ("features.10", (256, 256, 3, 3), 1, 1, False),
)
LEAST = 31  # pixels: below, the second pool has nothing left
BATCH = 8  # images at a time: the first maps of one of 1024 x 1024 take 17 MB


class LPIPS:
    """Distance [n] of images to references, both [n, 3, H, W] in [0, 1]: 0 for equal ones, higher is less alike.

    Sum over five layers of the spatial mean of the weighted squared difference of unit-length features.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps after each convolution, of unit length over channels."""
        shift, scale = (image.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        x, found = (image.float() * 2 - 1 - shift) / scale, []
        for name, _, stride, padding, pooled in LAYERS:
            x = F.max_pool2d(x, 3, 2) if pooled else x
            weight, bias = (self.tensors[f"{name}.{part}"] for part in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def check_size(self, height: int, width: int) -> None:
        """Raises VarlabError for images too small for the five layers."""
        if min(height, width) < LEAST:
            raise VarlabError(
                f"LPIPS compares images of at least {LEAST} pixels a side, not {height} x {width}. "
                "Leave --lpips out, and $VARLAB_LPIPS unset."
            )

    @fixed_context()
    def __call__(self, image: Tensor, reference: Tensor) -> Tensor:
        check_pair(image, reference)
        if image.shape != reference.shape:
            raise VarlabError(
                f"LPIPS compares images of one size, not {tuple(image.shape)} with {tuple(reference.shape)}."
            )
        self.check_size(*image.shape[-2:])
        parts = zip(image.split(BATCH), reference.split(BATCH), strict=True)
        return torch.cat([self._distance(*pair) for pair in parts])

    def _distance(self, image: Tensor, reference: Tensor) -> Tensor:
        pairs = zip(self.features(image), self.features(reference), strict=True)
        apart = [
            F.conv2d((a - b).square(), self.tensors[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
            for i, (a, b) in enumerate(pairs)
        ]
        return torch.stack(apart).sum(0)


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, as the two official files have them."""
    named: dict[str, tuple[int, ...]] = {}
    for i, (name, shape, *_) in enumerate(LAYERS):
        named |= {f"{name}.weight": shape, f"{name}.bias": shape[:1], f"lin{i}.model.1.weight": (1, shape[0], 1, 1)}
    return named


@fixed_context()
def load_lpips(folder: Path | str | None = None) -> LPIPS | None:
    """LPIPS with the weights in a folder, by default ``$VARLAB_LPIPS``; None where neither is given.

    Raises VarlabError for a folder that does not hold both files, and says what is missing.
    """
    found = perceptual_tensors(
        "LPIPS", folder, VARIABLE, shapes(),
        "torchvision's alexnet-owt-7be5be79.pth and alex.pth of the LPIPS repository (weights/v0.1)",
    )  # fmt: skip
    return None if found is None else LPIPS(found)

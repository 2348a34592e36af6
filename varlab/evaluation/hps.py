"""HPSv2's style and total means of canned cosines, as github.com/tgxs002/HPSv2 prints them, and mended."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

STYLES = ("anime", "concept-art", "paintings", "photo")
CHUNK = 80


class Style(NamedTuple):
    """On the scale x 100: the mean, the deviation of the means of the chunks, these means, and images in each."""

    score: float
    spread: float
    chunks: tuple[float, ...]
    sizes: tuple[int, ...]


def style(cosines: Sequence[float | None], corrected: bool = False) -> Style:
    """One style's images in the order of their prompts; None where an image is missing.

    Officially chunks are of 80 *existing* images, so that a missing one shifts all that follow, and the score is the
    plain mean of the chunks' means, of which the last may hold a single image. Corrected: chunks are of 80 prompts,
    and the score is the mean of the images. NaN without images.
    """
    scores = np.array([np.nan if value is None else value for value in cosines], dtype=np.float64) * 100
    if not corrected:
        scores = scores[~np.isnan(scores)]
    parts = [scores[first : first + CHUNK] for first in range(0, len(scores), CHUNK)]
    parts = [part[~np.isnan(part)] for part in parts]
    means = [float(part.mean()) for part in parts if len(part)]
    if not means:
        return Style(float("nan"), float("nan"), (), ())
    whole = float(np.nanmean(scores)) if corrected else float(np.mean(means))
    return Style(whole, float(np.std(means)), tuple(means), tuple(len(part) for part in parts if len(part)))


def average(styles: Mapping[str, npt.ArrayLike], corrected: bool = False) -> float:
    """The mean over all existing images; corrected: of the styles' means, so that none counts less for missing ones."""
    present = [np.asarray(values, dtype=np.float64) for values in styles.values()]
    present = [values[~np.isnan(values)] for values in present]
    present = [values for values in present if len(values)]
    if not present:
        return float("nan")
    return 100 * float(np.mean([v.mean() for v in present]) if corrected else np.concatenate(present).mean())

"""Pictures of compared methods as tables: what differs from dense by frequency, and which prompts lose most."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from PIL import Image

from varlab.errors import VarlabError, unknown
from varlab.measures.statistics import bootstrap_interval
from varlab.measures.stored import radial_power


class Pictured(Protocol):
    """What ``varlab.comparison`` returns, and a saved comparison."""

    @property
    def images(self) -> dict[str, list[Image.Image]]: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    @property
    def table(self) -> pd.DataFrame: ...

    @property
    def prompts(self) -> pd.DataFrame: ...

    @property
    def stages(self) -> dict[str, list[dict[int, Image.Image]]]: ...


def as_array(pictures: Sequence[Image.Image]) -> np.ndarray:
    """[n, H, W, 3] in [0, 1]."""
    return np.stack([np.asarray(picture, dtype=np.float32) / 255 for picture in pictures])


def difference_spectrum_table(compared: Pictured) -> pd.DataFrame:
    """method, frequency (cycles/pixel), mean power of the luma difference to dense, low, high, n."""
    dense = as_array(compared.images["none"]).mean(-1)
    rows = []
    for name, pictures in compared.images.items():
        if name == "none":
            continue
        power, frequency = radial_power(as_array(pictures).mean(-1) - dense)
        found = bootstrap_interval(power)
        rows += [(name, *values, len(dense)) for values in zip(frequency.tolist(), *found, strict=True)]
    return pd.DataFrame(rows, columns=["method", "frequency", "mean", "low", "high", "n"])


def sensitivity_table(compared: Pictured, method: str) -> pd.DataFrame:
    """Prompts from the one that a method changes least to the one that it changes most: prompt, text, ssim, n.

    Raises
    ------
    VarlabError: a method that the comparison does not have.
    """
    if method not in compared.images:
        raise unknown("method of the comparison", method, list(compared.images))
    ssim = compared.prompts.ssim[compared.prompts.method == method].astype(float).to_numpy()
    table = pd.DataFrame({"prompt": range(len(ssim)), "text": list(map(str, compared.facts["prompts"])), "ssim": ssim})
    order = table.sort_values(["ssim", "prompt"], ascending=[False, True], ignore_index=True)
    return order.assign(method=method, n=len(order))


def late_pictures(compared: Pictured, prompt: int, methods: Sequence[str] = ()) -> dict[str, dict[int, Image.Image]]:
    """By method the pictures of a prompt after each stage that it ran.

    Raises
    ------
    VarlabError: stages that were not kept.
    """
    kept = compared.stages
    names = [name for name in methods or kept if name in kept]
    found = {name: dict(kept[name][prompt]) for name in names if prompt < len(kept[name])}
    if not found:
        raise VarlabError(f"The pictures of prompt {prompt} after each stage were not kept: compare with stages_of=.")
    return found

"""What training gave a captioned mini: its scene score against that of its untrained self, entry by entry."""

import pandas as pd

from varlab.errors import VarlabError
from varlab.evaluation.scenes import SceneScore
from varlab.models.base import NextScaleModel
from varlab.models.zoo import load
from varlab.scenes import summarise


def untrained_self(model: NextScaleModel, seed: int = 0) -> NextScaleModel:
    """A mini of the registry with random weights in transformer and caption encoder, and its trained tokenizer.

    So the score does not fall because the pictures cannot be decoded. The model given stays as it is.
    """
    other = load(model.name, "random", device=str(model.device), precision=model.precision, seed=seed)
    other.tokenizer = model.tokenizer  # type: ignore[attr-defined]
    other.settings, other.weights = model.settings, f"random (seed {seed}), trained tokenizer"
    return other


def lead(trained: SceneScore, other: SceneScore) -> pd.DataFrame:
    """Scene score of one less that of the other, as ``summarise``: pairs are prompt entries, overall is the plain mean
    of the categories. The two may differ in images an entry, not in entries: VarlabError says so."""
    means = [score.images.groupby("entry").correct.mean() for score in (trained, other)]
    entries = trained.images.drop_duplicates("entry").set_index("entry")
    if not means[0].index.equals(means[1].index):
        raise VarlabError("The two scores are of different prompt entries: score both with the same n.")
    return summarise(entries.assign(lead=means[0] - means[1]).reset_index(), "lead")

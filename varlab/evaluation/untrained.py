"""What training gave a captioned mini: its scene score is held against that of its untrained self."""

from varlab.models.base import NextScaleModel
from varlab.weights.zoo import load


def untrained_self(model: NextScaleModel, seed: int = 0) -> NextScaleModel:
    """A mini of the registry with random weights in transformer and caption encoder, and its trained tokenizer.

    So the score does not fall because the pictures cannot be decoded. The model given stays as it is.
    """
    other = load(model.name, "random", device=str(model.device), precision=model.precision, seed=seed)
    other.tokenizer = model.tokenizer  # type: ignore[attr-defined]
    other.settings, other.weights = model.settings, f"random (seed {seed}), trained tokenizer"
    return other

"""ImageReward: the two means that are reported of its rewards, as the scripts compute them, and mended."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072  # of raw rewards: what is reported is normalised by them
PER_PROMPT = 10

Rewards = Sequence[Sequence[float | None]]  # of each prompt's images in order; None: the file is missing


class Means(NamedTuple):
    """``prompts``: a mean a prompt; ``asked``: images asked of each; ``short``: prompts with missing images.

    ``error``: how the script ends in place of a score.
    """

    score: float
    prompts: tuple[float, ...] = ()
    asked: int = 0
    short: int = 0
    error: str | None = None


def listed(rewards: Sequence[float | None]) -> list[float]:
    """What the official scorer gives for a list of files: a missing one is scored as the one before it.

    Raises UnboundLocalError where the first is missing, and ValueError for an empty list, as the official code.
    """
    if not rewards:
        raise ValueError("not enough values to unpack")
    if rewards[0] is None:
        raise UnboundLocalError("the first file is missing, and there is none before it")
    given: list[float] = []
    for reward in rewards:
        given.append(given[-1] if reward is None else reward)
    return given


def upstream(rewards: Rewards) -> Means:
    """The ImageReward repository's script: the mean of the prompts' means.

    It asks as many images of every prompt as there are files over prompts, cut to a whole number: surplus ones are
    ignored, missing ones repeat the reward before them.
    """
    asked = sum(reward is not None for own in rewards for reward in own) // max(1, len(rewards))
    short = sum(sum(reward is not None for reward in own[:asked]) < asked for own in rewards)
    means = []
    for own in rewards:
        taken = [own[k] if k < len(own) else None for k in range(asked)]
        try:
            means.append(float(np.mean(listed(taken))))
        except (UnboundLocalError, ValueError) as error:
            return Means(float("nan"), asked=asked, short=short, error=f"{type(error).__name__}: {error}")
    return Means(float(np.mean(means)), tuple(means), asked, short)


def infinity(rewards: Rewards) -> Means:
    """Infinity's script: the flat mean of all images. It ends with an error where a prompt has a single image."""
    present = [[reward for reward in own if reward is not None] for own in rewards]
    if any(len(own) == 1 for own in present):
        return Means(float("nan"), error="TypeError: 'float' object is not iterable")
    flat = [reward for own in present for reward in own]
    return Means(float(np.mean(flat)) if flat else float("nan"), tuple(float(np.mean(own)) for own in present if own))


def corrected(rewards: Rewards) -> Means:
    """The mean of the prompts' means over the images that exist, each once."""
    present = [[reward for reward in own if reward is not None] for own in rewards]
    means = tuple(float(np.mean(own)) for own in present if own)
    short = sum(len(own) < max(map(len, rewards), default=0) for own in present)
    return Means(float(np.mean(means)) if means else float("nan"), means, max(map(len, rewards), default=0), short)

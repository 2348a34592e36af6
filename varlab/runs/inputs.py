"""What callers give to a run, checked before any work: prompts, numbers, folders, settings and hooks."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.engine.hooks import Accelerator, Probe
from varlab.errors import VarlabError, quoted, unknown
from varlab.models.guidance import Settings
from varlab.models.hart import HartText
from varlab.models.infinity import TextBatch
from varlab.scenes.prompt_files import as_text, whole
from varlab.scenes.prompt_sets import MOST
from varlab.weights.writing import hash_tensors

Features = TextBatch | HartText
# Texts, or features [T, width] of each.
Prompts = Sequence[str] | str | Features | Sequence[Tensor | np.ndarray] | np.ndarray


def check_prompts(prompts: Sequence[str] | str) -> list[str]:
    """The texts as a list. Raises VarlabError where there are none, or one is empty or no text."""
    texts = [prompts] if isinstance(prompts, str) else list(prompts) if isinstance(prompts, Iterable) else []
    if not texts:
        raise VarlabError("There are no prompts. Give at least one, or a prompt set: vl.prompts('scenes', n=8).")
    return [as_text(text, i) for i, text in enumerate(texts)]


def read_prompts(prompts: Prompts) -> tuple[str | Tensor | HartText, ...]:
    """One item an image: its text, or its features where these were given as arrays, a TextBatch or a HartText."""
    if isinstance(prompts, HartText):
        _numbers(prompts.features)
        return tuple(prompts.split())
    if isinstance(prompts, TextBatch):
        return _numbers(prompts.features).split(prompts.lengths)
    if isinstance(prompts, str) or not isinstance(prompts, Iterable):
        return tuple(check_prompts(prompts))
    items: list[Any] = list(prompts)
    if not any(isinstance(item, Tensor | np.ndarray) for item in items):
        return tuple(check_prompts(items))
    features = [_numbers(item) for item in items if not isinstance(item, str)]
    if len(features) < len(items) or {item.ndim for item in features} != {2} or len({f.shape[1] for f in features}) > 1:
        raise VarlabError(
            "Features are given as a list of arrays [T, width], all of one width, and no text among them."
        )
    return tuple(features)


def _numbers(features: Any) -> Tensor:
    """Text features in fp32; raises VarlabError for what is not finite and real."""
    try:
        values = torch.as_tensor(features)
    except (TypeError, ValueError):
        values = None
    if values is None or values.is_complex():
        raise VarlabError(f"Text features must be real numbers, not {getattr(features, 'dtype', type(features))}.")
    if not values.isfinite().all():
        raise VarlabError("Text features hold NaN or infinities: give those of another run of the text encoder.")
    return values.float()


def check_negative(family: str, negative: str | None) -> None:
    """Refuse a text that guidance cannot lead away from."""
    if negative is not None and family == "hart":
        raise VarlabError("HART guides away from the empty text alone: leave the negative prompt out.")
    whole(negative or "", "The negative prompt")


def prompt_label(prompt: str | Tensor | HartText) -> str:
    """A prompt as records hold it: its text, or a hash of its features."""
    if isinstance(prompt, str):
        return prompt
    given = {"features": prompt} if isinstance(prompt, Tensor) else {"features": prompt.features, "mask": prompt.mask}
    return f"features {hash_tensors(given)}"


def at_least(least: int, **numbers: int | None) -> None:
    """Refuse numbers that are too small or not whole, by their names; None is left to whoever reads it."""
    for name, number in numbers.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise VarlabError(f"{name} must be a whole number, not {quoted(number)}.")
        if number is not None and number < least:
            raise VarlabError(f"{name} must be at least {least}, not {number}.")


def check_counts(**numbers: int | None) -> None:
    """Refuse numbers of prompts or images that are below 1, too large for one call or not whole."""
    at_least(1, **numbers)
    for name, number in numbers.items():
        if number is not None and number > MOST:
            raise VarlabError(f"{name} must be at most {MOST:,}, not {number}. More images come from other seeds.")


def with_overrides(settings: Settings, keywords: Sequence[str] = (), /, **given: Any) -> Settings:
    """The model's settings with those given here; None keeps the model's.

    ``keywords``: what else the caller's function takes, since a mistyped one of these ends up here.
    """
    known = [field.name for field in fields(settings)]
    for name in given:
        if name not in known:
            raise unknown("setting", name, [*known, *keywords])
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items() if v is not None}
    return replace(settings, **values)


def as_hooks(given: Any) -> tuple[Any, ...]:
    """Probes or accelerators as a tuple; a single one may come without a list around it."""
    return (given,) if isinstance(given, str | Probe | Accelerator) else tuple(given)


def keywords(function: Callable[..., Any]) -> list[str]:
    """What a function takes by name alone."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]

"""What the call of a sampler says of its images, schedule, guidance and seed, by the released names."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from varlab.errors import VarlabError, quoted
from varlab.models.guidance import Settings
from varlab.models.hart_settings import HartSettings
from varlab.schedules import Schedule

Arguments = Mapping[str, Any]


def bound(function: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name, defaults and extra keywords included; none where the call does not fit."""
    try:
        call = inspect.signature(function).bind(*args, **given)
    except (TypeError, ValueError):
        return dict(given)
    call.apply_defaults()
    named = dict(call.arguments)
    for parameter in call.signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name)
    return named


def schedule_of(scales: Any) -> Schedule:
    """Infinity's ``scale_schedule``, a list of (1, h, w). Raises VarlabError for other forms and for video."""
    try:
        triples = [tuple(int(side) for side in scale) for scale in scales]
        fits = bool(triples) and all(len(triple) == 3 for triple in triples)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise VarlabError(f"scale_schedule is a list of (1, height, width), not {quoted(scales)}.")
    if any(triple[0] != 1 for triple in triples):
        raise VarlabError(
            f"scale_schedule ends with {triples[-1]}: more than one frame. For images its first entries are 1, as in "
            "the official scripts: [(1, h, w) for _, h, w in scale_schedule]."
        )
    grids = tuple(triple[1:] for triple in triples)
    return Schedule(grids, grids[-1], "attached")  # type: ignore[arg-type]


def settings_of(family: str, call: Arguments, stages: int) -> Settings | None:
    """The settings of a run; None where the call does not say how it guides."""
    if family == "infinity":
        return _infinity(call, stages)
    cfg = _number(call.get("cfg"))
    if cfg is None:
        return None
    filters = {"top_k": int(call.get("top_k") or 0), "top_p": float(call.get("top_p") or 0.0)}
    if family == "var":
        return Settings(cfg=cfg, **filters)  # type: ignore[arg-type]
    return HartSettings(
        cfg=cfg,
        top_k=HartSettings.top_k,  # as released: the argument is not read
        top_p=filters["top_p"],
        smooth=bool(call.get("more_smooth", False)),
        passes=int(call.get("num_maskgit_iters") or 1),
        residual=not call.get("final_stage", 0),
    )


def _infinity(call: Arguments, stages: int) -> Settings | None:
    cfg, tau = (_by_stage(call.get(name), stages) for name in ("cfg_list", "tau_list"))
    layers = call.get("cfg_insertion_layer")
    if cfg is None or tau is None or layers is None:
        return None
    layers = layers if isinstance(layers, Sequence) else [layers]
    kept = tuple(int(layer) for layer in layers if layer != 1)  # 1 is accepted and guides nothing
    return Settings(cfg, tau, int(call.get("top_k") or 0), float(call.get("top_p") or 0.0), kept)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _by_stage(value: Any, stages: int) -> float | tuple[float, ...] | None:
    """One number, or one a stage; a list of one number throughout is that number."""
    if (number := _number(value)) is not None:
        return number
    if not isinstance(value, Sequence) or len(value) < stages or any(_number(item) is None for item in value):
        return None
    values = tuple(float(item) for item in value)
    return values[0] if len(set(values)) == 1 else values


def batch_of(call: Arguments) -> int | None:
    """How many images a call makes, where it says so."""
    count = call.get("B")
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None


def seed_of(call: Arguments) -> int | None:
    seed = call.get("g_seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def classes_of(call: Arguments) -> list[str]:
    """VAR's labels as prompts; none for a text or where they are drawn at random."""
    labels, batch = call.get("label_B"), batch_of(call)
    if isinstance(labels, int) and not isinstance(labels, bool) and batch and labels >= 0:
        return [str(labels)] * batch
    if isinstance(labels, torch.Tensor) and labels.ndim == 1 and not labels.is_floating_point():
        return [str(int(label)) for label in labels]
    return []

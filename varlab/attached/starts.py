"""The released samplers, called by their published keywords, and the texts that a call was given."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.attached.structure import ENTRY, Structure
from varlab.errors import VarlabError, quoted
from varlab.models.base import NextScaleModel
from varlab.models.hart import HartText
from varlab.models.infinity import TextBatch

Model = NextScaleModel[Any, Any, Any]


def default_call(
    structure: Structure, vae: nn.Module | None, text: Any, ours: Model | None, settings: Mapping[str, Any]
) -> Any:
    """The released sampler at the most likely labels."""
    sampler = getattr(structure.module, ENTRY, None)
    if not callable(sampler):
        raise VarlabError(f"{type(structure.module).__name__} has no {ENTRY}. Give generate=, a call of its sampler.")
    given = keywords(structure.family, vae, text, ours, settings) | {"top_k": 1, "top_p": 0.0}
    taken = inspect.signature(sampler).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        given = {name: value for name, value in given.items() if name in taken}
    with torch.no_grad():
        return sampler(**given)


def keywords(
    family: str, vae: nn.Module | None, text: Any, ours: Model | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of a released sampler for a text, with the seed 0; ``settings``: cfg, and tau of an Infinity."""
    build = {"infinity": _infinity, "var": _var, "hart": _hart}[family]
    given = build(text, ours, settings) | {"g_seed": 0}
    return given | ({"vae": vae} if family == "infinity" else {})


def _infinity(text: Any, ours: Model | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    if ours is None or not isinstance(text, TextBatch):
        raise VarlabError(
            "For the released sampler of Infinity give text= as a TextBatch of features, and our model, whose schedule "
            "is drawn; or generate=, a call of your own."
        )
    stages = len(ours.schedule)
    device = ours.device if text.features.device.type == "cpu" else text.features.device
    ends = F.pad(torch.tensor(text.lengths, device=device).cumsum(0), (1, 0)).to(torch.int32)
    cfg, tau = settings.get("cfg", 3.0), settings.get("tau", 1.0)
    return {
        "scale_schedule": [(1, h, w) for h, w in ours.schedule.grids],
        "label_B_or_BLT": (text.features.to(device), list(text.lengths), ends, max(text.lengths)),
        "B": len(text.lengths),
        "cfg_list": list(cfg) if isinstance(cfg, tuple | list) else [cfg] * stages,
        "tau_list": list(tau) if isinstance(tau, tuple | list) else [tau] * stages,
        "cfg_insertion_layer": [0],
        "inference_mode": True,
        "ret_img": True,
    }


def _var(text: Any, ours: Model | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        labels = torch.as_tensor([int(label) for label in text])
    except (TypeError, ValueError):
        raise VarlabError(f"text= of a VAR is a list of class numbers, not {quoted(text)}.") from None
    return {"B": len(labels), "label_B": labels, "cfg": settings.get("cfg", 1.5), "more_smooth": False}


def _hart(text: Any, ours: Model | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(text, HartText):
        raise VarlabError("text= of a HART is a HartText: features [B, T, width] and the mask [B, T] of real tokens.")
    return {
        "B": len(text.features),
        "label_B": text.features,
        "cfg": settings.get("cfg", 4.5),
        "more_smooth": False,
        "context_position_ids": text.positions,
        "context_mask": text.mask,
    }


def text_of(family: str, call: Mapping[str, Any], text: Any) -> tuple[Any, Any]:
    """What a call was given to draw, as our model reads it, and the negative text; ``text`` where it does not say."""
    if family == "infinity" and isinstance(batch := _batch(call.get("label_B_or_BLT")), TextBatch):
        return batch, _batch(call.get("negative_label_B_or_BLT"))
    labels = call.get("label_B")
    if family == "var" and isinstance(labels, Tensor | int):
        many = labels.tolist() if isinstance(labels, Tensor) else [labels] * int(call.get("B", 1))
        return [str(label) for label in many], None
    mask = call.get("context_mask")
    if family == "hart" and isinstance(labels, Tensor) and isinstance(mask, Tensor):
        return HartText(labels.float(), mask.bool()), None
    if text is None:
        raise VarlabError("What was drawn cannot be seen in the call of the sampler: give text= too.")
    return text, None


def _batch(given: Any) -> TextBatch | None:
    """Infinity's ragged text: (features, lengths, ...)."""
    if not isinstance(given, tuple | list) or len(given) < 2:
        return None
    return TextBatch(given[0].float(), tuple(int(n) for n in given[1]))

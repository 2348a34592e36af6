"""``torch.compile`` around the sublayers of Infinity: an option, with shapes fixed for every stage.

The results differ from the eager ones by rounding: fused operations keep intermediates in fp32, and sums run in another
order. The first image of each batch size waits for the compiler, about a minute on a CPU.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from varlab.engine.execution import Execution
from varlab.engine.images import Images
from varlab.engine.stage import Site
from varlab.errors import VarlabError
from varlab.models.base import Attend, NextScaleModel
from varlab.models.infinity import Block
from varlab.models.infinity_model import Infinity
from varlab.models.layers import merge_heads, modulate

SHAPES = 64  # shapes a function is compiled for before torch would give up: stages times batch sizes


class Compiled(Execution):
    """The sublayers of one model, compiled. Raises VarlabError for other families and without a compiler."""

    def __init__(self, model: NextScaleModel) -> None:
        require_compilable(model.family)
        require_compiler(model.device)
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it would go on eagerly, without a word
        self.functions = {name: torch.compile(function, dynamic=False) for name, function in _FUNCTIONS.items()}

    def describe(self, model: NextScaleModel) -> str:
        return model.execution.replace("eager", "compiled")

    def _call(self, name: str, *given: Any) -> Any:
        try:
            return self.functions[name](*given)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise VarlabError(
                f"compile met more than {SHAPES} shapes: leave it out where a method chooses how many tokens run."
            ) from error

    def sublayer(
        self, model: NextScaleModel, site: Site, x: Tensor, images: Images, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        assert isinstance(model, Infinity)
        conditioning = images.conditioning
        layer, modulation = model.blocks[site.block], conditioning.modulation[site.block]
        if site.sublayer == "attention":
            q, k, v = self._call("enter", layer, x, modulation[2], modulation[4], positions)
            return self._call("leave", layer, attend(q, k, v), modulation[0])
        if site.sublayer == "cross":
            return self._call("cross", layer, x, *conditioning.keys_values[site.block], conditioning.text.mask)
        return self._call("feed", layer, x, modulation[1], modulation[3], modulation[5])


def _enter(block: Block, x: Tensor, scale: Tensor, shift: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return block.sa.queries_keys_values(modulate(x, scale, shift), rotary)


def _leave(block: Block, attended: Tensor, gate: Tensor) -> Tensor:
    return block.sa.proj(merge_heads(attended)).float() * gate


def _feed(block: Block, x: Tensor, gate: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return block.ffn(modulate(x, scale, shift)).float() * gate


_FUNCTIONS: dict[str, Callable[..., Any]] = {"enter": _enter, "leave": _leave, "cross": Block.cross, "feed": _feed}


def require_compilable(family: str) -> None:
    if family != Infinity.family:
        raise VarlabError(f"compile is there for Infinity, not for {family}: leave it out.")


def require_compiler(device: torch.device) -> None:
    """Raises VarlabError where ``torch.compile`` would fail: it needs a C++ compiler, and Triton for a GPU."""
    if device.type == "cuda" and find_spec("triton") is None:
        raise VarlabError(
            "compile needs Triton for a GPU, which is not installed: pip install triton, or leave it out."
        )
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # torch has no public class for it
        raise VarlabError(
            "compile needs a C++ compiler, and none is found: install g++, or leave compile out."
        ) from error

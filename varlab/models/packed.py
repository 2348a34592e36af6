"""Weights in bf16 laid out once as the processor's matrix units take them: the same bits, in less time.

oneDNN lays a weight out anew in every product; what it multiplies, and in which order, does not change. The layout
serves any number of rows and takes the memory of the weight, which it replaces.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError


class PackedLinear(nn.Module):
    """A linear layer of an inference: x [..., in] -> [..., out] in bf16.

    ``weight`` is laid out back when asked for, and so it is in the state of the model, whose names and tensors are
    those of a plain layer. The layer is one again once it is moved or changes its type; copies are laid out anew.
    """

    dtype = torch.bfloat16

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.packed = _laid_out(layer.weight)
        self.bias = layer.bias

    @property
    def weight(self) -> Tensor:
        dense: Tensor = self.packed.to_dense()  # type: ignore[no-untyped-call]
        return dense

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.bias)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.packed, bias, "none", [], "")
        return made

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """What ``to``, ``half``, ``share_memory`` and their like call: the layout is of this processor and type."""
        plain: nn.Linear = self._plain(self.weight)
        return plain._apply(fn, recurse)

    def _plain(self, weight: Tensor) -> nn.Linear:
        """This very object, which others hold, as the layer that it was made of."""
        self._parameters = {"weight": nn.Parameter(weight, requires_grad=False), "bias": self.bias}
        self.out_features, self.in_features = weight.shape
        self.__class__ = nn.Linear  # type: ignore[assignment]
        return cast(nn.Linear, self)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self._parameters.items() if name != "packed"}
        return {**self.__dict__, "_parameters": kept, "weight": self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weight = state.pop("weight")
        super().__setstate__(state)
        if can_pack():
            self.packed = _laid_out(weight)
        else:
            self._plain(weight)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight
        if self.bias is not None:
            destination[prefix + "bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(self, *_: Any) -> None:
        raise VarlabError("Weights in bf16 on a CPU are laid out for sampling. To change them, load the model in fp32.")


def _laid_out(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.ops.mkldnn._reorder_linear_weight(weight.detach()), requires_grad=False)


def typed(layer: nn.Module, x: Tensor) -> Tensor:
    """x as the layer computes."""
    weight = layer.packed if isinstance(layer, PackedLinear) else layer.weight
    return x.to(cast(Tensor, weight).dtype)


def biased(layer: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
    """The layer without its own bias, and with this one: some of a checkpoint's are put together from parts."""
    if isinstance(layer, PackedLinear):
        return layer.product(x.to(layer.dtype), bias)
    weight = cast(Tensor, layer.weight)
    return F.linear(x.to(weight.dtype), weight, bias)


def can_pack() -> bool:
    """Whether this build of torch and this processor know the layout: not those of a Mac, or without AVX-512."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(module: nn.Module) -> None:
    """Lay out the bf16 weights of all linear layers below. For inference on the CPU: nobody may train them.
    Nothing happens where that cannot be done."""
    for parent in list(module.modules()) if can_pack() else ():
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer.weight.dtype == torch.bfloat16:
                setattr(parent, name, PackedLinear(layer))

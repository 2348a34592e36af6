"""Weights of the blocks in int8, with one scale a row, by torchao: a quarter of their memory, and another model.

Arithmetic stays in fp32. Nothing that is drawn so may be taken for what the unquantised weights draw: ``quantised``
labels them, and the precision of the model is ``INT8``.
"""

import logging
from importlib.util import find_spec
from typing import Any

from torch import nn

from varlab.errors import VarlabError
from varlab.weight_labels import CHECKPOINT, NAMED, OFFICIAL, WeightsLabel

INT8 = "int8"  # the precision of such a model


def require_torchao() -> None:
    """Raises VarlabError where the library is not installed."""
    if find_spec("torchao") is None:
        raise VarlabError(
            "precision int8 needs torchao. In the repository: pip install -e .[int8]. Or take bf16-weights or fp32."
        )


def quantise(transformer: nn.Module) -> None:
    """Keep the matrices of the blocks in int8. For inference: nobody may train or change them."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # of kernels that a processor has no use for
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    def chosen(layer: nn.Module, name: str) -> bool:
        return isinstance(layer, nn.Linear) and name.startswith(("block_chunks.", "blocks."))

    quantize_(transformer, Int8WeightOnlyConfig(), filter_fn=chosen)


def is_quantised(weight: Any) -> bool:
    """Whether a layer's weight is what ``quantise`` makes of it, which calls itself fp32."""
    return type(weight).__module__.partition(".")[0] == "torchao"


def label(weights: str) -> WeightsLabel:
    """What quantised weights are called: never official, whatever they were made of."""
    import torchao

    made, how = WeightsLabel(weights), f"int8 by torchao {torchao.__version__}"
    content = getattr(weights, "content", {})
    if made.kind in (OFFICIAL, NAMED):
        return WeightsLabel.of(CHECKPOINT, f"{how}, from: {weights}", content=content)
    made = WeightsLabel(f"{weights}, {how}")
    made.content = content
    return made

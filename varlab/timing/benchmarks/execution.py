"""How far another way to execute a model, such as compiled or replayed from graphs, is from the eager one."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from varlab.engine.execution import Execution
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.models.base import NextScaleModel


class Reader(Probe):
    """Keeps the guided logits and the labels of every stage."""

    name = "reader"

    def __init__(self) -> None:
        self.logits: dict[int, Tensor] = {}
        self.labels: dict[int, Tensor] = {}

    def on_logits(
        self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None
    ) -> None:
        assert labels is not None
        self.logits[stage.index], self.labels[stage.index] = guided.float().clone(), labels.clone()


def logits_difference(
    model: NextScaleModel,
    execution: Execution,
    texts: Sequence[Any],
    passes: int = 1,
    twin: NextScaleModel | None = None,
) -> float:
    """Norm of the difference of the guided logits over their norm, at the stage where it is largest; 0 for equal bits.

    Both take the labels that the eager run drew, so that one label that falls otherwise does not part them. passes:
    runs under test, of which the last counts; a graph is recorded in the first. twin: the model under test, where the
    execution is not all that differs.
    """
    samples, eager = range(len(texts)), Reader()
    Run(model, model.settings, SeededNoise(0), [eager]).generate(texts, samples)
    for _ in range(passes):
        other = Reader()
        run = Run(twin or model, model.settings, SeededNoise(0), [other], eager.labels, execution=execution)
        run.generate(texts, samples)
    return max(
        float((other.logits[k] - logits).norm() / logits.norm().clamp(min=1e-30)) for k, logits in eager.logits.items()
    )

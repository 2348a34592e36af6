"""The two ways to extend a run: probes listen, accelerators intervene. Every verb is optional."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.images import Images
from varlab.engine.plan import RUN, Selection, StagePlan
from varlab.engine.stage import Site, Stage

Compute = Callable[..., Tensor]  # compute(x, chosen=None): on all tokens, or at the positions ``chosen`` [R, n]


class Accelerator:
    """Changes how stages run. The base class changes nothing and gives the dense image bit for bit.

    A method with options is a dataclass: its fields are the options, and a run never changes them.
    """

    name = "none"
    needs: ClassVar[tuple[str, ...]] = ()  # what a comparison must supply, such as a dense reference run
    blind = False  # whether its plans depend on nothing but the stage
    # Whether it neither acts nor listens before its first plan that is not RUN; so does a blind one that does not wrap
    # the sublayers.
    waits = False
    whole = False  # whether it reads whole grids, and so cannot follow a selection before block 0

    def files(self, model: str) -> tuple[Path, ...]:
        """The files that decide what it does on a model of this name: its options may name them, but say not what is
        in them."""
        return ()

    def start(self, context: Context) -> None:
        """Before each batch: drop all state."""

    def plan(self, stage: Stage) -> StagePlan | list[StagePlan]:
        """Before a stage: one plan, or one for each sample (the engine then splits the batch)."""
        return RUN

    def outline(self, stage: Stage) -> StagePlan:
        """What of its plan is settled once it has started: methods that clash are refused by it, before any work."""
        plan = self.plan(stage) if self.blind else RUN
        assert isinstance(plan, StagePlan)
        return plan

    def check(self, outline: Sequence[StagePlan]) -> None:
        """Raises VarlabError for stages, as all methods that run together outline them, that it cannot work with."""

    def sublayer(self, site: Site, x: Tensor, compute: Compute) -> Tensor:
        """Around a sublayer (attention, cross, ffn): x [R, n, C] -> what is added to it [R, n, C]."""
        return compute(x)

    def after_sublayer(self, site: Site, x: Tensor, y: Tensor, selection: Selection | None) -> None:
        """After a sublayer of a watched block: its input x and what it adds y, both [R, n, C]."""

    def after_block(self, site: Site, x_in: Tensor, x_out: Tensor, selection: Selection | None) -> None:
        """After a block that a plan's ``watch`` names, this method's or another's: look at ``site.block``."""

    def complete(self, stage: Stage, codes: Tensor, selection: Selection) -> Tensor:
        """Codes of the computed positions [B, n, d] -> codes of the whole grid [B, h*w, d]."""
        raise NotImplementedError

    def expand(self, stage: Stage, x: Tensor, selection: Selection) -> Tensor:
        """In place of ``complete``: hidden states of the computed positions [R, n, C] -> of the whole grid, before
        the read-out, so that every position draws its own labels."""
        raise NotImplementedError

    def end_stage(self, stage: Stage, images: Images) -> None:
        """After the canvas has grown."""

    def fork(self, samples: Tensor) -> "Accelerator":
        """A copy for a part of the batch, with own containers. Override where tensors are kept per sample."""
        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list | set):
                setattr(twin, name, copy.copy(value))
        return twin

    def report(self) -> dict[str, Any]:
        """What the method decided, asked for at the end and kept in the log under the method's name.

        A triple (axes, values [images, *axes], unit) holds something of every image of the group, in its order;
        "stage-05/kept" belongs to one stage. Anything else is a fact of the whole run.
        """
        return {}


class Probe:
    """Listens and logs; may change nothing. Tensors are views of the run: reduce or copy them at once.

    A probe with options is a dataclass, as a method is.
    """

    name = "probe"

    def start(self, context: Context) -> None:
        """Before each batch."""

    def on_stage(self, stage: Stage, x: Tensor) -> None:
        """The tokens that enter block 0: x [R, n, C]."""

    def on_sublayer(self, site: Site, x: Tensor, y: Tensor) -> None:
        """A sublayer: input x and what it adds y, both [R, n, C]."""

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        """A whole block on the residual stream [R, n, C]."""

    def on_logits(
        self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None
    ) -> None:
        """Logits [B, n, d, values] at temperature 1 of each guidance row and guided; the labels drawn [B, n, d], None
        where they cannot be seen (a run that is listened to from outside)."""

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        """``codes``: the residual map of the stage on its own grid [B, b, h, w]; the canvas [B, b, H, W] around it."""

    def on_image(self, samples: tuple[int, ...], image: Tensor) -> None:
        """Final images [B, 3, H, W] in [0, 1]."""


def overrides(hook: object, verb: str, base: type) -> bool:
    """Whether a hook does something at this verb, so that the engine can leave it out elsewhere."""
    return getattr(type(hook), verb) is not getattr(base, verb)

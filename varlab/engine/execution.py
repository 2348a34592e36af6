"""How a run executes its model: eagerly here; compiled (``compiled``) or replayed from CUDA graphs (``graphs``)."""

from collections.abc import Callable, Sequence

from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.images import Images
from varlab.engine.memory import release_pages
from varlab.engine.stage import Site, Stage
from varlab.models.base import Attend, NextScaleModel


class Execution:
    """The eager execution, and the verbs that others override; a run is given one."""

    def describe(self, model: NextScaleModel) -> str:
        """In words, for records."""
        return model.execution

    def check(self, context: Context, probes: Sequence[Probe], accelerators: Sequence[Accelerator]) -> None:
        """Raises VarlabError for what cannot run this way, before any work."""

    def begin(self, context: Context, images: Images) -> None:
        """Before the first stage of a batch: put its tensors where later stages look for them."""

    def sublayer(
        self, model: NextScaleModel, site: Site, x: Tensor, images: Images, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        """A sublayer, gate included: x [R, n, C] -> [R, n, C] fp32."""
        return model.sublayer(site.block, str(site.sublayer), x, images.conditioning, positions, attend)

    def blocks(
        self, context: Context, images: Images, stage: Stage, x: Tensor, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """All blocks of a stage: x [R, n, C] -> [R, n, C]; ``compute`` runs them one by one."""
        return compute(x)

    def release(self, groups: Sequence[Images]) -> None:
        """After the last stage: keys and values give their memory to the decoder."""
        held = sum(images.kv.bytes for images in groups)
        for images in groups:
            images.kv.release()
        if groups:
            release_pages(held, groups[0].canvas.device)

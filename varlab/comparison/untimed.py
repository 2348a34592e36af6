"""Pictures that nobody times: methods that share their first stages are drawn together, each bit for bit as alone."""

from collections.abc import Iterator

from torch import Tensor

from varlab.accelerators import DENSE
from varlab.engine.context import Context
from varlab.engine.dense import Dense
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import Methods, may_share, shared_runs
from varlab.engine.stage import Stage
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.runs import Job


class LastCanvases(Probe):
    """``after``: by stage and images the canvas that was last grown there."""

    name = "last-canvases"

    def start(self, context: Context) -> None:
        self.after = dict[int, dict[tuple[int, ...], Tensor]]()

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        if not self.after:
            self.blank = before
        self.after.setdefault(stage.index, {})[stage.samples] = canvas


def drawn(
    job: Job, samples: range, methods: Methods, canvases: LastCanvases | None = None
) -> Iterator[tuple[str, Generation]]:
    """What each method gives of a batch; the dense run, which is among them, comes first and serves those that need it.
    Where one of those that share fails, or plans each image by itself, all that are left run alone.

    ``canvases``: holds, whenever a method is through, its canvas after each stage that it ran; stages that it did
    without may hold another's.
    """
    text, numbers, keeper = job.text(samples), list(samples), canvases or LastCanvases()
    dense: Dense | None = None
    given = set[str]()
    together = {name: methods[name] for name in (DENSE, *methods) if may_share(methods[name])}

    def run() -> Run:
        return Run(job.model, job.settings, SeededNoise(job.seed), [keeper])

    try:
        for name, out in shared_runs(run(), text, numbers, together):
            if name == DENSE:
                grown = [canvas for after in keeper.after.values() for canvas in after.values()]
                dense = Dense(tuple(numbers), [keeper.blank, *grown], job.model.decode)
            given.add(name)
            yield name, out
    except VarlabError:
        pass  # alone it says so again
    for name, joined in methods.items():
        if name not in given:
            yield name, run().generate(text, numbers, joined, dense=dense)

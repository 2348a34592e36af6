"""A complete probe to start from: how much of the canvas's energy each stage adds, image by image."""

from dataclasses import dataclass

from torch import Tensor

from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.probes.base import LoggingProbe
from varlab.probes.log import Log
from varlab.specs import option


@dataclass(eq=False)
class AddedEnergy(LoggingProbe):
    """||canvas after - canvas before||^2 over ||canvas after||^2 of every stage; NaN where a stage did not run."""

    name = "added-energy"

    power: float = option(2.0, "exponent of the norm; a higher one counts large changes more")

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise VarlabError(f"added-energy: power is above 0, not {self.power}.")

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        change, whole = ((x.abs() ** self.power).sum((1, 2, 3)) for x in (canvas - before, canvas))
        self.recorder.put(("share", stage.index), stage.samples, change / whole)  # stays on the device until the end

    def log(self) -> Log:
        shares = self.recorder.table([("share", k) for k in self.stages], self.samples)  # [images, stages]
        return {self.name: self.group({"share": (("stage",), shares, "1")}, {"power": self.power})}

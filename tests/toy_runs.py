"""What test_runs.py and test_run_settings.py share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.conftest import tiny_infinity
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.stage import Stage
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText

PROMPTS = ["a red star", "a blue ring", "two circles", "a green cross", "a square"]


PROBES = ("token-mse", "branch-divergence")  # their logs are small: writing one takes longer than drawing


@pytest.fixture()
def model() -> Infinity:
    model = tiny_infinity()
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    model.weights = "random (seed 0)"
    return model


@dataclass(eq=False)
class Telling(Accelerator):
    name = "telling"
    each: bool

    def start(self, context: Context) -> None:
        self.asked = True

    def plan(self, stage: Stage) -> StagePlan:
        self.images = stage.samples
        return RUN

    def report(self) -> dict[str, Any]:
        images = np.array(self.images)
        if self.each:
            return {
                "drop": ((), images, ""),
                "stage-02/kept": (("y", "x"), images[:, None, None] * np.ones((2, 2)), ""),
            }
        return {"exits": [4, 2]}

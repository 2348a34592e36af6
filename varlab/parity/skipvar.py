"""Golden runs of SkipVAR: every branch that a decision may take, through the engine and our accelerator.

A file holds one image under each fixed strategy: stages dropped at the end, or run there without the unconditional
branch. Each is run with the decision given, forced along the golden's bits; what the decision would rest on, the
previews and their two features, is compared whatever the branch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.decisions import FEATURES, always
from varlab.accelerators.skipvar import LATE, SkipVAR
from varlab.engine.context import Context
from varlab.engine.stage import Stage
from varlab.parity.comparison import Arrays, Comparison, held_to
from varlab.parity.golden import Golden
from varlab.parity.infinity import compare_stage, image, inputs, prepared
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.run import CacheWatch, Outcome, generate
from varlab.parity.skipvar_tables import edges

COMMON = "common"  # prefix of what all branches share


@dataclass(frozen=True)
class Branch:
    """A strategy by the golden's name: final stages ``dropped``, or ``replaced``, that is without guidance."""

    name: str
    dropped: int
    replaced: int
    least: float | None  # smallest margin of a bit that the golden states for this branch

    @property
    def changed(self) -> int:
        """Final stages in which it is not the base run."""
        return self.dropped + self.replaced

    def prefixes(self, from_end: int) -> tuple[str, ...]:
        """Where the arrays of a stage may be: its own, or before it parts those of the base run and of all branches."""
        return (self.name,) if from_end < self.changed else (self.name, "base", COMMON)


@dataclass(eq=False)
class Watched(SkipVAR):
    """Keeps the previews that it looks at: canvas, and image in [-1, 1]."""

    def start(self, context: Context) -> None:
        super().start(context)
        self.previews: list[tuple[Tensor, Tensor]] = []

    def preview(self, canvas: Tensor, stage: Stage) -> Tensor:
        image = super().preview(canvas, stage)
        self.previews.append((canvas, image))
        return image


@held_to(
    equal="cu_seqlens neg_cu_seqlens gt_bits_* *.bits_used_* *.kv_shapes",
    logits_rel="*.logits_*",
    features_rel="*.sobel_* *.features",
    preview_abs="*.preview_old *.preview_new *.decoded",
    image_uint8_abs="*.image_uint8_bgr",
    hidden_rel="*",
)
def compare(comparison: Comparison) -> None:
    """Bits exact but for near ties."""
    rebuilt = setup(comparison.golden)
    golden = comparison.golden = prepared(comparison.golden, rebuilt)
    comparison.hold(inputs(rebuilt))
    base: Outcome[Setup] | None = None
    for branch in _branches(golden):
        watch = CacheWatch()
        outcome = _run(golden, rebuilt, branch, watch)
        if base is None:
            base = outcome
            _compare_stages(comparison, outcome, COMMON, branch)
            comparison.hold(_decision(outcome))
        else:
            _compare_start(comparison, outcome, base, branch)
        _compare_stages(comparison, outcome, branch.name, branch)
        shapes = np.array([[blocks[0], blocks[-1]] for blocks in watch.shapes])
        comparison.hold({f"{branch.name}.kv_shapes": shapes} | image(outcome, f"{branch.name}."))
    if "real_models" in golden.config:
        comparison.note("NOT COMPARED: real_models in config_json, choices of decision models that the file lacks")


def _branches(golden: Golden) -> list[Branch]:
    """All branches, the base run first. A label that is null means that the branch never came to that decision."""
    table: dict[str, dict[str, Any]] = golden.require("branches")
    branches = [
        Branch(name, entry.get("skip_label") or 0, entry.get("uncond_label") or 0, entry.get("min_margin"))
        for name, entry in table.items()
    ]
    return sorted(branches, key=lambda branch: branch.changed)


def _run(golden: Golden, rebuilt: Setup, branch: Branch, watch: CacheWatch) -> Outcome[Setup]:
    """The branch along the golden's bits. Argmax: if no bit differs, an unforced run takes the same path."""
    forced = {}
    for k in rebuilt.stages:
        prefixes = [f"{prefix}." for prefix in branch.prefixes(len(rebuilt.stages) - 1 - k)]
        if (labels := rebuilt.path(golden, k, prefixes)) is not None:
            forced[k] = labels
    method = Watched(model=always(branch.dropped, branch.replaced))
    return generate(rebuilt, forced, [method, watch], stages=())


def _compare_stages(comparison: Comparison, outcome: Outcome[Setup], prefix: str, branch: Branch) -> None:
    """What the file holds under a prefix of the stages that ran."""
    config, model = comparison.golden.config, outcome.setup.model
    strides, margins = config.get("logit_stride", {}), config.get("bits_margin_base", [])
    for k, canvas in enumerate(outcome.capture.canvas):
        least = margins[k] if branch.changed == 0 and k < len(margins) else branch.least
        compare_stage(comparison, outcome, k, f"{prefix}.", int(strides.get(str(k), 1)), least)
        if k + 1 < len(model.schedule):
            latent = model.resize(canvas, model.latent_grid(model.schedule.grids[k + 1]))
            comparison.hold({f"{prefix}.next_input_latent_{k + 1}": latent})


def _compare_start(comparison: Comparison, outcome: Outcome[Setup], base: Outcome[Setup], branch: Branch) -> None:
    """Until it parts from the base run a branch must be that run, to the last digit."""
    stages = len(outcome.setup.model.schedule) - branch.changed
    ran = len(outcome.capture.canvas) >= stages
    ours, theirs = outcome.capture, base.capture
    pairs = zip(ours.final[:stages] + ours.canvas[:stages], theirs.final[:stages] + theirs.canvas[:stages], strict=True)
    same = ran and all(torch.equal(a, b) for a, b in pairs)
    comparison.verify(f"{branch.name}.start", same, "" if same else f"not the base run in its first {stages} stages")


def _decision(outcome: Outcome[Setup]) -> Arrays:
    """The previews as the accelerator saw them, after the stage of the decision and one before, and their features.

    The official features are one number a batch, the mean over its images.
    """
    model, values = outcome.setup.model, Arrays()
    decided, (method, *_) = len(model.schedule) - 1 - LATE, outcome.state.accelerators
    assert isinstance(method, Watched)
    grid = model.latent_grid(model.schedule.grids[method.grid - 1])
    for age, k in (("old", decided - 1), ("new", decided)):
        seen = [preview for preview in method.previews if torch.equal(preview[0], outcome.capture.canvas[k])]
        canvas, pixels = seen[0] if seen else (None, None)
        values[f"preview_{age}_latent"] = None if canvas is None else model.resize(canvas, grid)
        values[f"preview_{age}"] = pixels
        values[f"sobel_{age}"] = None if pixels is None else edges(pixels)
    (reports,) = outcome.generation.reports.values()
    values["features"] = np.stack([reports["skipvar"][name][1] for name in FEATURES], -1).mean(0)
    return {f"{COMMON}.{name}": value for name, value in values.items()}

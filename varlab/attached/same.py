"""Whether a module of others and our model compute the same on the same weights: logits, stage by stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor, nn

from varlab.attached import configs
from varlab.attached.arguments import batch_of
from varlab.attached.hooked import Attached
from varlab.attached.starts import default_call, text_of
from varlab.attached.structure import structure_of
from varlab.context import shapes_only
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.markup import summary
from varlab.models.base import NextScaleModel
from varlab.models.hart_model import Hart
from varlab.models.infinity_model import Infinity
from varlab.models.var_model import VAR
from varlab.probes import LoggingProbe
from varlab.probes.log import Log
from varlab.schedules import INFINITY_GRIDS, Schedule, custom, matching, square
from varlab.weights.families import build
from varlab.weights.fitting import load_into

TOLERANCE, ROUNDED = {"fp32": 1e-4}, 0.05  # of the largest logit; the latter for weights with fewer bits


@dataclass
class Same:
    """What ``same_model`` found. ``passed``: every stage within the tolerance.

    Attributes
    ----------
    table : a row a stage: largest difference of the conditional and of the unconditional logits over the largest
        logit, share of labels whose likeliest value agrees, largest difference of the canvas over its largest value
    tolerance : of the differences of logits
    image : largest difference of the pictures, in [0, 1]; NaN, as is the last canvas, where HART's diffusion head adds
        what it draws at random
    ours : our model on these weights, to go on with
    """

    table: pd.DataFrame
    tolerance: float
    image: float
    precision: str
    name: str
    unseen: tuple[str, ...]
    ours: NextScaleModel[Any, Any, Any] = field(repr=False)

    @property
    def passed(self) -> bool:
        gaps = self.table[["conditional", "unconditional"]]
        return bool((gaps.isna() | (gaps <= self.tolerance)).all().all() and self.table["conditional"].notna().all())

    def __repr__(self) -> str:
        worst = self.table["conditional"].idxmax()
        head = summary(
            f"{self.name} and our model on its weights: {'the same' if self.passed else 'NOT the same'}",
            logits=f"differ by at most {self.table['conditional'].max():.2g} of the largest (stage {worst}; "
            f"tolerance {self.tolerance:g} in {self.precision})",
            labels=f"{self.table['agree'].min():.2%} of the likeliest agree in the worst stage",
            picture=f"differs by at most {self.image:.2g}" if self.image == self.image else "drawn at random",
            unseen="; ".join(self.unseen) or "nothing",
        )
        return f"{head}\n{self.table.to_string(float_format='{:.2g}'.format)}"


class Capture(LoggingProbe):
    """Logits, labels and canvases of every stage, on the CPU."""

    name = "capture"

    def start(self, context: Any) -> None:
        super().start(context)
        self.logits: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.labels: dict[int, Tensor] = {}
        self.canvases: dict[int, Tensor] = {}

    def on_logits(
        self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None
    ) -> None:
        self.logits[stage.index] = (cond.cpu(), None if uncond is None else uncond.cpu())
        if labels is not None:
            self.labels[stage.index] = labels.cpu()

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.canvases[stage.index] = canvas.cpu()

    def log(self) -> Log:
        self.last = self.image.cpu()
        return {}


def same_model(
    official: nn.Module,
    ours: NextScaleModel[Any, Any, Any] | None = None,
    *,
    vae: nn.Module | None = None,
    text: Any = None,
    generate: Callable[[], Any] | None = None,
    tolerance: float | None = None,
    **settings: Any,
) -> Same:
    """Run a module of others once, and our model on its weights with the labels that it drew, and compare logits.

    Neither module is changed. Memory: the weights once more, and the logits of all stages on the CPU.

    Parameters
    ----------
    official
        The transformer, as for ``vl.attach``.
    ours
        Our model, whose architecture and schedule count; its weights are not used. None reads both off the module.
    vae
        Infinity's tokenizer.
    text
        What is drawn: a TextBatch of features for Infinity, a HartText for HART, class numbers for VAR.
    generate
        A call of the module's sampler in place of the released one's with ``text``, at its most likely labels. A
        mixture of codes (``more_smooth``) hides the labels: leave it off.
    tolerance
        Of the differences, over the largest logit; 1e-4 in fp32 and 0.05 in others by default.
    **settings
        cfg and tau of the call.

    Raises
    ------
    VarlabError
        For modules that ``vl.attach`` refuses, weights that do not fit our model, and calls whose labels are hidden.

    Examples
    --------
    >>> vl.same_model(official, vae=vae, text=features)
    """
    if text is None and generate is None:
        raise VarlabError("Give text= for the released sampler, or generate= for a call of your own.")
    probe = Capture()
    family = structure_of(official).family
    if ours is not None and ours.family != family:
        raise VarlabError(f"{ours.name} is a {ours.family}, the module a {family}.")
    told = settings if generate is not None else {}
    hooked = Attached(official, vae, [probe], None, None, None, None, told)
    call = generate or (lambda: default_call(hooked.structure, vae, text, ours, settings))
    with hooked:
        call()
    arguments = hooked.given_last
    if hooked.face is None or hooked.settings is None or not probe.canvases:
        raise VarlabError("Nothing was drawn, or its cfg and tau were not seen: give cfg= and tau=.")
    missing = [k + 1 for k in probe.logits if k not in probe.labels]
    if missing:
        raise VarlabError(f"The labels of stages {missing} are hidden. Draw labels, not mixtures (more_smooth=False).")
    read = text_of(hooked.structure.family, arguments, text)
    grids = tuple(hooked.face.schedule.grids)
    model = _ours(hooked, arguments.get("vae") or vae, ours, grids, read)
    own = Capture()
    noise, forced = SeededNoise(0), {k: labels.to(model.device) for k, labels in probe.labels.items()}
    run = Run(model, hooked.settings, noise, [own], forced=forced, choose=lambda logits: logits.argmax(-1))
    count = batch_of(arguments) or len(next(iter(probe.canvases.values())))
    run.generate(read[0], list(range(count)), negative=read[1])
    own.log()
    precision, table, image = model.precision, _table(probe, own), float((probe.last - own.last).abs().max())
    if getattr(hooked.settings, "residual", False):
        image = table.loc[len(grids), "canvas"] = float("nan")
    return Same(
        table=table,
        tolerance=TOLERANCE.get(precision, ROUNDED) if tolerance is None else tolerance,
        image=image,
        precision=precision,
        name=type(hooked.structure.module).__name__,
        unseen=tuple(hooked.unseen),
        ours=model,
    )


def _ours(
    hooked: Attached, vae: nn.Module | None, ours: NextScaleModel[Any, Any, Any] | None, grids: Any, read: Any
) -> NextScaleModel[Any, Any, Any]:
    """Our model with the module's weights, in its type and on its device."""
    structure, depth = hooked.structure, len(hooked.structure.blocks)
    image: Any = vae if structure.family == "infinity" else structure.module.vae_proxy[0]  # type: ignore[index]
    if ours is not None:
        parts = [vars(ours)["transformer"].config, vars(ours)["tokenizer"].config]
    elif structure.family == "infinity":
        parts = [configs.infinity_config(structure.module, depth, image), configs.bsq_config(image)]
    elif structure.family == "var":
        parts = [configs.var_config(structure.module, depth), configs.vq_config(image, len(grids))]
    else:
        length = read[0].features.shape[1]
        parts = [configs.hart_config(structure.module, length), configs.hybrid_config(image)]
    if configs.heads_of(structure.module, configs.shapes_of(structure.module)) is None and ours is None:
        raise VarlabError("How many heads the attention has is told by no weight and no num_heads: give our model too.")
    held = hooked.face.precision  # type: ignore[union-attr]
    precision = next((half for half in ("bf16", "fp16") if half in held), "fp32")
    device = str(hooked.face.device)  # type: ignore[union-attr]
    made = []
    for config, source, name in zip(parts, (structure.module, image), ("transformer", "tokenizer"), strict=True):
        with shapes_only():
            module = build(config)
        load_into(module, _own(source.state_dict()), f"The attached {name}", precision, device)
        made.append(module.eval().requires_grad_(False))
    return _model(structure.family, made, grids, ours, type(structure.module).__name__)


def _own(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A module's state without what our models do not have: running counts, second decoders, discriminators."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(("decoder2.", "post_quant_conv2."))}


def _model(
    family: str, made: list[Any], grids: Any, ours: NextScaleModel[Any, Any, Any] | None, name: str
) -> NextScaleModel[Any, Any, Any]:
    label = f"ours with the weights of {name}"
    if ours is not None:
        if tuple(ours.schedule.grids) != grids:
            raise VarlabError(
                f"{ours.name} has a schedule up to {ours.schedule.final}, the call one up to {grids[-1]}."
            )
        return ours.with_(transformer=made[0], tokenizer=made[1], name=label)
    if family == "var":
        return VAR(made[0], made[1], name=label)
    if family == "hart":
        return Hart(made[0], made[1], square(tuple(h for h, _ in grids), "attached"), name=label)
    return Infinity(made[0], made[1], _released(grids), name=label)


def _released(grids: Any) -> Schedule:
    """Infinity's positions are in units of the released schedule's last grid, where the stages are its first."""
    known = any(table[: len(grids)] == grids for table in INFINITY_GRIDS.values()) and len(grids) > 1
    return matching(grids) if known else custom(grids, "attached")


def _table(theirs: Capture, ours: Capture) -> pd.DataFrame:
    rows = []
    for k, (cond, uncond) in theirs.logits.items():
        own_cond, own_uncond = ours.logits[k]
        top = float(cond.abs().max())
        other = None if uncond is None or own_uncond is None else (uncond - own_uncond).abs().max()
        gap = (theirs.canvases[k] - ours.canvases[k]).abs().max() / theirs.canvases[k].abs().max()
        rows.append({
            "stage": k + 1, "conditional": float((cond - own_cond).abs().max()) / top,
            "unconditional": float("nan") if other is None else float(other) / top,
            "agree": float((cond.argmax(-1) == own_cond.argmax(-1)).float().mean()), "canvas": float(gap),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("stage")

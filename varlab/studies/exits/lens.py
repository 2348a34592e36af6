"""The logit lens: what the shared head reads after every block, and what leaving there would have cost.

Images are drawn at full depth; their own codes are then fed back (teacher forcing, which gives the sampler's logits),
so that a stage's regret is its own and none of it comes from earlier stages. Source: FreqExit, figure 2 (c).
"""

from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.analysis.measured import Measured
from varlab.context import fixed_context
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.evaluation.classes import labels
from varlab.models.layers import block_causal_attend
from varlab.models.var_model import VAR
from varlab.studies.exits import facts_of
from varlab.training.freqexit.wavelets import haar


class _Drawn(Probe):
    """The labels of every stage [B, n]."""

    name = "drawn"

    def __init__(self) -> None:
        self.labels: list[Tensor] = []

    def on_logits(
        self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None
    ) -> None:
        assert labels is not None
        self.labels.append(labels.squeeze(-1).clone())


@torch.inference_mode()
@fixed_context()
def lens(model: VAR, n: int = 32, seed: int = 0, batch: int = 8) -> Measured:
    """One row an image, stage and layer (both from 1), means over the stage's tokens:

    ``similarity``: cosine of the most likely codes with those one layer before (none for the first). ``agreement``:
    share of tokens whose most likely code is the last layer's. ``divergence``: KL(last layer || this one) in nats.
    ``error``: |d - d'|^2 / |d'|^2, d what the stage would add to the canvas by its most likely codes at this layer, d'
    at the last. ``detail``: share of that difference, on the stage's grid, in a one-level Haar transform's details.
    All logits are guided as in sampling, at temperature 1.
    """
    texts, rows = labels(model, n), []
    for first in range(0, n, batch):
        samples = list(range(first, min(first + batch, n)))
        drawn = _Drawn()
        chosen = [texts[i] for i in samples]
        Run(model, model.settings, SeededNoise(seed), [drawn]).generate(chosen, samples)
        for k, layers in enumerate(zip(*_by_stage(model, chosen, drawn.labels), strict=True)):
            rows += _stage_rows(model, k, samples, layers)
    return Measured(pd.DataFrame(rows), facts_of(model, texts, seed))


def _by_stage(model: VAR, texts: Sequence[str], drawn: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Guided logits of each layer, stage by stage [B, n, V]."""
    network, lengths = model.transformer, model.schedule.lengths
    classes = model.text(texts).to(model.device)
    both = torch.cat([classes, torch.full_like(classes, network.config.classes)])
    inputs = [codes.repeat(2, 1, 1) for codes in model.tokenizer.inputs(drawn, model.schedule.grids)]
    head = network.head_modulation(network.class_emb(both))
    scales = [model.guidance(k, model.settings, True).scale for k in range(len(lengths))]
    found = []
    for x in network.states(both, inputs, block_causal_attend(lengths, network.config.attention_scale)):
        cond, uncond = network.logits(x, head).chunk(2)
        pairs = zip(cond.split(lengths, 1), uncond.split(lengths, 1), scales, strict=True)
        found.append(tuple(s * c + (1 - s) * u for c, u, s in pairs))
    return found


def _stage_rows(model: VAR, k: int, samples: Sequence[int], layers: Sequence[Tensor]) -> list[dict[str, float]]:
    last = layers[-1].log_softmax(-1)
    choices = [logits.argmax(-1) for logits in layers]
    maps = [model.code_map(k, model.codes(k, choice[..., None])) for choice in choices]  # [B, c, h, w]
    added = [model.tokenizer.step(m, k, len(model.schedule), model.schedule.final) for m in maps]
    rows = []
    for layer, logits in enumerate(layers):
        values = {
            "similarity": _cosine(maps[layer], maps[layer - 1]) if layer else torch.full((len(samples),), torch.nan),
            "agreement": (choices[layer] == choices[-1]).float().mean(-1),
            "divergence": (last.exp() * (last - logits.log_softmax(-1))).sum(-1).mean(-1),
            "error": _norm(added[layer] - added[-1]) / _norm(added[-1]),
            "detail": detail_share(maps[layer] - maps[-1]),
        }
        for i, sample in enumerate(samples):
            numbers = {name: float(value[i]) for name, value in values.items()}
            rows.append({"prompt": sample, "stage": k + 1, "layer": layer + 1} | numbers)
    return rows


def _norm(maps: Tensor) -> Tensor:
    """Squared norm of each image's map [B]."""
    return maps.flatten(1).square().sum(1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over tokens of the cosine of code vectors, of maps [B, c, h, w] -> [B]."""
    return F.cosine_similarity(a, b, dim=1).mean((-2, -1))


def detail_share(maps: Tensor) -> Tensor:
    """Energy of maps [B, c, h, w] in the Haar details over all of it [B]; NaN for one token and for nothing."""
    if maps.shape[-1] < 2:
        return torch.full((len(maps),), torch.nan)
    low, details = haar(maps)
    high = _norm(details)
    return high / (high + _norm(low))

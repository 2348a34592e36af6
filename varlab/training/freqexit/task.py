"""One update of FreqExit: the student's early exits against the codes and, where a term needs it, a frozen teacher."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from varlab.models.layers import block_causal_attend
from varlab.models.var import VARTransformer
from varlab.training.freqexit.curriculum import executed, supervised
from varlab.training.freqexit.losses import Losses, Objective, fine_stages
from varlab.training.freqexit.recipes import FreqExitRecipe
from varlab.training.precision import autocast
from varlab.training.var import Batches


class Student(nn.Module):
    """What is trained and kept: the transformer, and the objective's modules and running means."""

    def __init__(self, transformer: VARTransformer, objective: Objective) -> None:
        super().__init__()
        self.transformer, self.objective = transformer, objective


def new_objective(recipe: FreqExitRecipe, transformer: VARTransformer) -> Objective:
    """The losses for a model. Only the recipes that follow the released code insist on its ten stages."""
    config = transformer.config
    stages = None if recipe.losses.hf_window == "code" else fine_stages(config.sides)
    return Objective(recipe.losses, config.depth, config.sides, config.code_width, stages)


class FreqExitTask:
    """``batches`` gives images' codes and classes; ``steps``: of the whole run, for the schedule of the losses."""

    def __init__(
        self,
        module: Student,
        teacher: VARTransformer,
        batches: Batches,
        recipe: FreqExitRecipe,
        steps: int,
        device: str = "cpu",
    ) -> None:
        self.module, self.batches, self.recipe, self.steps, self.device = module, batches, recipe, steps, device
        self.teacher = teacher.eval().requires_grad_(False)
        config = teacher.config
        self.attend = block_causal_attend(config.lengths, config.attention_scale)
        self.depth = config.depth

    def _exits(
        self, step: int, labels: Tensor, inputs: Sequence[Tensor]
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Logits of the supervised layers [B, N, V], and which samples ran each [B]."""
        student, every = self.module.transformer, self.recipe.exits
        layers = supervised(step, self.depth) if every else [self.depth - 1]
        ran = executed(step, self.depth, len(labels)) if every else None
        head = student.head_modulation(student.class_emb(labels))
        states = student.states(labels, inputs, self.attend, ran)
        logits = {layer: student.logits(x, head) for layer, x in enumerate(states) if layer in layers}
        return logits, {} if ran is None else {layer: ran[layer] for layer in layers}

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        index, generator = self.batches.generator(step, rank)
        ids, inputs = self.batches.codes(index, generator)
        labels = self.batches.labels(index, generator)
        shared = self.recipe.losses.kd_shared_label_drop
        taught = labels if shared else self.batches.labels(index, generator)
        teacher = None
        with autocast(self.device):
            if self.recipe.losses.needs_teacher:
                with torch.no_grad():
                    teacher = self.teacher(taught, inputs, self.attend)
            logits, kept = self._exits(step, labels, inputs)
        table = self.batches.tokenizer.quantize.embedding.weight.detach()
        losses = self.module.objective(logits, teacher, torch.cat(ids, 1), table, kept, step / self.steps)
        return losses.total, _figures(losses)


def _figures(losses: Losses) -> dict[str, float]:
    """For the log; NaN where a term is off."""
    names = ("main", "early", "distillation", "frequency", "scale", "reconstruction")
    values = {name: getattr(losses, name) for name in names}
    return {name: math.nan if value is None else value for name, value in values.items()}

"""The training loop shared by all models: schedule, average, checkpoints, exact resume, data parallel.

A batch is a pure function of (seed, step, rank), so a resumed run repeats the uninterrupted one.
"""

import csv
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from varlab.errors import VarlabError, cause
from varlab.training.muon import Muon


class Task(Protocol):
    """What a model's training adds to the loop."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int, rank: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of the batch that belongs to this step and rank, and figures for the log."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """``steps`` updates; learning rate warms up, stays, then falls to zero over the last ``decay`` share."""

    steps: int
    learning_rate: float
    warmup: int = 200
    decay: float = 0.5
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.998
    seed: int = 0
    checkpoint_seconds: float = 300.0
    log_every: int = 50

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = self.steps * (1 - self.decay)
        done = max(0.0, (step - start) / max(1.0, self.steps - start))
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        return optimizers(module, self)


BLOCKS = re.compile(r"(^|\.)(blocks|block_chunks)\.")  # parameters of a transformer's blocks, in every family


def optimizers(module: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of transformer blocks, AdamW for all else.

    Muon's update is scaled to AdamW's size, so that one learning rate and decay serve both. It costs a few
    matrix products of the weights' size an update.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    inside = {name for name, p in trained.items() if p.ndim == 2 and BLOCKS.search(name)}
    blocks = [p for name, p in trained.items() if name in inside]
    matrices = [p for name, p in trained.items() if p.ndim >= 2 and name not in inside]
    vectors = [p for p in trained.values() if p.ndim < 2]
    rate, decay = config.learning_rate, config.weight_decay
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)]
    if blocks:
        found.append(Muon(blocks, lr=rate, weight_decay=decay))
    return found


class Average:
    """Exponential moving average of the parameters, beside the buffers as they are; what is shipped."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().float().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        learnt = dict(module.named_parameters(remove_duplicate=False))
        own = [self.values[name] for name in learnt]
        torch._foreach_lerp_(own, [p.float() for p in learnt.values()], 1 - decay)
        for key, value in module.named_buffers(remove_duplicate=False):
            if key in self.values:
                self.values[key].copy_(value)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """A full disk or an interruption leaves the former file whole."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch writes archives itself and has its own error for a full disk
        part.unlink(missing_ok=True)
        raise VarlabError(
            f"{path} could not be written ({cause(error)}); the former checkpoint is kept. Free some disk."
        ) from error


class _Stop:
    """Set by Ctrl-C or SIGTERM: the loop ends after the current step and saves."""

    asked = False


@contextmanager
def _signals() -> Iterator[_Stop]:
    stop = _Stop()

    def ask(*_: object) -> None:
        stop.asked = True

    former = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _agree(value: float, world: int) -> float:
    """The largest of the ranks' values."""
    if world == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)


def _average_gradients(module: nn.Module, world: int) -> None:
    if world == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, piece in zip(gradients, flat.div_(world).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


@dataclass
class Progress:
    """Handed to the caller's reporter at every log line. ``pace``: updates a second since the last one."""

    step: int
    steps: int
    figures: dict[str, float]
    seconds: float
    seconds_left: float
    pace: float


class Loop:
    """Runs a task to its last step, or until it is asked to stop. The folder holds all of its state."""

    def __init__(self, task: Task, config: LoopConfig, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.task, self.config, self.folder, self.rank, self.world = task, config, folder, rank, world
        self.step, self.seconds = 0, 0.0
        self.optimizers = config.optimizers(task.module)
        self.average = Average(task.module, config.average)
        if (folder / "state.pt").exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
        if state["config"] != asdict(self.config) or state["world"] != self.world:
            raise VarlabError(
                f"{self.folder} holds a run with other settings ({state['config']}, {state['world']} workers). "
                "Give another run folder, or continue from its weights with --init-from."
            )
        self.task.module.load_state_dict(state["module"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        device = next(self.task.module.parameters()).device
        self.average.values = {k: v.to(device) for k, v in state["average"].items()}
        self.step, self.seconds = state["step"], state["seconds"]
        if self.rank == 0:
            self._drop_later_rows()

    def _drop_later_rows(self) -> None:
        """Rows logged after the last checkpoint will be logged again."""
        path = self.folder / "log.csv"
        if not path.exists():
            return
        header, *rows = path.read_text().splitlines(keepends=True)
        path.write_text("".join([header, *(row for row in rows if int(row.split(",", 1)[0]) <= self.step)]))

    def save(self) -> None:
        if self.rank:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "world": self.world,
            "config": asdict(self.config),
            "module": self.task.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.values,
        }
        write_atomically(self.folder / "state.pt", lambda path: torch.save(state, path))

    def _update(self) -> dict[str, float]:
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.config.rate(self.step)
        loss, figures = self.task.loss(self.step, self.rank)
        if not math.isfinite(_agree(0.0 if torch.isfinite(loss) else math.inf, self.world)):
            raise VarlabError(f"The loss is not finite at step {self.step}. {self._good()}")
        self.task.module.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(self.task.module, self.world)
        norm = nn.utils.clip_grad_norm_(self.task.module.parameters(), self.config.clip)
        if not torch.isfinite(norm):  # the gradients are the same on all ranks
            raise VarlabError(f"The gradient is not finite at step {self.step}. {self._good()}")
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.average.update(self.task.module, self.step)
        return {"loss": float(loss.detach()), "gradient": float(norm), **figures}

    def _good(self) -> str:
        return (
            f"The last good state is in {self.folder / 'state.pt'}: the same command repeats the step from there; "
            "lower learning_rate in the recipe and take another --folder for a run that does not."
        )

    def _log(self, figures: dict[str, float]) -> None:
        path = self.folder / "log.csv"
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "rate": self.config.rate(self.step),
            **figures,
        }
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def _checkpoint(self, saved: Callable[[int], None]) -> None:
        self.save()
        if self.rank == 0:
            saved(self.step)

    def run(
        self, report: Callable[[Progress], None] = lambda _: None, saved: Callable[[int], None] = lambda _: None
    ) -> bool:
        """True when the last step is done; False when stopped before. Either way the state is saved.

        ``saved`` is called with the step after every checkpoint, ``report`` at every log line, both on rank 0 alone.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        started = last = logged = time.monotonic()
        base, first = self.seconds, self.step
        shown = first
        with _signals() as stop:
            while self.step < self.config.steps:
                figures = self._update()
                now = time.monotonic()
                self.seconds = base + now - started
                if self.rank == 0 and (self.step % self.config.log_every == 0 or self.step == self.config.steps):
                    self._log(figures)
                    left = (now - started) / (self.step - first) * (self.config.steps - self.step)
                    pace, shown, logged = (self.step - shown) / (now - logged), self.step, now
                    report(Progress(self.step, self.config.steps, figures, self.seconds, left, pace))
                if now - last > self.config.checkpoint_seconds:
                    self._checkpoint(saved)
                    last = now
                if self.step % 10 == 0 and _agree(float(stop.asked), self.world):
                    break
        self._checkpoint(saved)
        return self.step >= self.config.steps

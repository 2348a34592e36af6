"""What training needs to know of a model, whatever its family: sizes, optimisation, and four hooks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.captions import CaptionEncoder
from varlab.models.guidance import Settings
from varlab.scenes import SCENE_VERSION, VOCABULARY, make_dataset
from varlab.schedules import Schedule
from varlab.training.loop import LoopConfig, Task
from varlab.training.pool import ScenePool
from varlab.weights.embedded import MiniFacts, Parts
from varlab.weights.families import FAMILIES, TokenizerConfig, TransformerConfig, build, family_of


@dataclass(frozen=True)
class CorrectionConfig:
    """``flip`` and ``swap`` bound the corruption, drawn per sample and stage; ``drop`` is the share of null captions.

    ``shorten``: share of captions cut to what short prompts say, see ``batches.Captions``.

    ``largest``: a stage of more tokens is trained on so many of them, drawn anew for every batch, until the update
    ``whole_from``. The less, the cheaper an update. Source: HART, section 3.3. But a token then attends to fewer of
    its stage than in sampling, and weights that see little else get worse at whole stages while that loss still falls
    (docs/scenes.md). ``whole_every``: every so-many-th update before is on whole stages too, 0 for none.
    """

    batch: int
    flip: float = 0.1
    swap: float = 0.1
    drop: float = 0.1
    seed: int = 0
    largest: int | None = None
    whole_from: int = 0
    shorten: float = 0.0
    whole_every: int = 0

    def whole(self, step: int) -> bool:
        """Whether the update trains on all tokens of all stages."""
        often = self.whole_every > 0 and (step + 1) % self.whole_every == 0
        return self.largest is None or step >= self.whole_from or often


class Trained(nn.Module):
    """What the second part trains: the transformer, and with it the caption encoder where there is one."""

    def __init__(self, text: CaptionEncoder | None, transformer: nn.Module) -> None:
        super().__init__()
        self.text, self.transformer = text, transformer

    def captions(self) -> CaptionEncoder:
        assert self.text is not None
        return self.text


@dataclass(frozen=True)
class Material:
    """What a transformer is taught from: the trained tokenizer, latents [N, c, h, w] and captions of N scenes.

    ``seen``: updates before this run, so that a continued one goes on to other batches. ``compiled``: blocks go
    through torch.compile, which needs a C++ compiler and about two minutes at the start and is faster afterwards.
    """

    tokenizer: Any
    schedule: Schedule
    latents: np.ndarray
    captions: Sequence[str]
    correction: CorrectionConfig
    seen: int = 0
    device: str = "cpu"
    compiled: bool = False

    def runner(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A block's ``forward``, compiled where that is asked for."""
        return torch.compile(forward, dynamic=False) if self.compiled else forward


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Batch sizes are per worker; ``workers`` is what the shipped weights were trained with.

    ``tokenizer_from``: a shipped mini whose tokenizer this one starts from, None for one that starts from nothing.
    ``classes``: names of the classes, in the order of their numbers, where the model reads no captions.
    ``scene_version``: of the scenes that it learns. ``fine_tunes``: a shipped mini of the same architecture but other
    scenes, from which tokenizer and transformer both go on; ``--init-from`` may give another in its place.
    ``categories``: weights of the scene categories in the pool, None for all alike; not of one that reads classes.
    """

    name: str
    image_size: int
    pool: int
    pool_seed: int
    schedule: Schedule
    tokenizer: TokenizerConfig
    transformer: TransformerConfig
    tokenizer_batch: int
    tokenizer_loop: LoopConfig
    correction: CorrectionConfig
    loop: LoopConfig
    settings: Settings
    workers: int = 2
    tokenizer_from: str | None = None
    classes: tuple[str, ...] = ()
    scene_version: str = SCENE_VERSION
    fine_tunes: str | None = None
    categories: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.classes and self.categories is not None:
            raise VarlabError(f"categories weighs scenes with captions; {self.name} reads classes. Leave it out.")

    def with_sizes(self, steps: int | None = None, pool: int | None = None) -> Self:
        """The recipe with another number of transformer updates or training scenes; None keeps its own."""
        loop = self.loop if steps is None else replace(self.loop, steps=steps)
        whole_from = round(self.correction.whole_from * loop.steps / self.loop.steps)
        correction = replace(self.correction, whole_from=whole_from)
        return replace(self, loop=loop, correction=correction, pool=self.pool if pool is None else pool)

    # Modules

    def new_tokenizer(self) -> Any:
        torch.manual_seed(self.tokenizer_loop.seed)
        return build(self.tokenizer)

    def new_transformer(self) -> Trained:
        torch.manual_seed(self.loop.seed)
        text = None
        if FAMILIES[family_of(self.transformer)].reads == "captions":
            text = CaptionEncoder(VOCABULARY, self.transformer.text_width)  # type: ignore[union-attr]
        return Trained(text, build(self.transformer))

    def parts(self, tokenizer: nn.Module, trained: Trained) -> Parts:
        return Parts(trained.transformer, tokenizer, trained.text)

    def images(self, pool: ScenePool) -> Callable[[int, int], Tensor]:
        """The tokenizer's batches: (step, rank) -> uint8 [B, H, W, 3]."""
        return partial(pool.batch_of_images, self.tokenizer_batch, self.tokenizer_loop.seed)

    # Hooks of a family

    def adopt(self, tokenizer: Any, source: Parts, facts: MiniFacts, pool: ScenePool) -> None:
        """Give a fresh tokenizer the weights of the mini that it starts from, which must have the same one."""
        if facts.tokenizer != self.tokenizer:
            raise VarlabError(
                f"{self.name} starts from the tokenizer of {self.tokenizer_from}, which is another one: "
                f"{facts.tokenizer}, not {self.tokenizer}."
            )
        tokenizer.load_state_dict(source.tokenizer.state_dict())

    @abstractmethod
    def tokenizer_task(self, tokenizer: Any, pool: ScenePool, device: str) -> Task: ...

    def settle(self, tokenizer: Any, pool: ScenePool) -> Any:
        """What its training leaves to be set once it is done, from the pool alone."""
        return tokenizer

    @abstractmethod
    def latents_of(self, tokenizer: Any, images: Tensor) -> Tensor:
        """What the transformer is taught from: latents before quantisation [B, c, h, w] of [B, 3, H, W] in [-1, 1]."""

    @abstractmethod
    def transformer_task(self, module: Trained, material: Material) -> Task: ...

    def make_scenes(self, n: int, first: int) -> tuple[np.ndarray, list[str]]:
        """Scenes ``first`` to ``first + n`` of the pool: images uint8 [n, H, W, 3] and their captions or classes."""
        return make_dataset(
            n, self.pool_seed, self.image_size, self.categories, first=first, version=self.scene_version
        )

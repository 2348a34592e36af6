"""From nothing to a trained mini: scenes, tokenizer, latents, transformer. Every part resumes where it stopped."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from varlab.models.captions import CaptionEncoder
from varlab.models.infinity import InfinityTransformer
from varlab.models.tokenizers.bsq import BSQTokenizer
from varlab.scenes import VOCABULARY
from varlab.training.infinity import InfinityTask, TextToCodes, encode_pool
from varlab.training.launch import launch
from varlab.training.loop import Loop, Progress
from varlab.training.pool import ScenePool, build_pool
from varlab.training.recipes import Recipe
from varlab.training.tokenizer import TokenizerTask

Report = Callable[[str, Progress], None]


def silent(part: str, progress: Progress) -> None:
    """A reporter that says nothing."""


def new_tokenizer(recipe: Recipe) -> BSQTokenizer:
    torch.manual_seed(recipe.tokenizer_loop.seed)
    return BSQTokenizer(recipe.tokenizer).to(memory_format=torch.channels_last)


def new_transformer(recipe: Recipe) -> TextToCodes:
    torch.manual_seed(recipe.loop.seed)
    text = CaptionEncoder(VOCABULARY, recipe.transformer.text_width)
    return TextToCodes(text, InfinityTransformer(recipe.transformer))


def load_average(module: nn.Module, folder: Path) -> nn.Module:
    """The averaged weights of a training run."""
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["average"])
    return module.eval()


def train_tokenizer(rank: int, world: int, recipe: Recipe, folder: Path, device: str, report: Report) -> None:
    pool = ScenePool(folder / "pool")
    seed = recipe.tokenizer_loop.seed
    module = new_tokenizer(recipe).to(device)
    task = TokenizerTask(
        module,
        recipe.schedule.grids,
        lambda step, rank: pool.batch_of_images(recipe.tokenizer_batch, seed, step, rank),
        device,
    )
    loop = Loop(task, recipe.tokenizer_loop, folder / "tokenizer", rank, world)
    loop.run(lambda progress: report("tokenizer", progress))


def train_transformer(rank: int, world: int, recipe: Recipe, folder: Path, device: str, report: Report) -> None:
    pool = ScenePool(folder / "pool")
    tokenizer = new_tokenizer(recipe)
    latents = encode_pool(pool, tokenizer, folder / "latents.npy", device)
    module = new_transformer(recipe).to(device)
    task = InfinityTask(module, recipe.schedule, latents, pool.captions, recipe.correction, device)
    loop = Loop(task, recipe.loop, folder / "transformer", rank, world)
    loop.run(lambda progress: report("transformer", progress))


def finished(folder: Path, steps: int) -> bool:
    path = folder / "state.pt"
    return path.exists() and torch.load(path, map_location="cpu", weights_only=True)["step"] >= steps


def train(recipe: Recipe, folder: Path, device: str = "cpu", workers: int | None = None, report: Report = silent) -> bool:
    """True when all parts are done, False when stopped before; a second call goes on."""
    count = recipe.workers if workers is None else workers
    pool = build_pool(folder / "pool", recipe.pool, recipe.pool_seed, recipe.image_size)
    if not finished(folder / "tokenizer", recipe.tokenizer_loop.steps):
        launch(count, train_tokenizer, recipe, folder, device, report)
        if not finished(folder / "tokenizer", recipe.tokenizer_loop.steps):
            return False
    if not (folder / "latents.npy").exists():
        tokenizer = load_average(new_tokenizer(recipe), folder / "tokenizer").to(device)
        assert isinstance(tokenizer, BSQTokenizer)
        encode_pool(pool, tokenizer, folder / "latents.npy", device)
    launch(count, train_transformer, recipe, folder, device, report)
    return finished(folder / "transformer", recipe.loop.steps)

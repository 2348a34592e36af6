"""What is trained and how: one recipe a shipped mini."""

from dataclasses import replace
from typing import Any, TypeVar

from varlab.errors import unknown
from varlab.models.guidance import Settings
from varlab.models.hart import HartConfig
from varlab.models.hart_settings import HartSettings
from varlab.models.infinity import InfinityConfig
from varlab.models.tokenizers.bsq import BSQConfig
from varlab.models.tokenizers.hybrid import HybridConfig
from varlab.models.tokenizers.vqvae import VQConfig
from varlab.models.var import VARConfig
from varlab.scenes import TEXTURED
from varlab.schedules import square
from varlab.training.hart import HartRecipe
from varlab.training.infinity import InfinityRecipe
from varlab.training.loop import LoopConfig
from varlab.training.recipe import CorrectionConfig, Recipe
from varlab.training.var import VarRecipe, class_names

R = TypeVar("R", bound=Recipe)

NANO_INFINITY = InfinityRecipe(
    name="nano-infinity",
    image_size=32,
    pool=100_000,
    pool_seed=1,
    schedule=square((1, 2, 3, 4, 6, 8), "nano-32px"),
    tokenizer=BSQConfig(bits=16, stride=4, channels=32, multipliers=(1, 2, 2), blocks=1, norm_groups=8),
    transformer=InfinityConfig(depth=8, width=176, heads=4, bits=16, chunks=4, text_width=128, text_length=32),
    tokenizer_batch=16,
    tokenizer_flip=0.08,
    tokenizer_loop=LoopConfig(steps=4000, learning_rate=1.5e-3, warmup=100, decay=0.6, seed=1),
    correction=CorrectionConfig(batch=32, flip=0.15, swap=0.1, drop=0.1, seed=2),
    loop=LoopConfig(steps=4000, learning_rate=2e-3, warmup=200, decay=0.6, seed=2),
    settings=Settings(cfg=3.0, tau=0.7),
)

MINI_INFINITY = InfinityRecipe(
    name="mini-infinity",
    image_size=64,
    pool=60_000,
    pool_seed=1,
    schedule=square((1, 2, 3, 4, 5, 6, 8, 10, 13, 16), "mini-64px"),
    tokenizer=NANO_INFINITY.tokenizer,
    transformer=InfinityConfig(depth=12, width=192, heads=4, bits=16, chunks=4, text_width=128, text_length=32),
    tokenizer_batch=16,
    tokenizer_flip=0.08,
    tokenizer_loop=LoopConfig(steps=1000, learning_rate=8e-4, warmup=50, decay=0.8, seed=1),
    correction=CorrectionConfig(
        batch=16, flip=0.15, swap=0.1, drop=0.1, seed=2, largest=24, whole_from=2646, shorten=0.5
    ),
    loop=LoopConfig(steps=2800, learning_rate=2e-3, warmup=200, decay=0.6, seed=2),
    settings=Settings(cfg=3.0, tau=0.7),
    tokenizer_from="nano-infinity",
)

MINI_HART = HartRecipe(
    name="mini-hart",
    image_size=64,
    pool=100_000,
    pool_seed=1,
    schedule=MINI_INFINITY.schedule,
    tokenizer=HybridConfig(1024, 8, channels=32, multipliers=(1, 2, 2), blocks=1, norm_groups=8),
    transformer=HartConfig(
        depth=10,
        width=192,
        heads=3,
        vocabulary=1024,
        latents=8,
        text_length=16,
        text_width=128,
        stages=10,
        diffusion_width=128,
        diffusion_depth=3,
    ),
    tokenizer_batch=16,
    tokenizer_swap=0.08,
    tokenizer_loop=LoopConfig(steps=1800, learning_rate=1e-3, warmup=50, decay=0.7, average=0.995, seed=1),
    correction=CorrectionConfig(batch=64, swap=0.1, drop=0.1, seed=2, largest=12, whole_from=2700, shorten=0.5),
    loop=LoopConfig(steps=2700, learning_rate=2.5e-3, warmup=150, decay=0.65, seed=2),
    settings=HartSettings(cfg=4.5, tau=0.5, top_k=0),
    workers=1,
    tokenizer_from="mini-infinity",
)


def textured(flat: R, tokenizer_steps: int, pool: int, **own: Any) -> R:
    """Of scenes of version 2: tokenizer and transformer of the shipped flat mini are trained on."""
    loop = LoopConfig(steps=tokenizer_steps, learning_rate=6e-4, warmup=50, decay=0.8, average=0.995, seed=1)
    return replace(
        flat, name=f"{flat.name}-textured", scene_version=TEXTURED, fine_tunes=flat.name, tokenizer_from=None,
        tokenizer_loop=loop, pool=pool, workers=1, **own,
    )  # fmt: skip


MINI_INFINITY_TEXTURED = textured(
    MINI_INFINITY,
    tokenizer_steps=800,
    pool=20_000,
    correction=replace(MINI_INFINITY.correction, whole_from=870),
    loop=LoopConfig(steps=900, learning_rate=1e-3, warmup=100, decay=0.7, seed=2),
)

MINI_HART_TEXTURED = textured(
    MINI_HART,
    tokenizer_steps=900,
    pool=20_000,
    correction=replace(MINI_HART.correction, whole_from=1300),
    loop=LoopConfig(steps=1300, learning_rate=1.6e-3, warmup=60, decay=0.7, seed=2),
)

MINI_VAR = VarRecipe(
    name="mini-var",
    image_size=40,
    pool=40_000,
    pool_seed=1,
    schedule=square(tuple(range(1, 11)), "mini-40px"),
    tokenizer=VQConfig(codes=512, width=16, channels=32, multipliers=(1, 2, 2), blocks=1, norm_groups=8),
    transformer=VARConfig(
        depth=12,
        width=128,
        heads=4,
        classes=len(class_names()),
        codes=512,
        code_width=16,
        sides=tuple(range(1, 11)),
        shared_modulation=True,
    ),
    tokenizer_batch=16,
    tokenizer_swap=0.08,
    tokenizer_loop=LoopConfig(steps=1200, learning_rate=1.5e-3, warmup=50, decay=0.7, average=0.995, seed=1),
    correction=CorrectionConfig(batch=32, swap=0.1, drop=0.1, seed=2, largest=16, whole_from=1050),
    loop=LoopConfig(steps=1100, learning_rate=2e-3, warmup=100, decay=0.7, average=0.995, seed=2),
    settings=Settings(cfg=1.5),
    workers=1,
    classes=class_names(),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (NANO_INFINITY, MINI_INFINITY, MINI_HART, MINI_VAR, MINI_INFINITY_TEXTURED, MINI_HART_TEXTURED)
}


def recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("training recipe", name, RECIPES)
    return RECIPES[name]

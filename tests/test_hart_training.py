"""Training of HART minis: teacher forcing against the engine, self-correction, the diffusion loss, a tiny whole run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import HART_TEXT, hart_features, tiny_hart
from varlab import runs
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.models.diffusion import RESIDUAL_SCALE, ResidualDiffusion, diffusion_table
from varlab.models.hart import HartConfig, HartText
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings
from varlab.models.layers import block_causal_attend
from varlab.models.rotary import grid_rotary
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.hybrid import HybridConfig
from varlab.schedules import square
from varlab.training.diffusion import residual_loss
from varlab.training.export import export
from varlab.training.hart import HartTask, batch_of
from varlab.training.hart_tokenizer import HybridTask, quantised, revival
from varlab.training.loop import LoopConfig, optimizers
from varlab.training.pipeline import train
from varlab.training.recipe import Material
from varlab.training.recipes import MINI_HART
from varlab.weights import zoo

LOOP = LoopConfig(steps=4, learning_rate=1e-3, warmup=2, checkpoint_seconds=0, log_every=1, seed=3)
TINY = replace(
    MINI_HART,
    name="tiny-hart",
    image_size=16,
    pool=24,
    schedule=square((1, 2, 4), "tiny"),
    tokenizer=HybridConfig(32, 4, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4),
    transformer=HartConfig(
        2, 64, 2, 32, 4, text_length=16, text_width=64, stages=3, diffusion_width=16, diffusion_depth=1
    ),
    tokenizer_batch=4,
    tokenizer_loop=LOOP,
    correction=replace(MINI_HART.correction, batch=4, largest=6, whole_from=3),
    loop=LOOP,
    workers=1,
    tokenizer_from=None,
)  # fmt: skip


class Logits(Probe):
    def __init__(self) -> None:
        self.cond: list[torch.Tensor] = []
        self.uncond: list[torch.Tensor] = []

    def on_logits(self, stage: Stage, cond: torch.Tensor, uncond: torch.Tensor | None, *_: torch.Tensor | None) -> None:
        self.cond.append(cond[:, :, 0])
        if uncond is not None:
            self.uncond.append(uncond[:, :, 0])


def teacher(model: Hart, text: HartText, labels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Logits by stage of the training forward along these labels [B, n_k]."""
    grids, transformer = model.schedule.grids, model.transformer
    canvas, inputs = model.new_canvas(len(text.mask)), []
    for k, part in enumerate(labels[:-1]):
        canvas = model.accumulate(k, canvas, model.code_map(k, model.codes(k, part[..., None])))
        inputs.append(area(canvas, grids[k + 1]).flatten(2).mT)
    width, offset = transformer.config.head_width, text.positions[:, -1]
    rotary = [grid_rotary(grid, model.schedule.final, offset, width) for grid in grids[1:]]
    attend = block_causal_attend((HART_TEXT, *model.schedule.lengths[1:]), transformer.config.attention_scale)
    hidden, head = transformer(text, inputs, rotary, attend)
    return list(transformer.logits(hidden, head).split(model.schedule.lengths, 1))


@pytest.mark.parametrize(
    "variant", [{}, {"modulation": "block", "unit_attention": True, "learned_levels": True}], ids=["released", "other"]
)
def test_the_training_forward_gives_the_engines_logits(variant: dict) -> None:
    model, text = tiny_hart(**variant), hart_features(3, 5)
    generator = torch.Generator().manual_seed(0)
    labels = [torch.randint(48, (2, n), generator=generator) for n in model.schedule.lengths]
    probe, settings = Logits(), HartSettings(cfg=2.0, smooth=False, residual=False)
    forced = {k: part[..., None] for k, part in enumerate(labels)}
    Run(model, settings, SeededNoise(0), [probe], forced).generate(text, (0, 1))
    for ours, engine in zip(teacher(model, text, labels), probe.cond, strict=True):
        torch.testing.assert_close(ours, engine, atol=2e-4, rtol=1e-4)
    null = text.dropped(torch.tensor([True, True]))  # the unconditional rows, which stage 1 does not read out
    for ours, engine in zip(teacher(model, null, labels)[1:], probe.uncond, strict=True):
        torch.testing.assert_close(ours, engine, atol=2e-4, rtol=1e-4)


def test_the_null_text_takes_the_chosen_rows_alone() -> None:
    text = hart_features(3, 5)
    half = text.dropped(torch.tensor([True, False]))
    assert not half.features[0].any() and torch.equal(half.features[1], text.features[1])
    assert half.positions[0].tolist() == [0] * HART_TEXT and torch.equal(half.mask[1], text.mask[1])


def test_without_swaps_codes_and_residual_are_the_latent() -> None:
    """What the last stage leaves over completes the canvas to the latent; with swaps the later stages mend it."""
    model, generator = tiny_hart(), torch.Generator().manual_seed(0)
    latent = torch.randn(3, 4, 5, 5, generator=generator)
    grids, none = model.schedule.grids, torch.zeros(3, 4)
    batch = batch_of(model.tokenizer, latent, model.schedule, none, generator)
    *_, last = model.tokenizer.steps(latent, grids, last_phi=False)
    whole = last.canvas + batch.residual.mT.unflatten(-1, (5, 5))
    torch.testing.assert_close(whole, latent, atol=1e-5, rtol=1e-5)
    assert [tuple(part.shape) for part in batch.inputs] == [(3, 4, 4), (3, 9, 4), (3, 25, 4)]
    swaps = none.clone()
    swaps[0, 1] = 1.0
    mended = batch_of(model.tokenizer, latent, model.schedule, swaps, generator)
    assert torch.equal(mended.labels[1], batch.labels[1])  # what was right, not what was shown
    assert not torch.equal(mended.labels[2][0], batch.labels[2][0])
    assert torch.equal(mended.labels[2][1:], batch.labels[2][1:])
    stages, _ = quantised(model.tokenizer, latent, grids, swaps, generator)
    assert torch.equal(stages[1].labels[0], batch.labels[1][1 - 2])  # the image before it in the batch


def test_unused_codes_are_pulled_to_what_is_there() -> None:
    model = tiny_hart()
    tokenizer = model.tokenizer.requires_grad_(True)
    with torch.no_grad():
        tokenizer.quantize.embedding.weight[7] = 50.0  # so far out that nothing is nearest to it
    latent = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    stages, _ = quantised(tokenizer, latent, model.schedule.grids, torch.zeros(3, 4), torch.Generator())
    pull, used = revival(tokenizer, stages, model.schedule.grids)
    pull.backward()
    gradient = tokenizer.quantize.embedding.weight.grad
    assert gradient is not None and (gradient[7] > 0).all() and used < 1
    shown = torch.cat([stage.labels.flatten() for stage in stages]).unique()
    assert not gradient[shown].any()


# The diffusion head


def test_a_head_that_knows_the_noise_loses_nothing() -> None:
    """Of an oracle both terms vanish; a wrong guess of the noise costs its square."""
    generator = torch.Generator().manual_seed(0)
    residual = 0.4 * torch.randn(50, 3, generator=generator)
    kept = torch.as_tensor(diffusion_table(1000).alpha_bar, dtype=torch.float32)

    class Oracle(torch.nn.Module):
        latents = 3

        def __init__(self, error: float) -> None:
            super().__init__()
            self.error, self.net = error, self
            self.cond_embed = torch.nn.Identity()

        def time_embed(self, times: torch.Tensor) -> torch.Tensor:
            return kept[times][:, None]

        def forward(self, x: torch.Tensor, share: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
            noise = (x - share.sqrt() * clean) / (1 - share).sqrt()
            return torch.cat([noise + self.error, torch.full_like(noise, -1.0)], -1)

    clean = (residual / RESIDUAL_SCALE).clamp(-1, 1)
    losses = [float(residual_loss(Oracle(e), clean, residual, 4, generator)) for e in (0.0, 0.5)]  # type: ignore[arg-type]
    assert losses[0] < 1e-3 and losses[1] > 0.25


def test_the_head_learns_a_residual_that_its_condition_tells() -> None:
    torch.manual_seed(0)
    head, generator = ResidualDiffusion(2, 8, 32, 2), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    for _ in range(300):
        side = torch.randint(2, (64, 1), generator=generator).float() * 2 - 1
        loss = residual_loss(head, side.expand(-1, 8), 0.3 * side.expand(-1, 2), 2, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        normal = lambda _: torch.randn(1, 200, 2, generator=generator)  # noqa: E731
        drawn = head.sample(torch.ones(1, 200, 8), 1, 0.0, head.times(8), normal)
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.05) and drawn.std() < 0.15


# A whole run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hart")
    assert train(TINY, folder)
    return folder


def test_a_trained_mini_loads_and_draws(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path))
    export(TINY, finished, tmp_path / "tiny-hart")
    model = zoo.load("tiny-hart")
    assert isinstance(model, Hart) and model.settings == TINY.settings and model.settings.residual
    out = runs.sample(model, ["a red star", "a blue ring above a star"], accelerators="truncate:last=1")
    assert len(out.images) == 2 and out.ledger.engaged
    log = (finished / "transformer" / "log.csv").read_text()
    assert "diffusion" in log and "last_stage" in log


def test_batches_depend_on_seed_step_and_rank_alone(finished: Path) -> None:
    from varlab.training.pipeline import encoded, trained_tokenizer
    from varlab.training.pool import ScenePool

    pool, tokenizer = ScenePool(finished / "pool"), trained_tokenizer(TINY, finished).requires_grad_(False)
    latents = encoded(TINY, pool, finished, "cpu")
    assert latents.shape == (24, 4, 4, 4) and np.isfinite(latents).all()
    task = HartTask(TINY.new_transformer(), Material(tokenizer, TINY.schedule, latents, pool.captions, TINY.correction))
    first, again, other = (task.loss(step, rank)[0].item() for step, rank in ((0, 0), (0, 0), (0, 1)))
    assert first == again != other
    tokens = HybridTask(tokenizer, TINY.schedule.grids, lambda *_: torch.from_numpy(np.array(pool.images[:4])), 0.1, 1)
    assert tokens.loss(1, 0)[0].item() == tokens.loss(1, 0)[0].item() != tokens.loss(8, 0)[0].item()


def test_the_mini_is_small_enough_and_its_blocks_go_to_muon() -> None:
    trained, tokenizer = MINI_HART.new_transformer(), MINI_HART.new_tokenizer()
    parameters = sum(p.numel() for module in (trained, tokenizer) for p in module.parameters())
    assert 2 * parameters <= 20e6
    assert MINI_HART.transformer.depth >= 10 and MINI_HART.tokenizer.vocabulary >= 1024
    adam, muon = optimizers(trained, LOOP)
    inside = [p for group in muon.param_groups for p in group["params"]]
    assert len(inside) == MINI_HART.transformer.depth * 5  # qkv, proj, gate, up, down
    assert sum(len(group["params"]) for group in adam.param_groups) + len(inside) == len(list(trained.parameters()))

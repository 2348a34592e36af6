"""Training of VAR minis: batches that repeat, a codebook that lives, labels that stay true under swapped codes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import varlab as vl
from tests.tiny_var_mini import TINY_VAR, train_tiny_var
from varlab.models.layers import block_causal_attend
from varlab.models.tokenizers.vqvae import VQTokenizer
from varlab.models.var import VARTransformer
from varlab.scenes import score_images
from varlab.training.recipe import Material
from varlab.training.recipes import MINI_VAR
from varlab.training.tokenizer import to_signed
from varlab.training.var import Batches, VarRecipe, class_names, class_scenes, self_correction
from varlab.training.vqvae import REVIVE_EVERY, VQTask, unit_scale
from varlab.weights.embedded import read_facts

GRIDS = TINY_VAR.schedule.grids


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("var")
    train_tiny_var(folder / "run", folder / "data")
    return folder


def tokenizer(seed: int = 1) -> VQTokenizer:
    torch.manual_seed(seed)
    return VQTokenizer(TINY_VAR.tokenizer)


def test_the_shipped_recipe_is_what_was_asked_for() -> None:
    assert len(MINI_VAR.schedule) == 10 and MINI_VAR.transformer.depth >= 12 and len(MINI_VAR.classes) >= 24
    parameters = sum(p.numel() for m in (MINI_VAR.new_tokenizer(), MINI_VAR.new_transformer()) for p in m.parameters())
    assert 2 * parameters <= 12e6


def test_classes_are_what_the_scorer_sees() -> None:
    images, names = class_scenes(24, seed=5, size=40)
    assert set(names) <= set(class_names()) and len(class_names()) == 48
    assert score_images(list(images), names, ["colors"] * 24)["correct"].mean() >= 0.95


def test_a_trained_mini_is_loaded_by_name_and_reads_class_names(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARLAB_DATA", str(place / "data"))
    model = vl.load("tiny-var")
    assert model.weights.startswith("trained") and model.text.names == class_names()
    run = vl.sample(model, ["a red circle", "47"], seed=0)
    assert [image.size for image in run.images] == [(32, 32)] * 2
    facts = read_facts(place / "data" / "tiny-var")
    assert facts.extra["transformer_samples"] == 16 and facts.family == "var"
    again = vl.sample(model, ["0", "a white cross"], seed=0)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(run.images, again.images, strict=True))


def test_codes_without_swaps_are_the_tokenizers_own() -> None:
    module, latent = tokenizer(), torch.randn(3, 4, 8, 8)
    labels, inputs = self_correction(module, latent, GRIDS, torch.zeros(3, 10), torch.Generator())
    steps = [index.flatten(1) for index, _ in module.residual_steps(latent, GRIDS)]
    assert all(torch.equal(a, b) for a, b in zip(labels, steps, strict=True))
    for a, b in zip(inputs, module.inputs(steps, GRIDS), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_swapped_codes_enter_the_inputs_and_later_labels_mend_them() -> None:
    module, latent = tokenizer(), torch.randn(3, 4, 8, 8)
    swaps = torch.zeros(3, 10)
    swaps[0, 2] = 1.0
    true, plain = self_correction(module, latent, GRIDS, torch.zeros(3, 10), torch.Generator())
    labels, inputs = self_correction(module, latent, GRIDS, swaps, torch.Generator())
    assert all(torch.equal(labels[k], true[k]) for k in (0, 1, 2))  # taught what would have been right
    assert torch.equal(inputs[1], plain[1]) and not torch.equal(inputs[2][0], plain[2][0])
    assert not torch.equal(labels[3][0], true[3][0]) and torch.equal(labels[3][1:], true[3][1:])


def test_a_subset_of_tokens_keeps_its_positions() -> None:
    torch.manual_seed(0)
    model = VARTransformer(TINY_VAR.transformer).eval()
    codes = [torch.randn(2, n, 4) for n in model.config.lengths[1:]]
    places = [torch.arange(n) for n in model.config.lengths[1:]]
    attend, labels = block_causal_attend(model.config.lengths), torch.tensor([1, 2])
    assert torch.equal(model(labels, codes, attend), model(labels, codes, attend, places))
    few = [place[-1:] for place in places]
    lengths = (1, *(1 for _ in few))
    cut = [tokens[:, -1:] for tokens in codes]
    with torch.no_grad():
        first = model(labels, cut, block_causal_attend(lengths), few)
        wrong = model(labels, cut, block_causal_attend(lengths), [torch.zeros(1, dtype=torch.long) for _ in few])
    assert torch.allclose(first[:, :1], wrong[:, :1]) and not torch.allclose(first[:, -1], wrong[:, -1])


def test_dead_codes_come_back_as_residuals() -> None:
    module = tokenizer()
    with torch.no_grad():
        module.quantize.embedding.weight[4:] += 1000  # nothing will ever be near these
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    task = VQTask(module, GRIDS, lambda step, rank: images, 0.1, revive_until=1000, seed=0)
    task.loss(1, 0)  # counts uses
    assert module.quantize.embedding.weight[4:].min() > 900
    _, figures = task.loss(REVIVE_EVERY, 0)
    assert module.quantize.embedding.weight.abs().max() < 100
    assert figures["used"] > 4 / 32


def test_the_codebook_learns_by_gradient_and_the_encoder_by_the_decoder() -> None:
    module = tokenizer()
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    loss, _ = VQTask(module, GRIDS, lambda step, rank: images, 0.0, 0, seed=0).loss(1, 0)
    loss.backward()
    for name in ("quantize.embedding.weight", "encoder.conv_in.weight", "decoder.conv_out.weight"):
        gradient = module.get_parameter(name).grad
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0
    assert all(phi.weight.grad is not None for phi in module.quantize.phis())


def test_another_scale_of_the_latents_is_the_same_tokenizer() -> None:
    module, images = tokenizer().eval(), torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    pixels = to_signed(images)
    with torch.no_grad():
        before, _, latent = module.encode(pixels, GRIDS)
        picture = module.decode(latent)
        unit_scale(module, images)
        after, _, scaled = module.encode(pixels, GRIDS)
        assert scaled.std() == pytest.approx(1, abs=0.06) and latent.std() < 0.9
        assert torch.allclose(module.decode(scaled), picture, atol=1e-4)
        assert sum(int((a != b).sum()) for a, b in zip(before, after, strict=True)) <= 2  # ties of rounding


def test_batches_repeat_and_a_continued_run_goes_on(place: Path) -> None:
    from varlab.training.pool import ScenePool

    module, pool = tokenizer(), ScenePool(place / "run" / "pool")
    latents = np.load(place / "run" / "latents.npy", mmap_mode="r")

    def batches(recipe: VarRecipe, seen: int) -> Batches:
        material = Material(module, recipe.schedule, latents, pool.captions, recipe.correction, seen)
        return Batches(material, recipe.classes)

    first, later = (batches(TINY_VAR, seen) for seen in (0, 3))
    (a, generator_a), (b, generator_b) = first.generator(5, 0), later.generator(2, 0)
    assert np.array_equal(a, b)
    assert torch.equal(first.labels(a, generator_a), later.labels(b, generator_b))
    always = batches(replace(TINY_VAR, correction=replace(TINY_VAR.correction, drop=1.0)), 0)
    assert (always.labels(*always.generator(0, 0)) == 48).all()

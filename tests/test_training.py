"""Training on a tiny recipe: resume equals never having stopped, continuation, failures that lose nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from varlab.errors import VarlabError
from varlab.models.infinity import InfinityConfig
from varlab.models.tokenizers.bsq import BSQConfig, quantise
from varlab.schedules import square
from varlab.training import loop as loops
from varlab.training.batches import subset
from varlab.training.export import export
from varlab.training.infinity import InfinityTask, self_correction
from varlab.training.loop import Loop, LoopConfig, optimizers
from varlab.training.pipeline import begin_from, train
from varlab.training.recipe import CorrectionConfig, Recipe
from varlab.training.recipes import NANO_INFINITY, recipe
from varlab.training.tokenizer import straight_through

LOOP = LoopConfig(steps=6, learning_rate=1e-3, warmup=2, checkpoint_seconds=0, log_every=1, seed=3)
TINY = replace(
    NANO_INFINITY,
    name="tiny",
    image_size=16,
    pool=24,
    schedule=square((1, 2, 4), "tiny"),
    tokenizer=BSQConfig(bits=4, stride=4, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4),
    transformer=InfinityConfig(depth=2, width=64, heads=2, bits=4, chunks=2, text_width=128, text_length=32),
    tokenizer_batch=4,
    tokenizer_loop=LOOP,
    correction=CorrectionConfig(batch=4),
    loop=LOOP,
    workers=1,
)


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / part / "state.pt", weights_only=True)["module"]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """As a crash does: the loop ends in the middle, without the orderly last save."""
    update = Loop._update

    def crashing(self: Loop) -> dict[str, float]:
        if self.step == step and "transformer" in str(self.folder):
            raise RuntimeError("power cut")
        return update(self)

    monkeypatch.setattr(Loop, "_update", crashing)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert train(TINY, folder)
    return folder


def test_a_run_that_was_cut_ends_as_one_that_was_not(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(RuntimeError, match="power cut"):
            train(TINY, tmp_path)
    assert train(TINY, tmp_path)
    for part in ("tokenizer", "transformer"):
        whole, cut = weights(finished, part), weights(tmp_path, part)
        assert all(torch.equal(whole[key], cut[key]) for key in whole)
    rows = (tmp_path / "transformer" / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", *map(str, range(1, 7))]


def test_shipped_weights_are_continued(finished: Path, tmp_path: Path) -> None:
    mini = tmp_path / "mini"
    export(TINY, finished, mini)
    longer = TINY.with_sizes(steps=3)
    assert train(longer, tmp_path / "more", init_from=mini)
    export(longer, tmp_path / "more", tmp_path / "again")
    from varlab.models.embedded import load_mini

    (first, _), (second, facts) = load_mini(mini), load_mini(tmp_path / "again")
    assert facts.extra["transformer_steps"] == 9
    assert facts.extra["transformer_samples"] == 36
    a, b = first.tokenizer.state_dict(), second.tokenizer.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    moved = (first.transformer.head.weight - second.transformer.head.weight).abs().max()
    assert 0 < moved < 0.02  # three small steps away, not a fresh start


def test_a_tokenizer_may_start_from_a_shipped_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path))
    export(TINY, finished, tmp_path / "first")
    second = replace(TINY, name="second", tokenizer_from="first")
    from varlab.models.embedded import load_mini
    from varlab.training.pipeline import new_tokenizer

    shipped = load_mini(tmp_path / "first")[0].tokenizer.state_dict()
    assert all(torch.equal(value, shipped[key]) for key, value in new_tokenizer(second).state_dict().items())
    with pytest.raises(VarlabError, match="another one"):
        new_tokenizer(replace(second, tokenizer=replace(TINY.tokenizer, channels=16)))


def test_another_architecture_is_refused(finished: Path, tmp_path: Path) -> None:
    mini = tmp_path / "mini"
    export(TINY, finished, mini)
    with pytest.raises(VarlabError, match="another architecture"):
        begin_from(NANO_INFINITY, tmp_path / "run", mini)


def test_a_run_of_other_settings_is_refused(finished: Path) -> None:
    with pytest.raises(VarlabError, match="other settings"):
        train(TINY.with_sizes(steps=7), finished)
    with pytest.raises(VarlabError, match="another scene pool"):
        train(TINY.with_sizes(pool=25), finished)


class Exploding:
    """A task whose loss is not finite at step 3."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(2, 1)

    def loss(self, step: int, rank: int) -> tuple[torch.Tensor, dict[str, float]]:
        value = self.module(torch.ones(1, 2)).square().mean()
        return (value * float("nan") if step == 3 else value), {}


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(VarlabError, match="not finite at step 3"):
        Loop(Exploding(), LOOP, tmp_path).run()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 3
    assert all(value.isfinite().all() for value in state["module"].values())


def test_a_full_disk_keeps_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(Exploding(), LOOP, tmp_path)
    loop.save()
    before = (tmp_path / "state.pt").read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loops.torch, "save", full)
    with pytest.raises(VarlabError, match="former checkpoint is kept"):
        loop.save()
    assert (tmp_path / "state.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.slow
def test_two_workers_average_their_gradients(finished: Path, tmp_path: Path) -> None:
    """Two workers see two batches: another result than one, and the same on a second run."""
    assert train(TINY, tmp_path / "a", workers=2) and train(TINY, tmp_path / "b", workers=2)
    a, b, one = (weights(folder, "tokenizer") for folder in (tmp_path / "a", tmp_path / "b", finished))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], one[key]) for key in a)


def test_without_flips_the_inputs_are_the_quantised_canvas() -> None:
    latent = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    grids = [(1, 1), (2, 2), (4, 4), (8, 8)]
    labels, inputs = self_correction(latent, grids, torch.zeros(2, 4), torch.zeros(2, 4), torch.Generator())
    bits, canvas = quantise(latent, grids)
    assert all(torch.equal(label > 0.5, bit.flatten(1, 2)) for label, bit in zip(labels, bits, strict=True))
    through, plain = straight_through(latent, grids)
    assert torch.allclose(plain, canvas) and torch.allclose(through, canvas, atol=1e-6)
    assert [tuple(x.shape) for x in inputs] == [(2, 4, 4), (2, 16, 4), (2, 64, 4)]


def test_flipped_bits_change_later_labels_not_their_own() -> None:
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    grids = [(2, 2), (8, 8)]
    none = torch.zeros(1, 2)
    plain, clean = self_correction(latent, grids, none, none, torch.Generator())
    flipped, inputs = self_correction(latent, grids, torch.tensor([[1.0, 0.0]]), none, torch.Generator())
    assert torch.equal(plain[0], flipped[0]) and not torch.equal(plain[1], flipped[1])
    assert torch.allclose(inputs[0], -clean[0])  # every bit flipped: the canvas changes sign


def test_a_swapped_token_is_the_other_images_and_the_labels_mend_it() -> None:
    latent = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    grids, none = [(2, 2), (8, 8)], torch.zeros(2, 2)
    plain, clean = self_correction(latent, grids, none, none, torch.Generator())
    swapped, inputs = self_correction(latent, grids, none, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.Generator())
    assert torch.equal(plain[0], swapped[0]) and torch.equal(plain[1][1], swapped[1][1])
    assert torch.equal(inputs[0][0], clean[0][1]) and torch.equal(inputs[0][1], clean[0][1])
    assert not torch.equal(plain[1][0], swapped[1][0])


def test_unknown_recipe_lists_near_names() -> None:
    with pytest.raises(VarlabError, match="nano-infinity"):
        recipe("nano-infinty")


def test_the_recipe_fits_its_promise() -> None:
    assert isinstance(NANO_INFINITY, Recipe)
    assert NANO_INFINITY.schedule.tokens == 130 and NANO_INFINITY.transformer.depth == 8


def test_flipped_codes_reach_the_decoder_and_the_encoder_learns_from_them() -> None:
    latent = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grids = [(2, 2), (4, 4)]
    through, canvas = straight_through(latent, grids, lambda bits, k: ~bits)
    assert not torch.equal(canvas, quantise(latent.detach(), grids)[1])
    assert torch.allclose(through, canvas, atol=1e-6)
    through.sum().backward()
    assert torch.equal(latent.grad, torch.ones_like(latent))


def task(config: CorrectionConfig, seen: int = 0) -> InfinityTask:
    latents = np.random.default_rng(0).standard_normal((24, 4, 4, 4)).astype(np.float16)
    return InfinityTask(TINY.new_transformer(), TINY.schedule, latents, ["a red star"] * 24, config, seen)


def test_a_subset_of_the_largest_stage_estimates_the_whole_loss() -> None:
    whole = task(CorrectionConfig(batch=24, drop=0))
    part = task(CorrectionConfig(batch=24, drop=0, largest=6, whole_from=2))
    grid, config = TINY.schedule.lengths, part.config
    lengths = [len(index) if index is not None else None for index in subset(grid, config, 0, torch.Generator())]
    assert lengths == [None, None, 6] and subset(grid, config, 2, torch.Generator()) == [None] * 3
    with torch.no_grad():
        means = [np.mean([float(t.loss(step % 2, step)[0]) for step in range(40)]) for t in (whole, part)]
        at_once = [float(t.loss(2, 0)[0]) for t in (whole, part)]
    assert at_once[0] == at_once[1]
    assert means[0] == pytest.approx(means[1], rel=0.02) and means[0] != means[1]


def test_a_continued_run_goes_on_to_other_batches() -> None:
    config = CorrectionConfig(batch=4)
    with torch.no_grad():
        first, later, again = (float(task(config, seen).loss(step, 0)[0]) for seen, step in ((0, 7), (5, 2), (5, 7)))
    assert first == later != again


def test_every_trained_parameter_has_one_optimizer() -> None:
    module = TINY.new_transformer()
    adam, muon = optimizers(module, LOOP)
    held = [p for o in (adam, muon) for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, module.parameters()))
    assert isinstance(muon, torch.optim.Muon)
    assert {id(b.ffn.fc1.weight) for b in module.transformer.blocks} <= {id(p) for p in muon.param_groups[0]["params"]}

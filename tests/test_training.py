"""Training on a tiny recipe: resume equals never having stopped, continuation, what a batch holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from varlab.errors import VarlabError
from varlab.models.captions import CaptionEncoder
from varlab.models.infinity import InfinityConfig
from varlab.models.tokenizers.bsq import BSQConfig, quantise
from varlab.scenes import VOCABULARY, shortened
from varlab.schedules import square
from varlab.training.batches import Captions, subset
from varlab.training.export import export
from varlab.training.infinity import InfinityTask, self_correction
from varlab.training.loop import Loop, LoopConfig, optimizers
from varlab.training.pipeline import train
from varlab.training.pool import ScenePool
from varlab.training.recipe import CorrectionConfig, Material, Recipe
from varlab.training.recipes import MINI_VAR, NANO_INFINITY
from varlab.training.records import note, parts_of, settings_of
from varlab.training.tokenizer import straight_through
from varlab.weights.embedded import load_mini

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
    correction=CorrectionConfig(batch=4, largest=6, whole_from=5, shorten=0.5),
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
        whole, cut = (torch.load(f / part / "state.pt", weights_only=True) for f in (finished, tmp_path))
        for held in ("module", "average"):
            assert all(torch.equal(whole[held][key], cut[held][key]) for key in whole[held])
        assert str(whole["optimizers"]) == str(cut["optimizers"]) and whole["step"] == cut["step"] == 6
    rows = (tmp_path / "transformer" / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", *map(str, range(1, 7))]


def test_shipped_weights_are_continued_again_and_again(finished: Path, tmp_path: Path) -> None:
    """A shipped mini, then one that continues it, each shipped over the last: counts, curves and parts add up."""
    shipped, longer = tmp_path / "mini", TINY.with_sizes(steps=3)
    export(TINY, finished, shipped)
    first = load_mini(shipped)[0]
    for run in ("second", "third"):
        assert train(longer, tmp_path / run, init_from=shipped)
        state = torch.load(tmp_path / run / "transformer" / "state.pt", weights_only=True)
        assert state["step"] == 3  # of a fresh optimiser, whose rate warms up anew
        assert state["optimizers"][0]["state"][0]["step"] == 3
        rates = pd.read_csv(tmp_path / run / "transformer" / "log.csv").rate
        assert rates[0] == pytest.approx(LOOP.rate(1))
        export(longer, tmp_path / run, shipped)
        export(longer, tmp_path / run, shipped)  # twice: nothing is counted twice
        assert train(longer, tmp_path / run)  # from its own copy, whatever the folder holds now
    second, facts = load_mini(shipped)
    assert facts.extra["transformer_steps"] == 12 and facts.extra["transformer_samples"] == 48
    assert facts.extra["tokenizer_steps"] == 6
    assert [(part["first"], part["last"]) for part in facts.extra["parts"]] == [(1, 6), (7, 9), (10, 12)]
    curve = pd.read_csv(shipped / "training" / "transformer.csv")
    assert curve.step.tolist() == list(range(1, 13))
    a, b = first.tokenizer.state_dict(), second.tokenizer.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    a, b = first.transformer.state_dict(), second.transformer.state_dict()
    moved = (a["head.weight"] - b["head.weight"]).abs().max()
    assert 0 < moved < 0.02  # six small steps away, not a fresh start


def test_a_run_resumed_with_other_settings_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(RuntimeError, match="power cut"):
            train(TINY, tmp_path)
    changed = replace(TINY, correction=replace(TINY.correction, shorten=0.0))
    assert train(changed, tmp_path)
    parts = parts_of(tmp_path / "transformer", 10, 6)
    assert [(p["first"], p["last"], p["shorten"], p["whole_updates"]) for p in parts] == [
        (11, 14, 0.5, 0),
        (15, 16, 0.0, 1),
    ]


def test_a_pool_of_weighted_categories_says_so(tmp_path: Path) -> None:
    """No scene of a category without weight; another weighting's pool is refused; each part of a run knows its own."""
    counting = replace(TINY, categories={"counting": 1.0}, loop=replace(LOOP, steps=1), tokenizer_loop=LOOP)
    assert train(counting, tmp_path)
    assert all(caption.split()[0] in {"two", "three", "four"} for caption in ScenePool(tmp_path / "pool").captions)
    assert [part["categories"] for part in parts_of(tmp_path / "transformer", 0, 1)] == [{"counting": 1.0}]
    with pytest.raises(VarlabError, match="another scene pool"):
        train(replace(counting, categories=None), tmp_path)
    with pytest.raises(VarlabError, match="reads classes"):
        replace(MINI_VAR, categories={"counting": 1.0})


def test_a_caption_is_shortened_and_stays_true() -> None:
    text = "an orange dotted star above a striped cyan ring on a light background"
    assert shortened(text, True) == "an orange star above a cyan ring"
    assert shortened(text, False) == "a star above a ring"
    words = CaptionEncoder(VOCABULARY, 32)
    drawn = Captions(words, [text] * 400, 0.5).drawn(np.arange(400), torch.Generator().manual_seed(0))[1]
    assert {n: round(drawn.count(n) / 400, 1) for n in set(drawn)} == {13: 0.5, 7: 0.2, 5: 0.3}
    generator = torch.Generator().manual_seed(0)
    assert set(Captions(words, [text], 0.0).drawn(np.zeros(9, int), generator)[1]) == {13}
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())  # no number is drawn


def test_a_tokenizer_may_start_from_a_shipped_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path))
    export(TINY, finished, tmp_path / "first")
    second = replace(TINY, name="second", tokenizer_from="first")
    from varlab.training.pipeline import new_tokenizer

    shipped = load_mini(tmp_path / "first")[0].tokenizer.state_dict()
    pool = ScenePool(finished / "pool")
    assert all(
        torch.equal(value, shipped[key]) for key, value in new_tokenizer(second, pool, tmp_path).state_dict().items()
    )
    with pytest.raises(VarlabError, match="another one"):
        new_tokenizer(replace(second, tokenizer=replace(TINY.tokenizer, channels=16)), pool, tmp_path)


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
    assert latent.grad is not None and torch.equal(latent.grad, torch.ones_like(latent))


def task(config: CorrectionConfig, seen: int = 0) -> InfinityTask:
    latents = np.random.default_rng(0).standard_normal((24, 4, 4, 4)).astype(np.float16)
    return InfinityTask(
        TINY.new_transformer(), Material(None, TINY.schedule, latents, ["a red star"] * 24, config, seen)
    )


def test_a_subset_of_the_largest_stage_estimates_the_whole_loss_of_fresh_weights() -> None:
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


def test_every_so_many_updates_are_on_whole_stages_and_counted(tmp_path: Path) -> None:
    often = replace(TINY, correction=replace(TINY.correction, whole_every=3))
    generator = torch.Generator()
    whole = [subset(TINY.schedule.lengths, often.correction, step, generator)[-1] is None for step in range(6)]
    assert whole == [False, False, True, False, False, True]
    note(tmp_path, 0, settings_of(often, 1, "cpu", False))
    assert parts_of(tmp_path, 0, 5)[0]["whole_updates"] == 1


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
    inner = {id(p) for name, p in module.named_parameters() if name.endswith("ffn.fc1.weight")}
    assert inner and inner <= {id(p) for p in muon.param_groups[0]["params"]}

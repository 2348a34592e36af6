"""HART: official keys, the sampler's small parts, the engine, the ledger, what is refused."""

import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import HART_TEXT, hart_features, tiny_hart
from tests.minis import refused
from varlab.accelerators import build
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.loop import Run
from varlab.engine.plan import Selection, StagePlan
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.models.diffusion import diffusion_table, spaced
from varlab.models.hart import HartConfig, HartText, HartTransformer
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings, Savings
from varlab.models.labels import draw_label, only_likeliest, pass_sizes, soften
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer, phi_of
from varlab.weights.fitting import load_into

HERE = Path(__file__).parent


# Keys


def test_names_and_shapes_are_those_of_the_official_files() -> None:
    lists: dict[str, dict[str, str]] = {}
    for line in lzma.decompress((HERE / "keys" / "hart.tsv.xz").read_bytes()).decode().splitlines()[1:]:
        file, key, shape, _ = line.split("\t")
        lists.setdefault(file, {})[key] = shape
    with torch.device("meta"):
        modules = {"hart_0p7b": HartTransformer(HartConfig()), "hart_vae": HybridTokenizer(HybridConfig())}
    unused = {"lvl_1L", "attn_bias_for_masking", "vae.quantize.ema_vocab_hit_SV"}
    for file, module in modules.items():
        prefix = "vae." if file == "hart_vae" else ""
        ours = {prefix + name: "x".join(map(str, t.shape)) for name, t in module.state_dict().items()}
        assert ours == {key: shape for key, shape in lists[file].items() if key not in unused}
    assert sum(p.numel() for p in modules["hart_0p7b"].parameters()) == 732_399_168


def test_the_mask_of_the_official_file_is_left_aside() -> None:
    model, other = tiny_hart(), tiny_hart(seed=3)
    stored = other.transformer.state_dict() | {"attn_bias_for_masking": torch.zeros(1), "lvl_1L": torch.zeros(1)}
    load_into(model.transformer, stored, "file")
    assert torch.equal(model.transformer.head.weight, other.transformer.head.weight)


# Parts of the sampler


def test_passes_grow_and_cover_the_grid() -> None:
    assert pass_sizes(144, 3) == [20, 52, 72]
    assert pass_sizes(9, 1) == [9]
    for tokens in (1, 2, 4, 9, 64):
        for passes in (1, 2, 5, 20):
            sizes = pass_sizes(tokens, passes)
            assert sum(sizes) == tokens and min(sizes) > 0


def test_labels_are_drawn_with_their_probabilities_and_never_where_masked() -> None:
    logits = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3])).expand(20000, -1)
    kept = only_likeliest(logits, 2, 0.0)
    uniform = torch.rand(20000, 1, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(draw_label(logits, uniform), minlength=4) / 20000
    assert torch.allclose(share, torch.tensor([0.1, 0.4, 0.2, 0.3]), atol=0.02)
    assert set(draw_label(kept, uniform).tolist()) == {1, 3}
    assert draw_label(kept[:2], torch.tensor([[0.0], [1 - 2**-24]])).tolist() == [1, 3]
    assert only_likeliest(logits[:1], 0, 0.75).isinf().tolist() == [[True, False, False, False]]


def test_a_mixture_sharpens_with_the_stage() -> None:
    logits, noise = torch.tensor([[1.0, 2.0, 0.0]]), torch.ones(1, 3)
    early, late = soften(logits, 0.0, noise), soften(logits, 1.0, noise)
    assert late.max() > early.max() > 0.9 and early.sum() == pytest.approx(1)


def test_a_number_drawn_as_zero_spoils_no_mixture() -> None:
    """Of fp32 exponential numbers one in 2^23 is 0: at full size several an image, for kept and for masked labels."""
    logits, noise = torch.tensor([[1.0, 2.0, -torch.inf]]), torch.ones(1, 3)
    plain = soften(logits, 0.5, noise)
    for label in range(3):
        zero = noise.clone()
        zero[0, label] = 0.0
        mixture = soften(logits, 0.5, zero)
        assert mixture.isfinite().all() and mixture[0, 2] == 0
        assert torch.equal(mixture, plain) if label == 2 else mixture[0, label] > 0.99


def test_diffusion_steps_and_constants() -> None:
    assert spaced(8).tolist() == [0, 143, 285, 428, 571, 714, 856, 999]
    assert spaced(1).tolist() == [0]
    table = diffusion_table(8)
    assert table.from_clean[0] == 1 and table.from_noisy[0] == 0
    assert np.sqrt(1 / table.alpha_bar[-1]) == pytest.approx(2.03e4, rel=0.01)


def test_phi_convolutions_of_the_released_schedule() -> None:
    assert [phi_of(k, 14, 4) for k in range(14)] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]


# The engine


class Shapes(Probe):
    """What hooks are shown at each stage."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.blocks: set[tuple[int, int]] = set()
        self.branches: set[int] = set()

    def on_stage(self, stage: Stage, x: torch.Tensor) -> None:
        self.tokens.append(x.shape[1])

    def on_block(self, site: Site, x_in: torch.Tensor, x_out: torch.Tensor) -> None:
        self.blocks.add((x_in.shape[1], x_out.shape[1]))

    def on_sublayer(self, site: Site, x: torch.Tensor, y: torch.Tensor) -> None:
        self.branches.add(y.shape[1])


def run(model: Hart, *methods: Any, probes: tuple[Probe, ...] = (), **changes: Any) -> Any:
    settings = replace(model.settings, **changes)
    made = build(tuple(method for method in methods if isinstance(method, str)))
    made += [method for method in methods if not isinstance(method, str)]
    return Run(model, settings, SeededNoise(7), probes).generate(hart_features(3, 5), (0, 1), made)


def test_hooks_see_the_grid_and_the_cache_holds_the_text() -> None:
    probe = Shapes()
    out = run(tiny_hart(), probes=(probe,))
    assert probe.tokens == [1, 4, 9, 25]
    assert probe.blocks == {(n, n) for n in (1, 4, 9, 25)} and probe.branches == {1, 4, 9, 25}
    assert out.states[0].kv.lengths == [HART_TEXT + 4 + 9 + 25] * 4
    assert [work.tokens for work in out.ledger.stages] == [2, 8, 18, 50]
    assert out.ledger.stages[0].token_blocks == HART_TEXT * 4 * 4


PLAIN = Savings(one_null=False, constants=False)
METHODS: tuple[tuple[str, ...], ...] = (
    (), ("sparsevar:keep=0.3,last=2",), ("fastvar:ratios=0.5,drop=1,first=1",), ("cfg-off:last=2",),
    ("freqexit:exits=2x1/4x3",),
)  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "passes": {"settings": HartSettings(cfg=2.0, top_k=20, passes=3)},
    "modulated": {"modulation": "block", "unit_attention": True, "learned_levels": True},
}


@pytest.mark.parametrize("saving", ["one_null", "constants"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_savings_change_no_number_beyond_rounding(saving: str, variant: str) -> None:
    for methods in METHODS:
        plain, saved = (tiny_hart(**VARIANTS[variant]) for _ in range(2))
        plain.savings, saved.savings = PLAIN, replace(PLAIN, **{saving: True})
        first, second = run(plain, *methods), run(saved, *methods)
        torch.testing.assert_close(second.canvas, first.canvas, atol=1e-4, rtol=1e-4)
        if saving != "one_null":
            assert torch.equal(second.canvas, first.canvas)
        works = [out.ledger.transformer_flops for out in (second, first)]
        dropped = first.ledger.stages[-1].tokens == 0  # with the diffusion; learned levels leave nothing else to save
        if saving == "constants" and variant == "modulated" and dropped:
            assert works[0] == works[1]
        else:
            assert works[0] < works[1]


def test_one_null_token_counts_for_all_of_them() -> None:
    """Pairs and tokens by hand: the unconditional rows hold one text token; with all savings the law still holds."""
    model = tiny_hart()
    model.savings = Savings(one_null=True)
    out = run(model)
    ends = [HART_TEXT, HART_TEXT + 4, HART_TEXT + 13, HART_TEXT + 38]
    for work, tokens, end in zip(out.ledger.stages, (HART_TEXT, 4, 9, 25), ends, strict=True):
        null = 1 if work is out.ledger.stages[0] else tokens
        assert work.token_blocks == work.dense_token_blocks == (tokens + null) * 4 * 2
        assert work.pairs == (tokens * end + null * (end - HART_TEXT + 1)) * 4 * 2
    assert not out.ledger.engaged


def test_guidance_grows_and_the_last_stage_repeats_it() -> None:
    model = tiny_hart()
    scales = [model.guidance(k, HartSettings(cfg=6.0), True).scale for k in range(4)]
    assert scales == [1.0, 3.0, 5.0, 5.0]
    assert model.guidance(3, HartSettings(), False).scale == 1.0


def test_passes_see_no_later_pass() -> None:
    """The tokens of the first pass are what they would be if the stage had no others."""

    class OnlyFirst(Accelerator):
        name = "only-first"

        def plan(self, stage: Stage) -> StagePlan:
            return StagePlan(selection=Selection(first, 25)) if stage.from_end == 0 else StagePlan()

        def complete(self, stage: Stage, codes: torch.Tensor, selection: Selection) -> torch.Tensor:
            index = selection.index[None, :, None].expand(stage.batch, -1, codes.shape[-1])
            return codes.new_zeros(stage.batch, 25, codes.shape[-1]).scatter(1, index, codes)

    model, settings = tiny_hart(), HartSettings(cfg=2.0, passes=3, smooth=False, top_k=0)
    text = HartText(hart_features(3).features, hart_features(3).mask)

    class Turns(Probe):
        def on_stage(self, stage: Stage, x: torch.Tensor) -> None:
            if stage.from_end == 0:
                self.passes = stage.passes

    probe = Turns()
    whole = Run(model, settings, SeededNoise(7), [probe]).generate(text, (0,))
    assert probe.passes is not None
    first = (probe.passes[0] == 0).nonzero()[:, 0]
    alone = Run(model, settings, SeededNoise(7)).generate(text, (0,), [OnlyFirst()])
    same = whole.canvas.flatten(2)[..., first]
    assert torch.allclose(same, alone.canvas.flatten(2)[..., first], atol=1e-5)
    assert not torch.allclose(whole.canvas, run(model, passes=1, smooth=False, top_k=0).canvas[:1], atol=1e-2)


LEDGER: dict[str, dict[str, Any]] = {
    "smooth": {}, "drawn": {"smooth": False}, "discrete": {"smooth": False, "residual": False},
    "a guidance of 1 at the last stage": {"cfg": 1.5},
}  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "settings"),
    [({}, settings) for settings in LEDGER.values()] + [({"modulation": "block"}, {})],
    ids=[*LEDGER, "modulated"],
)
@pytest.mark.parametrize("savings", [PLAIN, Savings(True, True)], ids=["plain", "saving"])
def test_the_ledger_equals_a_count_of_every_operation(
    variant: dict[str, Any], settings: dict[str, Any], savings: Savings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(q, k, v, mask=None, scale=None):  # type: ignore[no-untyped-def]
        """Two visible matrix products in place of the fused kernel, which the counter does not see on CPU."""
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        return (scores if mask is None else scores + mask).softmax(-1) @ v

    monkeypatch.setattr(F, "scaled_dot_product_attention", plain)
    model = tiny_hart(**variant)
    model.savings = savings
    for methods in ((), ("uniform-tokens:keep=0.3,last=2",), ("cfg-off:last=1",)):
        with FlopCounterMode(display=False) as counter:
            ledger = run(model, *methods, **settings).ledger
        overhead = sum(work.overhead_flops for work in ledger.stages)
        assert counter.get_total_flops() == ledger.transformer_flops - overhead + ledger.decode_flops
        assert ledger.engaged == bool(methods)


def test_what_hart_cannot_do_is_refused() -> None:
    model = tiny_hart()

    class PrunesTheText(Accelerator):
        name = "prunes-the-text"

        def plan(self, stage: Stage) -> StagePlan:
            return StagePlan(selection=Selection(torch.tensor([0]), 1)) if stage.index == 0 else StagePlan()

    class SkipsTheText(Accelerator):
        name = "skips-the-text"

        def plan(self, stage: Stage) -> StagePlan:
            return StagePlan("skip") if stage.index == 0 else StagePlan()

    refused(lambda: run(model, PrunesTheText()), "Stage 1 carries the text", "later stages")
    refused(lambda: run(model, SkipsTheText()), "Stage 1 carries the text")
    refused(lambda: run(model, cfg_layers=(-1,)), "cfg_layers")
    refused(lambda: run(model, passes=0), "passes")
    refused(lambda: model.prepare(hart_features(3), True, hart_features(2)), "negative prompt")
    refused(lambda: model.prepare(["a red star"], True), "without a text encoder")
    wide = HartText(torch.zeros(1, HART_TEXT, 9), torch.ones(1, HART_TEXT, dtype=torch.bool))
    refused(lambda: model.check_text(wide), f"({HART_TEXT}, 9)", f"({HART_TEXT}, 24)")
    refused(lambda: HartText(torch.zeros(2, 3), torch.ones(2, 3)), "[B, T, text_width]")
    refused(lambda: HartConfig(width=30, heads=4), "head width")
    refused(lambda: Hart(model.transformer, HybridTokenizer(HybridConfig(7, 4, 32, (1,))), model.schedule), "7 of 4")

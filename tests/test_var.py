"""VAR: official names, sampler, conditioning, ledger, teacher forcing against the engine."""

import lzma
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import tiny_var
from tests.minis import refused
from varlab import runs
from varlab.accelerators import build
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.classes import ClassReader
from varlab.models.guidance import Settings
from varlab.models.labels import draw_label, only_likeliest
from varlab.models.layers import block_causal_attend
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer, decoder_flops, phi_index
from varlab.models.var import VARConfig, VARTransformer
from varlab.models.var_model import VAR
from varlab.parity.run import Capture
from varlab.weights import registry, zoo
from varlab.weights.convert import convert

KEYS = Path(__file__).parent / "keys" / "var.tsv.xz"
SHARED = Path(__file__).parents[2] / "shared" / "keys"
PARAMETERS = {16: 310_283_520, 20: 600_917_136, 24: 1_033_399_360, 30: 2_010_020_356}


def official() -> dict[str, list[tuple[str, ...]]]:
    lists: dict[str, list[tuple[str, ...]]] = {}
    for line in lzma.decompress(KEYS.read_bytes()).decode().splitlines()[1:]:
        file, *row = line.split("\t")
        lists.setdefault(file, []).append(tuple(row))
    return lists


def rows_of(module: nn.Module) -> list[tuple[str, ...]]:
    parameters = dict(module.named_parameters())
    return [
        (
            name,
            "x".join(map(str, tensor.shape)),
            str(tensor.dtype).removeprefix("torch."),
            "param" if name in parameters else "buffer",
        )
        for name, tensor in module.state_dict().items()
    ]


def released(depth: int) -> VARTransformer:
    with torch.device("meta"):
        return VARTransformer(VARConfig(depth, 64 * depth, depth))


def test_names_shapes_and_types_equal_the_official_files() -> None:
    lists = official()
    for depth in (16, 30):
        assert rows_of(released(depth)) == lists[f"var_d{depth}"]
    with torch.device("meta"):
        assert sorted(rows_of(VQTokenizer(VQConfig()))) == sorted(lists["var_vqvae"])


@pytest.mark.skipif(not SHARED.exists(), reason="the original lists are not beside this checkout")
def test_condensed_list_equals_the_original() -> None:
    for file, rows in official().items():
        lines = (SHARED / f"{file}_keys.tsv").read_text().splitlines()[1:]
        assert ["\t".join(row) for row in rows] == lines


def test_released_sizes() -> None:
    for depth, count in PARAMETERS.items():
        assert sum(parameter.numel() for parameter in released(depth).parameters()) == count
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VQTokenizer(VQConfig()).parameters()) == 108_948_355
    assert decoder_flops(VQConfig(), (16, 16)) == 393_713_549_312


def test_ten_stages_share_four_smoothing_convolutions() -> None:
    assert phi_index(10, 4) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert phi_index(5, 5) == [0, 1, 2, 3, 4] and phi_index(1, 1) == [0]


# Sampler


def test_filters_keep_ties_and_the_likeliest() -> None:
    logits = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0])
    assert (only_likeliest(logits, 2, 0.0) > -torch.inf).tolist() == [True, False, True, True, False]
    assert (only_likeliest(logits, 0, 1e-6) > -torch.inf).tolist() == [True, False, False, False, False]
    assert torch.equal(only_likeliest(logits, 0, 0.0), logits) and torch.equal(only_likeliest(logits, 900, 1.0), logits)


def test_draws_follow_the_distribution() -> None:
    probability = torch.tensor([0.5, 0.0, 0.3, 0.2])
    uniform = (torch.arange(1000) + 0.5)[:, None] / 1000
    drawn = draw_label(probability.log().expand(1000, 4), uniform)
    assert torch.bincount(drawn, minlength=4).tolist() == [500, 0, 300, 200]
    certain = torch.tensor([-torch.inf, 0.0, -torch.inf]).expand(2, 3)
    assert draw_label(certain, torch.tensor([[0.0], [1 - 2**-24]])).tolist() == [1, 1]


# Conditioning


def test_labels_are_numbers_or_names() -> None:
    assert ClassReader(10)(["3", "class 7", 0]).tolist() == [3, 7, 0]
    assert ClassReader(10)(torch.tensor([4, 5])).tolist() == [4, 5]
    named = ClassReader(2, ["red star", "blue ring"])
    assert named(["Blue ring", "0"]).tolist() == [1, 0]
    refused(lambda: named(["blue rings"]), "no class", "blue ring")
    refused(lambda: ClassReader(10)(["10"]), "Class 10", "0 to 9")
    refused(lambda: ClassReader(10)(["-1"]), "no class")
    refused(lambda: ClassReader(10)([]), "no class labels")
    refused(lambda: ClassReader(3, ["a"]), "as many names")


# Registry


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One tiny VAR in the registry, an own checkpoint folder."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path))
    model = tiny_var()
    entry = replace(
        registry.MODELS["var-d16"],
        name="tiny",
        transformer=model.transformer.config,
        tokenizer=model.tokenizer.config,
        schedule=lambda *_: model.schedule,
    )
    monkeypatch.setattr(registry, "MODELS", registry.Registry([entry]))
    return tmp_path


def test_released_models_load_as_shapes() -> None:
    for name in ("var-d16", "var-d36"):
        model = zoo.load(name, "empty")
        assert isinstance(model, VAR) and model.name == name
    large = zoo.load("var-d36", "empty")
    assert isinstance(large, VAR) and large.transformer.config.shared_modulation and large.schedule.tokens == 2240
    refused(lambda: zoo.load("var-d16", "empty", pixels="1M"), "one schedule")
    refused(lambda: zoo.load("var-d16", "empty", text="random"), "class labels")
    refused(lambda: zoo.check_captions(registry.MODELS["var-d16"], ["a dog"]), "no class")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_random_weights_draw(registered: Path, precision: str) -> None:
    model = zoo.load("tiny", "random", precision=precision)
    out = runs.sample(model, ["3", "class 7"], seed=1, accelerators="freqexit:row=d")
    assert len(out.images) == 2 and out.ledger.engaged and model.precision == precision
    assert torch.equal(model.transformer.get_buffer("lvl_1L"), tiny_var().transformer.get_buffer("lvl_1L"))
    refused(lambda: runs.sample(model, ["3", "12"]), "Class 12")


def test_official_files_are_read_strictly(registered: Path) -> None:
    model = tiny_var(seed=3)
    flat, images = model.transformer.state_dict(), model.tokenizer.state_dict()
    torch.save(flat, registered / "var_d16.pth")
    torch.save(images, registered / "vae_ch160v4096z32.pth")
    loaded = zoo.load("tiny")
    assert loaded.weights.startswith("named as official, not verified (var_d16.pth")
    one, other = (Run(m, Settings(cfg=2.0), SeededNoise(1)).generate([3], (0,)).image for m in (model, loaded))
    assert torch.allclose(one, other, atol=1e-5)
    torch.save({name: t for name, t in flat.items() if name != "head.bias"}, registered / "var_d16.pth")
    refused(lambda: zoo.load("tiny"), "1 missing (head.bias)", "VAR of depth 4, width 64 and 10 classes")
    torch.save(flat | {"lvl_1L": flat["lvl_1L"] + 1}, registered / "var_d16.pth")
    refused(lambda: zoo.load("tiny"), "lvl_1L")
    torch.save(images, registered / "var_d16.pth")
    refused(lambda: zoo.load("tiny"), "32 codes of 4 channels")


def run(settings: Settings, *specs: str, **options: Tensor | list[int]) -> tuple[Capture, Run]:
    capture = Capture()
    made = Run(tiny_var(), settings, SeededNoise(7), [capture])
    made.generate([3, 7], (0, 1), build(specs), **options)  # type: ignore[arg-type]
    return capture, made


def test_converted_files_load_as_the_original(registered: Path) -> None:
    model = tiny_var(seed=3)
    flat, images = model.transformer.state_dict(), model.tokenizer.state_dict()
    for file, tensors in (("var_d16", flat), ("vae_ch160v4096z32", images)):
        torch.save(tensors, registered / f"{file}.pth")
    original = zoo.load("tiny", precision="bf16")
    for file in ("var_d16", "vae_ch160v4096z32"):
        convert(registered / f"{file}.pth", registered / f"{file}.safetensors", "tiny")
        (registered / f"{file}.pth").unlink()
    converted = zoo.load("tiny", precision="bf16")
    assert converted.weights.startswith("named as official, not verified (var_d16.safetensors")
    for part in ("transformer", "tokenizer"):
        first, second = (getattr(each, part).state_dict() for each in (original, converted))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_guidance_ramps_up_and_zero_runs_one_row() -> None:
    model = tiny_var()
    scales = [model.guidance(k, Settings(cfg=1.5), True).scale for k in range(4)]
    assert scales == [1.0, 1.5, 2.0, 2.5]
    assert model.guidance(1, Settings(cfg=(0.0, 0.3, 0.0, 0.0)), True).scale == 1.3
    assert model.guidance(2, Settings(cfg=1.5), True, scale=1.0).scale == 1.0
    alone, _ = run(Settings(cfg=0.0))
    both, _ = run(Settings(cfg=1.5))
    assert alone.entering[0].shape[0] == 2 and both.entering[0].shape[0] == 4
    assert torch.allclose(alone.final[0], both.final[0], atol=1e-5)


def test_negative_labels_take_the_place_of_none() -> None:
    plain, _ = run(Settings(cfg=1.5))
    other, _ = run(Settings(cfg=1.5), negative=[1, 2])
    assert torch.equal(plain.final[0], other.final[0]) and not torch.equal(plain.final[1], other.final[1])
    refused(lambda: run(Settings(cfg=1.5), negative=[1]), "2 labels need 2")


def test_configurations_that_cannot_work_are_refused() -> None:
    refused(lambda: VARConfig(2, 10, 3), "does not divide")
    refused(lambda: VARConfig(2, 8, 2, sides=(2, 4)), "begin with 1")


# Teacher forcing, ledger


@pytest.mark.parametrize(("shared", "cosine"), [(False, True), (True, True), (False, False)])
def test_teacher_forcing_equals_the_cached_run(shared: bool, cosine: bool) -> None:
    model, capture = tiny_var("square", shared, cosine), Capture()
    Run(model, Settings(cfg=0.0), SeededNoise(7), [capture]).generate([3, 7], (0, 1))
    inputs = model.tokenizer.inputs(capture.labels, model.schedule.grids)
    config = model.transformer.config
    attend = block_causal_attend(config.lengths, config.attention_scale)
    logits = model.transformer(torch.tensor([3, 7]), inputs, attend)
    assert torch.allclose(logits, torch.cat(capture.final, 1), atol=1e-4)


def test_samples_that_skip_a_block_pass_it_unchanged() -> None:
    model = tiny_var()
    config = model.transformer.config
    inputs = [torch.randn(2, n, config.code_width) for n in config.lengths[1:]]
    attend = block_causal_attend(config.lengths, config.attention_scale)
    executed = torch.ones(4, 2, dtype=torch.bool)
    executed[2, 0] = False
    plain, some = (
        list(model.transformer.states(torch.tensor([3, 7]), inputs, attend, mask)) for mask in (None, executed)
    )
    assert torch.equal(plain[1], some[1]) and torch.equal(some[2][0], some[1][0])
    assert torch.allclose(plain[3][1], some[3][1], atol=1e-5) and not torch.allclose(plain[3][0], some[3][0], atol=1e-3)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "specs", [(), ("freqexit:exits=4/3/2/2",), ("random-tokens:keep=0.4,last=2",), ("cfg-off:last=2",)]
)
def test_the_ledger_equals_a_count_of_every_operation(
    shared: bool, specs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """Two visible matrix products in place of the fused kernel, which the counter does not see on CPU."""
        return (q @ k.mT * scale).softmax(-1) @ v

    monkeypatch.setattr("varlab.engine.attend.attention", plain)
    made = Run(tiny_var("square", shared), Settings(cfg=2.0), SeededNoise(7))
    with FlopCounterMode(display=False) as counter:
        made.generate([3, 7], (0, 1), build(specs))
    overhead = sum(work.overhead_flops for work in made.ledger.stages)
    assert counter.get_total_flops() == made.ledger.transformer_flops - overhead + made.ledger.decode_flops

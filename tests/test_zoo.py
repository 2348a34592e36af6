"""The registry, ``load`` in all its ways, random weights, and the files of the minis."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.minis import make_mini, refused
from tests.zoo_files import draw, places, tiny, weights_hash  # noqa: F401
from varlab import schedules
from varlab.models.captions import CaptionEncoder
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.weights import ready, registry, zoo
from varlab.weights.catalogue import catalogue
from varlab.weights.fits import check_fit
from varlab.weights.initialise import randomise

# Registry


def test_official_names_and_sizes() -> None:
    assert list(registry.MODELS) == [
        "infinity-125m", "infinity-layer16", "infinity-1b", "infinity-layer32", "infinity-layer40", "infinity-layer48",
        "infinity-2b", "infinity-8b", "infinity-8b-512", "hart-0.7b", "var-d16", "var-d20", "var-d24", "var-d30",
        "var-d36",
    ]  # fmt: skip
    expected = {
        "infinity-2b": 2_204_564_032,
        "infinity-8b": 8_375_791_824,
        "infinity-1b": 940_944_832,
        "hart-0.7b": 732_399_168,
    }
    expected |= {"infinity-layer16": 361_633_792, "infinity-layer48": 8_767_198_528}
    expected |= {"var-d16": 310_283_520, "var-d30": 2_010_020_356}
    for name, count in expected.items():
        assert registry.parameters(registry.MODELS[name].transformer) == count
    big, small = registry.MODELS["infinity-2b"].settings, registry.MODELS["infinity-8b-512"].settings
    assert (big.cfg, big.tau, big.top_k, big.top_p) == (3.0, 0.5, 900, 0.97)
    assert (small.cfg, small.tau) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("name", "options", "tokens", "image"),
    [
        ("infinity-2b", {}, 10521, (1024, 1024)),
        ("infinity-2b", {"pixels": "0.25M", "ratio": 1.5}, 2759, (624, 416)),
        ("infinity-8b", {"ratio": 0.5}, 11269, (720, 1440)),
        ("infinity-8b-512", {}, 2521, (512, 512)),
        ("infinity-125m", {}, 521, (256, 256)),
        ("hart-0.7b", {}, 9451, (1024, 1024)),
    ],
)
def test_schedule_and_image_size(name: str, options: dict, tokens: int, image: tuple[int, int]) -> None:
    model = zoo.load(name, "empty", **options)
    assert model.schedule.tokens == tokens and model.name == name
    canvas = model.new_canvas(1)
    assert canvas.device.type == "meta"
    assert tuple(side * model.tokenizer.config.stride for side in canvas.shape[-2:]) == image
    assert model.weights == "empty (shapes only)" and model.text is None


def test_minis_appear_with_their_folder(places: Path) -> None:
    assert "nano-infinity" not in registry.MODELS
    refused(lambda: zoo.load("nano-infinty"), "Unknown model", str(places / "data"))
    make_mini(places / "data" / "nano-infinity")
    (places / "data" / "other").mkdir()
    assert "nano-infinity" in registry.MODELS and "other" not in registry.MODELS and len(registry.MODELS) == 16
    refused(lambda: zoo.load("nano-infinty"), "Did you mean nano-infinity")


def test_describe(places: Path) -> None:
    make_mini(places / "data" / "nano-infinity")
    broken = places / "data" / "broken"
    broken.mkdir()
    (broken / "model.json").write_text("{")
    for file in ("infinity_2b_reg.pth", "infinity_vae_d32reg.safetensors"):
        (places / "checkpoints" / file).touch()
    table = pd.DataFrame(catalogue()).set_index("name")
    assert list(table.index[:3]) == ["broken", "nano-infinity", "infinity-125m"] and len(table) == 17
    assert table.loc["broken", "weights"] == "damaged" and "JSON" in table.loc["broken", "description"]
    assert table.loc["nano-infinity", "weights"] == "shipped" and table.loc["nano-infinity", "tokens"] == 21
    assert table.loc["infinity-2b", "weights"] == "found" and table.loc["infinity-2b", "parameters"] == 2_204_564_032
    assert table.loc["infinity-8b", "weights"] == "not here"
    assert str(places / "checkpoints" / "infinity_8b_weights") in table.loc["infinity-8b", "expected"]
    assert table.loc["infinity-1b", "weights"] == "not released"


def test_options_are_checked(places: Path) -> None:
    make_mini(places / "data" / "nano-infinity")
    load = zoo.load
    refused(lambda: load("infinity-3b", "empty"), "Did you mean", "infinity-2b")
    refused(lambda: load("infinity-2b", "rnadom"), "Did you mean random")
    refused(lambda: load("infinity-2b", "empty", precision="bf32"), "Did you mean", "bf16")
    refused(lambda: load("infinity-2b", "empty", pixels="1.0M"), "Did you mean", "1M")
    for ratio in (0.0, 0.2, 5.0, float("nan")):
        refused(partial(load, "infinity-2b", "empty", ratio=ratio), "1/3 to 3")
    refused(lambda: load("infinity-2b", "empty", device="cpuu"), "cannot be used")
    refused(lambda: load("infinity-2b", "random", device="meta"), "init='empty'")
    refused(lambda: load("infinity-2b", "random", checkpoint="x.pth"), "reads no files")
    refused(lambda: load("infinity-2b", "empty", text="captions"), "flan-t5-xl")
    refused(lambda: load("nano-infinity", pixels="1M"), "one schedule", "(4, 4)")
    refused(lambda: load("nano-infinity", ratio=0.5), "one schedule")
    refused(lambda: load("nano-infinity", text="flan-t5-xl"), "captions")
    refused(lambda: load("nano-infinity", tokenizer="x.pth"), "own tokenizer")


def test_schedules_that_do_not_fit() -> None:
    entry = registry.MODELS["infinity-2b"]
    check_fit(entry, entry.schedule("1M", 1.0))
    refused(lambda: check_fit(entry, schedules.square(tuple(range(1, 17)), "long")), "15 stages", "has 16")
    released = entry.schedule("0.25M", 1.0)
    refused(lambda: check_fit(replace(entry, tokenizer=BSQConfig(32, 8)), released), "16 pixels", "8 pixels")
    refused(lambda: check_fit(replace(entry, tokenizer=BSQConfig(16)), released), "32 bits", "takes 16")
    wide = replace(entry, tokenizer=BSQConfig(32, 8))
    refused(lambda: check_fit(wide, replace(released, name="mine")), "16 pixels", "8 pixels")
    check_fit(wide, replace(schedules.square((1, 2, 4), "x"), name="infinity-like"))


def test_grids_that_the_sampler_cannot_follow() -> None:
    model = zoo.load("infinity-125m", "empty")
    refused(lambda: model.with_(schedule=schedules.square((2, 4), "late")), "'late' begins with (2, 2)", "with (1, 1)")
    folding = schedules.custom([(1, 1), (2, 4), (4, 3)])
    refused(lambda: model.with_(schedule=folding), "shrinks from (2, 4) to (4, 3)", "grids that grow")
    refused(lambda: check_fit(registry.MODELS["infinity-125m"], folding), "shrinks")


# Random weights


def test_random_weights_depend_on_seed_and_name_alone(tiny: None) -> None:
    first, again, other = zoo.load("tiny", "random"), zoo.load("tiny", "random"), zoo.load("tiny", "random", seed=1)
    assert first.weights == "random (seed 0)" and other.weights == "random (seed 1)"
    assert weights_hash(first.transformer) == weights_hash(again.transformer) != weights_hash(other.transformer)
    half = zoo.load("tiny", "random", precision="bf16")
    assert half.precision == "bf16"
    for part in ("transformer", "tokenizer"):
        full = getattr(first, part).state_dict()
        for name, tensor in getattr(half, part).state_dict().items():
            rounded = (part == "transformer" and name.startswith("block_chunks")) or ".conv." in name
            assert tensor.dtype == (torch.bfloat16 if rounded else full[name].dtype), name
            assert torch.equal(tensor, full[name].to(tensor.dtype)), name
    assert first.tokenizer.get_buffer("quantizer.lfq.mask")[0] == 128
    assert not first.transformer.training and not first.tokenizer.training
    assert not any(p.requires_grad for p in first.transformer.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_random_weights_draw_finite_varied_images(tiny: None, precision: str) -> None:
    model = zoo.load("tiny", "random", precision=precision)
    assert isinstance(model.text, RandomText)
    image = draw(model)
    assert image.shape == (2, 3, 16, 16) and torch.isfinite(image).all()
    assert float(image.std()) > 0.01 and not torch.equal(image[0], image[1])


def test_random_activations_stay_of_order_one() -> None:
    with torch.device("meta"):
        transformer = InfinityTransformer(InfinityConfig(32, 256, 4, 16, chunks=8, text_width=256))
    randomise(transformer)
    tokenizer = BSQTokenizer(BSQConfig(16, channels=16, multipliers=(1, 1, 1, 1, 1), norm_groups=8))
    model = Infinity(transformer.requires_grad_(False), tokenizer, schedules.square((1, 2, 3), "s"), RandomText(256))
    sizes: list[float] = []
    handle = transformer.head.register_forward_hook(lambda _, __, logits: sizes.append(float(logits.std())))
    draw(model)
    handle.remove()
    assert len(sizes) == 3 and all(0.2 < size < 5 for size in sizes)


def test_a_mini_that_is_ready_is_given_once_and_as_its_files_are(places: Path) -> None:
    for folder in (places / "data" / "nano-infinity", places / "copy"):
        make_mini(folder)
    entry, made = registry.find("nano-infinity"), zoo.load("nano-infinity")
    ready.add(entry, made)
    copy = registry.mini("nano-infinity", places / "copy")
    assert made not in (zoo.load("nano-infinity", precision="bf16"), zoo.assemble(copy, zoo.LoadOptions()))
    assert zoo.load("nano-infinity") is made and zoo.load("nano-infinity") is not made
    ready.add(entry, made)
    make_mini(places / "data" / "nano-infinity", seed=6)
    assert zoo.load("nano-infinity").weights != made.weights
    ready.add(entry, made)
    shutil.rmtree(places / "data" / "nano-infinity")
    refused(lambda: zoo.load("nano-infinity"), "nano-infinity")


def test_random_mini_has_a_working_caption_encoder(places: Path) -> None:
    make_mini(places / "data" / "nano-infinity")
    model = zoo.load("nano-infinity", "random", seed=3)
    assert model.weights == "random (seed 3)" and isinstance(model.text, CaptionEncoder)
    assert torch.isfinite(draw(model)).all()


# Official files


# Minis

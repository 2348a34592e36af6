"""The registry, ``load`` in all its ways, random weights, and the files of the minis."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.minis import CONFIG, SCHEDULE, SETTINGS, TOKENIZER, WORDS, make_mini, parts, refused
from varlab import schedules
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.models.captions import CaptionEncoder
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.infinity_model import Infinity
from varlab.models.text import FlanT5, RandomText
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.weight_labels import NAMED
from varlab.weights import embedded, registry, zoo
from varlab.weights.catalogue import catalogue
from varlab.weights.content import content_of
from varlab.weights.convert import convert
from varlab.weights.embedded import Parts, load_mini, save_mini
from varlab.weights.fits import check_fit
from varlab.weights.initialise import randomise
from varlab.weights.official import HUB, ModelEntry
from varlab.weights.writing import hash_tensors


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own data and checkpoint folders, so that nothing of this computer matters."""
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setattr("varlab.models.text.find_spec", lambda name: name)  # transformers counts as installed
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ModelEntry("tiny", CONFIG, TOKENIZER, lambda *_: SCHEDULE, Settings(), "", "tiny.pth", "vae.pth")
    twin = replace(entry, name="tiny-512", file="tiny_512.pth")
    unreleased = replace(entry, name="tiny-unreleased", file="")
    monkeypatch.setattr(registry, "MODELS", registry.Registry([entry, twin, unreleased]))


def draw(model: Infinity) -> torch.Tensor:
    return Run(model, model.settings, SeededNoise(0)).generate(["a red star", "a blue ring above a star"], [0, 1]).image


def weights_hash(module: nn.Module) -> str:
    return hash_tensors(module.state_dict())


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
        refused(lambda ratio=ratio: load("infinity-2b", "empty", ratio=ratio), "1/3 to 3")
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
    assert first.tokenizer.quantizer.lfq.mask[0] == 128
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


def test_random_mini_has_a_working_caption_encoder(places: Path) -> None:
    make_mini(places / "data" / "nano-infinity")
    model = zoo.load("nano-infinity", "random", seed=3)
    assert model.weights == "random (seed 3)" and isinstance(model.text, CaptionEncoder)
    assert torch.isfinite(draw(model)).all()


# Official files


def test_official_files_by_path_folder_and_hub(tiny: None, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer, tokenizer, _ = parts()
    folder = places / "weights"
    folder.mkdir()
    torch.save(transformer.state_dict(), folder / "tiny.pth")
    torch.save({"vae": tokenizer.state_dict()}, folder / "vae.pth")
    refused(
        lambda: zoo.load("tiny"), "tiny.pth and vae.pth are not in", str(places / "checkpoints"), HUB, "init='random'"
    )
    refused(lambda: zoo.load("tiny-unreleased"), "No weights of tiny-unreleased were released", "checkpoint=PATH")

    first, second = (content_of(module, ()).hash for module in (transformer, tokenizer))

    def named(kind: str, image_file: str = "vae.pth") -> str:
        return f"{kind} (tiny.pth {first[:8]}, tokenizer {image_file}#vae {second[:8]})"

    def check(model: Infinity, weights: str) -> None:
        assert weights_hash(model.transformer) == weights_hash(transformer)
        assert weights_hash(model.tokenizer) == weights_hash(tokenizer)
        assert model.weights == weights and isinstance(model.text, FlanT5)

    check(zoo.load("tiny", checkpoint=folder), named(NAMED))
    check(zoo.load("tiny", checkpoint=folder / "tiny.pth"), named(NAMED))
    check(zoo.load("tiny-unreleased", checkpoint=folder / "tiny.pth"), named("checkpoint"))
    elsewhere = places / "vae_elsewhere.pth"
    (folder / "vae.pth").rename(elsewhere)
    refused(lambda: zoo.load("tiny", checkpoint=folder / "tiny.pth"), "vae.pth is not in", "tokenizer=PATH")
    with pytest.warns(UserWarning, match="no released pair: the tokenizer is not vae.pth"):
        model = zoo.load("tiny", checkpoint=folder / "tiny.pth", tokenizer=elsewhere)
    check(model, named(NAMED, "vae_elsewhere.pth") + " [no released pair: the tokenizer is not vae.pth]")
    elsewhere.rename(folder / "vae.pth")
    monkeypatch.setattr("varlab.weights.places.from_hub", lambda repository, file: folder / file)
    check(zoo.load("tiny", checkpoint=HUB), named(NAMED))
    assert zoo.load("tiny", checkpoint=folder, text="random").weights == (
        f"{named(NAMED)}, random text features (seed 0)"
    )


def test_what_is_missing_is_named_before_weights_are_read(
    tiny: None, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.MODELS["tiny"]
    both = refused(lambda: zoo.require(entry), "tiny.pth and vae.pth are not in", "VARLAB_CHECKPOINTS")
    assert "--checkpoint" not in both and "PATH" not in both
    refused(lambda: zoo.require(registry.MODELS["tiny-unreleased"]), "No weights", "choose a model")
    for file in ("tiny.pth", "vae.pth"):
        refused(lambda: zoo.require(entry), "vae.pth")
        (places / "checkpoints" / file).write_text("not read")
    zoo.require(entry)
    monkeypatch.setattr("varlab.weights.files.read", lambda *_: pytest.fail("weights were read"))
    refused(lambda: zoo.load("tiny", text=str(places / "t5")), str(places / "t5"), "does not exist")
    refused(lambda: zoo.load("tiny", "random", text="~/no/such/encoder"), "does not exist", "Hugging Face id")
    monkeypatch.setattr("varlab.models.text.find_spec", lambda name: None)
    for action in (lambda: zoo.require(entry), lambda: zoo.load("tiny")):
        refused(action, "needs transformers", "pip install -e .[text]")


def test_a_mini_without_its_weights_is_told_apart(places: Path) -> None:
    folder = places / "data" / "nano-infinity"
    make_mini(folder)
    zoo.require(registry.MODELS["nano-infinity"])
    (folder / "model.safetensors").unlink()
    refused(lambda: zoo.require(registry.MODELS["nano-infinity"]), "model.safetensors does not exist")


def test_captions_are_checked_without_weights(places: Path) -> None:
    make_mini(places / "data" / "nano-infinity")
    zoo.check_captions(registry.MODELS["nano-infinity"], ["a red star", "a blue ring"])
    refused(lambda: zoo.check_captions(registry.MODELS["nano-infinity"], ["a red star", "a blu ring"]), "'blu'", "blue")
    zoo.check_captions(registry.MODELS["infinity-125m"], ["anything at all"])


def test_converted_files_are_found_and_named(tiny: None, places: Path) -> None:
    transformer, tokenizer, _ = parts()
    torch.save(transformer.state_dict(), places / "tiny.pth")
    torch.save({"vae": tokenizer.state_dict()}, places / "vae.pth")
    direct = zoo.load("tiny", checkpoint=places, precision="bf16")
    for file in ("tiny", "vae"):
        convert(places / f"{file}.pth", places / "checkpoints" / f"{file}.safetensors", "tiny")
    model = zoo.load("tiny", precision="bf16")
    assert weights_hash(model.transformer) == weights_hash(direct.transformer)
    assert weights_hash(model.tokenizer) == weights_hash(direct.tokenizer)
    assert model.weights == direct.weights.replace(".pth", ".safetensors").replace("#vae", "")
    converted = places / "checkpoints" / "tiny.safetensors"
    refused(lambda: zoo.load("tiny-512", checkpoint=converted), "converted as tiny, not tiny-512")


def test_swapped_files_are_told_apart(tiny: None, places: Path) -> None:
    transformer, tokenizer, _ = parts()
    torch.save(transformer.state_dict(), places / "tiny.pth")
    torch.save({"vae": tokenizer.state_dict()}, places / "vae.pth")
    swapped = {"checkpoint": places / "vae.pth", "tokenizer": places / "tiny.pth"}
    refused(lambda: zoo.load("tiny", **swapped), "vae.pth (for tiny)", "looks like a tokenizer of 8 bits and stride 4")
    swapped["checkpoint"] = places / "tiny.pth"
    refused(lambda: zoo.load("tiny", **swapped), "tokenizer of tiny", "looks like a transformer of depth 4")


# Minis


def test_mini_round_trip_is_bit_equal_in_bf16(places: Path) -> None:
    folder = places / "data" / "nano-infinity"
    transformer, tokenizer, text = parts()
    weights = save_mini(
        folder, Parts(transformer, tokenizer, text), SCHEDULE, SETTINGS, {"samples": 1000, "note": [1, 2]}
    )
    loaded, facts = load_mini(folder)
    for part, original in (("transformer", transformer), ("tokenizer", tokenizer), ("text", text)):
        for name, tensor in getattr(loaded, part).state_dict().items():
            stored = original.state_dict()[name]
            expected = stored.bfloat16().float() if stored.is_floating_point() else stored
            assert tensor.dtype == expected.dtype and torch.equal(tensor, expected), name
    assert facts.weights == weights and facts.extra == {"samples": 1000, "note": [1, 2]}
    assert (facts.schedule, facts.settings, facts.vocabulary) == (SCHEDULE, SETTINGS, WORDS)
    assert (facts.transformer, facts.tokenizer) == (CONFIG, TOKENIZER)
    assert save_mini(places / "copy", loaded, SCHEDULE, SETTINGS, {}) == weights
    assert not list(folder.glob("*.part"))


def test_loaded_mini_draws_and_says_what_it_is(places: Path) -> None:
    weights = make_mini(places / "data" / "nano-infinity")
    model = zoo.load("nano-infinity")
    assert model.weights == f"trained (varlab nano-infinity, {weights})"
    assert model.settings == SETTINGS and model.schedule == SCHEDULE
    assert torch.equal(draw(model), draw(zoo.load("nano-infinity")))
    assert zoo.load("nano-infinity", precision="bf16").precision == "bf16"
    moved = places / "elsewhere"
    other = make_mini(moved, seed=6)
    assert other in zoo.load("nano-infinity", checkpoint=moved).weights


def edit(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_damaged_minis_are_refused_with_the_difference(places: Path) -> None:
    folder = places / "data" / "nano-infinity"
    make_mini(folder)
    whole = (folder / "model.json").read_text()
    record = json.loads(whole)

    def after(*words: str, **changes: object) -> None:
        edit(folder, **changes)
        refused(lambda: zoo.load("nano-infinity"), *words)
        (folder / "model.json").write_text(whole)

    after("scenes of version 0", f"draws version {embedded.SCENE_VERSION}", scene_version="0")
    after("has the hash", "names 0123", weights="0123")
    after("Unknown family 'heart'", "hart", family="heart")
    after(
        "transformer does not fit InfinityConfig", "unexpected wings", transformer={**record["transformer"], "wings": 2}
    )
    after("settings does not fit Settings", "missing", "tau", settings={"cfg": 3.0})
    after("does not fit this InfinityTransformer", "missing", transformer={**record["transformer"], "depth": 6})
    after("does not fit this CaptionEncoder", "word.weight", vocabulary=[*WORDS, "moon"])
    after("predicts 8 bits", "takes 12", tokenizer={**record["tokenizer"], "bits": 12})
    assert load_mini(folder, scene_version=None)[1].scene_version == embedded.SCENE_VERSION
    (folder / "model.json").write_text("{}")
    refused(lambda: load_mini(folder), "lacks", "family", "vocabulary")
    (folder / "model.json").write_text(whole)
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.head.bias"] += 1
    save_file(tensors, folder / "model.safetensors")
    refused(lambda: load_mini(folder), "has the hash", "damaged")
    (folder / "model.safetensors").unlink()
    refused(lambda: load_mini(folder), "model.safetensors does not exist")
    refused(lambda: load_mini(places / "nothing"), "model.json does not exist")


def test_mini_is_not_saved_with_values_that_are_not_finite(places: Path) -> None:
    transformer, tokenizer, text = parts()
    with torch.no_grad():
        transformer.head.bias[0] = float("nan")
    action = lambda facts: save_mini(places / "x", Parts(transformer, tokenizer, text), SCHEDULE, SETTINGS, facts)  # noqa: E731
    refused(lambda: action({}), "transformer.head.bias", "not finite")
    refused(lambda: action({"weights": "mine"}), "weights", "fills that in")
    assert not (places / "x").exists()


def test_scene_version_is_that_of_the_scenes() -> None:
    from varlab.scenes import SCENE_VERSION

    assert embedded.SCENE_VERSION == SCENE_VERSION


def test_data_folder_is_that_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VARLAB_DATA")
    assert embedded.data_folder() == Path(__file__).parents[1] / "data"

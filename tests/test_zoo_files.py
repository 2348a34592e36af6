"""Names to models from files: official files and the shipped minis."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.minis import CONFIG, SCHEDULE, SETTINGS, TOKENIZER, WORDS, make_mini, parts, refused
from tests.zoo_files import draw, places, tiny, weights_hash  # noqa: F401
from varlab.models.hart_model import Hart
from varlab.models.infinity_model import Infinity
from varlab.models.text import FlanT5
from varlab.models.var_model import VAR
from varlab.weight_labels import NAMED
from varlab.weights import embedded, registry, zoo
from varlab.weights.content import content_of
from varlab.weights.convert import convert
from varlab.weights.embedded import Parts, load_mini, save_mini
from varlab.weights.official import HUB


def test_official_files_by_path_folder_and_hub(tiny: None, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer, tokenizer, _ = parts()
    folder = places / "weights"
    folder.mkdir()
    torch.save(transformer.state_dict(), folder / "tiny.pth")
    torch.save({"vae": tokenizer.state_dict()}, folder / "vae.pth")
    refused(
        lambda: zoo.load("tiny"), "tiny.pth and vae.pth are not in", str(places / "checkpoints"), HUB, "init='random'"
    )
    refused(lambda: zoo.load("tiny-unreleased"), "tiny-unreleased", "released", "checkpoint=PATH")

    first, second = (content_of(module, ()).hash for module in (transformer, tokenizer))

    def named(kind: str, image_file: str = "vae.pth") -> str:
        return f"{kind} (tiny.pth {first[:8]}, tokenizer {image_file}#vae {second[:8]})"

    def check(model: Infinity | Hart | VAR, weights: str) -> None:
        assert weights_hash(model.transformer) == weights_hash(transformer)
        assert weights_hash(model.tokenizer) == weights_hash(tokenizer)
        assert model.weights == weights and isinstance(model.text, FlanT5)

    check(zoo.load("tiny", checkpoint=folder), named(NAMED))
    check(zoo.load("tiny", checkpoint=folder / "tiny.pth"), named(NAMED))
    check(zoo.load("tiny-unreleased", checkpoint=folder / "tiny.pth"), named("checkpoint"))
    elsewhere = places / "vae_elsewhere.pth"
    (folder / "vae.pth").rename(elsewhere)
    refused(lambda: zoo.load("tiny", checkpoint=folder / "tiny.pth"), "vae.pth is not in", "tokenizer=PATH")
    with pytest.warns(UserWarning, match="no released pair.*vae.pth"):
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
    swapped: dict[str, Any] = {"checkpoint": places / "vae.pth", "tokenizer": places / "tiny.pth"}
    refused(lambda: zoo.load("tiny", **swapped), "vae.pth (for tiny)", "tokenizer of 8 bits")
    swapped["checkpoint"] = places / "tiny.pth"
    refused(lambda: zoo.load("tiny", **swapped), "tokenizer of tiny", "transformer of depth 4")


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
    assert load_mini(folder, scene_versions=None)[1].scene_version == embedded.SCENE_VERSION
    (folder / "model.json").write_text("{}")
    refused(lambda: load_mini(folder), "lacks", "family", "vocabulary")
    (folder / "model.json").write_text(whole)
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.head.bias"] += 1
    save_file(tensors, folder / "model.safetensors")
    refused(lambda: load_mini(folder), "has the hash", "damaged")
    (folder / "model.safetensors").unlink()
    refused(lambda: load_mini(folder), "model.safetensors does not exist")
    refused(lambda: load_mini(places / "nothing"), "nothing is no trained mini")


def test_mini_is_not_saved_with_values_that_are_not_finite(places: Path) -> None:
    transformer, tokenizer, text = parts()
    with torch.no_grad():
        transformer.head.bias[0] = float("nan")
    action = lambda facts: save_mini(places / "x", Parts(transformer, tokenizer, text), SCHEDULE, SETTINGS, facts)  # noqa: E731
    refused(lambda: action({}), "transformer.head.bias", "not finite")
    refused(lambda: action({"weights": "mine"}), "weights", "fills that in")
    assert not (places / "x").exists()


def test_scene_version_is_that_of_the_scenes() -> None:
    from varlab.scenes import SCENE_VERSION, SCENE_VERSIONS

    assert (embedded.SCENE_VERSION, embedded.SCENE_VERSIONS) == (SCENE_VERSION, SCENE_VERSIONS)


def test_data_folder_is_that_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VARLAB_DATA")
    assert embedded.data_folder() == Path(__file__).parents[1] / "data"

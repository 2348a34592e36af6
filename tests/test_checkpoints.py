"""Reading weight files: official key lists, every file layout, every way to be refused, conversion, hashes."""

import argparse
import gzip
import hashlib
import json
import lzma
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.minis import TOKENIZER, refused
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.schedules import custom
from varlab.weights import places, registry, zoo
from varlab.weights.choosing import choose
from varlab.weights.convert import convert
from varlab.weights.fitting import load_into
from varlab.weights.official import ModelEntry
from varlab.weights.places import locate
from varlab.weights.reading import read
from varlab.weights.writing import hash_tensors

CONFIG = InfinityConfig(4, 96, 4, 8, chunks=2, text_width=128, text_length=16)
KEYS = Path(__file__).parent / "keys" / "infinity.tsv.xz"
SHARED = Path(__file__).parents[2] / "shared" / "keys"
Rows = dict[str, tuple[str, str, str]]  # key -> shape, dtype, kind


@pytest.fixture(scope="module")
def transformer() -> InfinityTransformer:
    torch.manual_seed(1)
    return InfinityTransformer(CONFIG)


@pytest.fixture(scope="module")
def tokenizer() -> BSQTokenizer:
    torch.manual_seed(2)
    return BSQTokenizer(TOKENIZER)


def fill(module: nn.Module, path: Path, precision: str = "fp32", ema: bool = False) -> nn.Module:
    """A module with what a file holds of it."""
    chosen = choose(read(path), module.state_dict(), ema)
    load_into(module, chosen.tensors, chosen.label, precision)
    return module


def empty(config: InfinityConfig | BSQConfig) -> nn.Module:
    with torch.device("meta"):
        return InfinityTransformer(config) if isinstance(config, InfinityConfig) else BSQTokenizer(config)


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# Official key lists


def official_keys() -> dict[str, Rows]:
    lists: dict[str, Rows] = {}
    for line in lzma.decompress(KEYS.read_bytes()).decode().splitlines()[1:]:
        file, key, shape, dtype, kind = line.split("\t")
        lists.setdefault(file, {})[key] = (shape, dtype, kind)
    return lists


def rows_of(module: nn.Module) -> Rows:
    parameters = dict(module.named_parameters())
    return {
        name: (
            "x".join(map(str, tensor.shape)),
            str(tensor.dtype).removeprefix("torch."),
            "param" if name in parameters else "buffer",
        )
        for name, tensor in module.state_dict().items()
    }


def test_keys_of_every_official_file() -> None:
    lists = official_keys()
    assert len(lists) == 10
    assert rows_of(zoo.load("infinity-2b", "empty").transformer) == lists["infinity_2b"]
    for name in ("infinity-8b", "infinity-8b-512"):
        model = zoo.load(name, "empty")
        assert rows_of(model.transformer) == lists["infinity_8b"]
        assert rows_of(model.tokenizer) == lists["infinity_vae_d56_f8_14_patchify"]
    for bits in (14, 16, 18, 20, 24, 32, 64):
        assert rows_of(empty(BSQConfig(bits))) == lists[f"infinity_vae_d{bits}_f16"]


@pytest.mark.skipif(not SHARED.exists(), reason="the original lists are not beside this checkout")
def test_condensed_list_equals_the_original() -> None:
    for file, rows in official_keys().items():
        lines = (SHARED / f"{file}_keys.tsv").read_text().splitlines()[1:]
        assert [f"{key}\t" + "\t".join(row) for key, row in rows.items()] == lines


# Layouts


def test_flat_file_is_copied_cast_and_independent(transformer: InfinityTransformer, tmp_path: Path) -> None:
    path = tmp_path / "flat.pth"
    dead = {"lvl_1L": torch.zeros(3), "attn_bias_for_masking": torch.zeros(2), "Infinity_visible_kvlen": None}
    torch.save({**transformer.state_dict(), **dead}, path)
    loaded, half = empty(CONFIG), empty(CONFIG)
    stored = read(path)
    load_into(loaded, stored.tensors, stored.label)
    load_into(half, stored.tensors, stored.label, "bf16")
    del stored
    path.write_bytes(b"gone")
    assert same(loaded, transformer)
    types = {name: t.dtype for name, t in half.state_dict().items()}
    assert types["block_chunks.0.module.1.ffn.fc1.weight"] == torch.bfloat16
    assert types["block_chunks.1.module.0.ca_norm.weight"] == torch.bfloat16
    for name in ("head.weight", "lvl_embed.weight", "word_embed.weight", "text_proj_for_ca.0.weight", "cfg_uncond"):
        assert types[name] == torch.float32
    name = "block_chunks.0.module.0.sa.mat_qkv.weight"
    assert torch.equal(half.state_dict()[name], transformer.state_dict()[name].bfloat16())


def test_old_torch_format(transformer: InfinityTransformer, tmp_path: Path) -> None:
    torch.save(transformer.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = empty(CONFIG)
    load_into(loaded, read(tmp_path / "old.pth").tensors, "old")
    assert same(loaded, transformer)


def test_training_checkpoint_and_its_average(transformer: InfinityTransformer, tmp_path: Path) -> None:
    average = {
        k: v + 1 if v.is_floating_point() and "zero_k" not in k else v for k, v in transformer.state_dict().items()
    }
    path = tmp_path / "ar-ckpt.pth"
    torch.save({"trainer": {"gpt_fsdp": transformer.state_dict(), "gpt_ema_fsdp": average}, "epoch": 3}, path)
    with pytest.warns(UserWarning, match="gpt_fsdp was taken; it also holds trainer.gpt_ema_fsdp"):
        assert same(fill(empty(CONFIG), path), transformer)
    with pytest.warns(UserWarning, match="gpt_ema_fsdp was taken"):
        assert torch.equal(fill(empty(CONFIG), path, ema=True).head.bias, transformer.head.bias + 1)
    asked = fill(empty(CONFIG), tmp_path / "ar-ckpt.pth#trainer.gpt_ema_fsdp")
    assert torch.equal(asked.head.bias, transformer.head.bias + 1)
    refused(lambda: fill(empty(CONFIG), tmp_path / "ar-ckpt.pth#other"), "no part 'other'", "trainer.gpt_fsdp")
    torch.save({"trainer": {"gpt_fsdp": transformer.state_dict()}}, path)
    refused(lambda: fill(empty(CONFIG), path, ema=True), "no averaged", "gpt_fsdp")
    torch.save({"trainer": {"gpt_ema_fsdp": average}}, path)
    stored = choose(read(path), empty(CONFIG).state_dict())
    assert stored.label == "ar-ckpt.pth#trainer.gpt_ema_fsdp"
    assert torch.equal(stored.tensors["head.bias"], transformer.head.bias + 1)


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_sharded_folder(transformer: InfinityTransformer, tmp_path: Path, kind: str) -> None:
    shards: list[dict[str, Tensor]] = [{}, {}]
    places = {}
    base, index = ("pytorch_model", "pytorch_model.bin") if kind == "bin" else ("model", "model.safetensors")
    for i, (name, tensor) in enumerate(transformer.state_dict().items()):
        shards[i % 2][name] = tensor
        places[name] = f"{base}-{i % 2 + 1:05d}-of-00002.{kind}"
    for i, shard in enumerate(shards):
        path = tmp_path / f"{base}-{i + 1:05d}-of-00002.{kind}"
        torch.save(shard, path) if kind == "bin" else save_file(shard, path)
    (tmp_path / f"{index}.index.json").write_text(json.dumps({"weight_map": places}))
    stored = read(tmp_path)
    loaded = empty(CONFIG)
    load_into(loaded, stored.tensors, stored.label)
    assert stored.label == tmp_path.name
    assert same(loaded, transformer)
    (tmp_path / f"{index}.index.json").write_text(json.dumps({"weight_map": {**places, "extra": path.name}}))
    refused(lambda: read(tmp_path), "disagree", "extra")
    path.unlink()
    refused(lambda: read(tmp_path), "lacks 1 of 2", path.name)
    (tmp_path / f"{index}.index.json").write_text("{}")
    refused(lambda: read(tmp_path), "weight_map")


@pytest.mark.parametrize("short", [False, True])
def test_vae_file_in_both_spellings(tokenizer: BSQTokenizer, tmp_path: Path, short: bool) -> None:
    def spell(name: str) -> str:
        for wrapper in (".conv", ".norm"):
            for end in (".weight", ".bias"):
                name = name.replace(wrapper + end, end) if short else name
        return name

    plain = {spell(k): v for k, v in tokenizer.state_dict().items() if not (short and k.endswith("lfq.mask"))}
    assert short == ("decoder.up.2.upsample.conv.weight" in plain)
    path = tmp_path / "vae.pth"
    torch.save({"vae": plain, "ema": {k: v * 2 if v.is_floating_point() else v for k, v in plain.items()}}, path)
    with pytest.warns(UserWarning, match="vae was taken; it also holds ema"):
        loaded, half = fill(empty(TOKENIZER), path), fill(empty(TOKENIZER), path, "bf16")
    with pytest.warns(UserWarning, match="ema was taken"):
        average = fill(empty(TOKENIZER), path, ema=True)
    assert same(loaded, tokenizer)
    assert torch.equal(average.decoder.conv_in.conv.bias, 2 * tokenizer.decoder.conv_in.conv.bias)
    assert half.decoder.conv_in.conv.weight.dtype == torch.bfloat16
    assert half.decoder.norm_out.norm.weight.dtype == torch.float32
    assert half.quantizer.lfq.mask.tolist() == [128, 64, 32, 16, 8, 4, 2, 1]


def test_one_tensor_in_both_spellings_is_ambiguous(tokenizer: BSQTokenizer) -> None:
    twice = {**tokenizer.state_dict(), "decoder.conv_in.weight": tokenizer.decoder.conv_in.conv.weight}
    refused(lambda: load_into(empty(TOKENIZER), twice, "vae"), "1 unexpected (decoder.conv_in.weight)")


def test_null_text_is_cut_never_made_up(transformer: InfinityTransformer) -> None:
    loaded = empty(replace(CONFIG, text_length=5))
    load_into(loaded, transformer.state_dict(), "flat")
    assert torch.equal(loaded.cfg_uncond, transformer.cfg_uncond[:5])
    longer = empty(replace(CONFIG, text_length=20))
    refused(lambda: load_into(longer, transformer.state_dict(), "flat"), "16 rows", "reads 20", "text_length=16")


# Refusals


def test_all_that_does_not_fit_in_one_error(transformer: InfinityTransformer) -> None:
    tensors = dict(transformer.state_dict())
    for name in [n for n in tensors if n.startswith("block_chunks.1.")]:
        del tensors[name]
    tensors["stranger"] = torch.zeros(2)
    tensors["head.bias"] = torch.zeros(9)
    text = refused(
        lambda: load_into(empty(CONFIG), tensors, "half.pth"),
        "half.pth does not fit this InfinityTransformer",
        "1 unexpected (stranger)",
        "1 of another shape (head.bias 9 for 16)",
        "38 missing (block_chunks.1.module.*.ada_gss (2)",
        "depth 2, width 96 and 8 bits",
        "a size of no known model",
    )
    assert "and 28 more" in text and len(text) < 700


def test_another_spelling_is_named(transformer: InfinityTransformer) -> None:
    tensors = {name.replace("mat_qkv", "mat_qkvs"): tensor for name, tensor in transformer.state_dict().items()}
    refused(
        lambda: load_into(empty(CONFIG), tensors, "x"),
        "4 missing (block_chunks.*.module.*.sa.mat_qkv.weight (4))",
        "block_chunks.0.module.0.sa.mat_qkvs.weight for block_chunks.0.module.0.sa.mat_qkv.weight?",
    )


def test_integer_weights_are_refused(transformer: InfinityTransformer) -> None:
    tensors = {**transformer.state_dict(), "head.bias": torch.zeros(16, dtype=torch.int64)}
    refused(lambda: load_into(empty(CONFIG), tensors, "x"), "1 of another kind of number (head.bias int64 for float32)")


def test_changed_constants_are_refused(transformer: InfinityTransformer, tokenizer: BSQTokenizer) -> None:
    name = "block_chunks.0.module.0.sa.zero_k_bias"
    refused(lambda: load_into(empty(CONFIG), {**transformer.state_dict(), name: torch.ones(96)}, "x"), name, "constant")
    mask = {**tokenizer.state_dict(), "quantize.lfq.mask": torch.arange(8)}
    refused(lambda: load_into(empty(TOKENIZER), mask, "x"), "quantize.lfq.mask")


def test_likely_causes(transformer: InfinityTransformer, tokenizer: BSQTokenizer) -> None:
    def cause(module: nn.Module, tensors: dict[str, Tensor], *words: str) -> None:
        refused(lambda: load_into(module, tensors, "x"), *words)

    parts = {name: registry.empty(registry.MODELS[name]) for name in ("infinity-2b", "infinity-8b")}
    big, small = parts["infinity-8b"].transformer, parts["infinity-2b"].transformer
    zeros = {k: torch.zeros(1).expand(v.shape) for k, v in big.state_dict().items()}
    cause(small, zeros, "the size of infinity-8b and infinity-8b-512", "168 unexpected", "depth 40")
    images = {k: torch.zeros(1).expand(v.shape) for k, v in parts["infinity-8b"].tokenizer.state_dict().items()}
    cause(small, images, "a tokenizer of 14 bits and stride 8", "infinity-8b")
    cause(empty(TOKENIZER), transformer.state_dict(), "a transformer of depth 4")
    single = {k.replace("block_chunks.0.module", "blocks"): v for k, v in transformer.state_dict().items()}
    cause(empty(CONFIG), {k: v for k, v in single.items() if "chunks" not in k}, "block_chunks=1")
    cause(empty(CONFIG), {"encoder.block.0.layer.0.weight": torch.zeros(1)}, "T5")
    cause(empty(CONFIG), {"transformer.pos_start": torch.zeros(1)}, "mini")
    cause(empty(CONFIG), {"conv1.weight": torch.zeros(1)}, "no file of the Infinity or VAR family")


class Harmful:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_with_code_are_refused(tmp_path: Path) -> None:
    path, witness = tmp_path / "bad.pth", tmp_path / "witness"
    torch.save({"head.weight": torch.zeros(1), "args": Harmful(witness)}, path)
    refused(lambda: read(path), "refused", "posix.system", "any code", "weights_only=False")
    torch.save({"trainer": {"gpt_fsdp": {}}, "args": argparse.Namespace(depth=4)}, path)
    refused(lambda: read(path), "refused", "argparse.Namespace")
    path.write_bytes(pickle.dumps(Harmful(witness), protocol=2))
    refused(lambda: read(path), "refused", "posix.system")
    path.write_bytes(pickle.dumps(Harmful(witness), protocol=4))
    assert "weights_only" not in refused(lambda: read(path), "Nothing of it was run")
    assert not witness.exists()


def test_files_that_are_no_weights(transformer: InfinityTransformer, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(transformer.state_dict(), whole)
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        refused(lambda name=name: read(tmp_path / name), name)
    head = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    for name, content, words in (
        ("text.pth", b"not a checkpoint", "'not a checkpoint'"),
        ("lfs.pth", head.encode(), "git lfs pull"),
        ("lfs.safetensors", head.encode(), "git lfs pull"),
        ("page.pth", b"\n<!DOCTYPE html><html>", "HTML"),
        ("page.safetensors", b"<html>", "HTML"),
        ("said.bin", b'{"error": "Repository not found"}', "text"),
        ("empty.pth", b"", "0 bytes"),
        ("zeros.ckpt", bytes(9000), "not complete"),
        ("packed.pt", gzip.compress(b"x" * 99), "gzip"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(lambda name=name: read(tmp_path / name), name, words)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    refused(lambda: read(tmp_path / "list.pth"), "list", "not named tensors")
    torch.save({"step": 3, "module": {}}, tmp_path / "own.pth")
    refused(lambda: read(tmp_path / "own.pth"), "module, step", "no tensors")
    (tmp_path / "folder").mkdir()
    refused(lambda: read(tmp_path / "folder"), "holds no weights", "index.json")
    refused(lambda: read(tmp_path / "nowhere.pth"), "does not exist")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_refused_never_a_traceback(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({f"a.{i}": torch.zeros(4) for i in range(6)}, path, _use_new_zipfile_serialization=zipped)
    whole, random = path.read_bytes(), Random(0)
    refusals = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[random.randrange(600)] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except VarlabError:
            refusals += 1
    assert refusals > 50


# Finding files


def test_locate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "infinity_2b_reg.pth"
    file.touch()
    assert locate(file) == file
    assert locate(tmp_path, "infinity_2b_reg.pth") == file
    assert locate(tmp_path, "other.pth") == tmp_path
    assert locate(f"{file}#trainer.ema") == tmp_path / "infinity_2b_reg.pth#trainer.ema"
    refused(lambda: locate(f"{tmp_path}/none.pth#trainer.ema"), "none.pth does not exist")
    refused(lambda: locate("weights/infinity_2b_reg.pth"), "does not exist")
    refused(lambda: locate(tmp_path / "a" / "b"), "does not exist")
    refused(lambda: locate("FoundationVision/Infinity"), "is not here", "no file in it")
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(places, "from_hub", lambda *place: asked.append(place) or file)
    assert locate("FoundationVision/Infinity", "infinity_8b_weights") == file
    assert locate("FoundationVision/Infinity/sub/x.pth") == file
    assert asked == [("FoundationVision/Infinity", "infinity_8b_weights"), ("FoundationVision/Infinity", "sub/x.pth")]


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv("VARLAB_CHECKPOINTS", str(tmp_path))
    for file in ("infinity_2b_reg.pth", "infinity_8b_weights"):
        refused(lambda file=file: locate("FoundationVision/Infinity", file), str(tmp_path / file), "Without a network")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/x.pth")
    assert locate("FoundationVision/Infinity", "x.pth") == Path("/cache/x.pth")


# Hash and conversion


def test_hash_sees_every_change(transformer: InfinityTransformer) -> None:
    tensors = transformer.state_dict()
    first = hash_tensors(tensors)
    assert first == hash_tensors(tensors) and len(first) == 16
    hashes = {first}
    for changed in (
        {**tensors, "head.bias": tensors["head.bias"] + 1e-7},
        {**tensors, "head.bias": tensors["head.bias"].bfloat16()},
        {**tensors, "head.bias": tensors["head.bias"][None]},
        {("renamed" if k == "head.bias" else k): v for k, v in tensors.items()},
    ):
        hashes.add(hash_tensors(changed))
    assert len(hashes) == 5
    assert hash_tensors(dict(reversed(tensors.items()))) == first
    laid_out = {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in tensors.items()}
    assert hash_tensors(laid_out) == first
    content = b"a\0torch.float32\0(2,)\0" + struct.pack("<2f", 1.0, 2.0)
    assert hash_tensors({"a": torch.tensor([1.0, 2.0])}) == hashlib.sha256(content).hexdigest()[:16]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    schedule = custom([(1, 1), (2, 2), (4, 4)])
    entry = ModelEntry("tiny", CONFIG, TOKENIZER, lambda *_: schedule, Settings(), "", "tiny.pth", "vae.pth")
    other = replace(entry, name="tiny-512")
    monkeypatch.setattr(registry, "MODELS", registry.Registry([entry, other]))
    return "tiny"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_convert_equals_the_original(
    transformer: InfinityTransformer, tokenizer: BSQTokenizer, tmp_path: Path, tiny: str, precision: str
) -> None:
    sources = {"transformer": tmp_path / "tiny.pth", "tokenizer": tmp_path / "vae.pth"}
    torch.save(transformer.state_dict(), sources["transformer"])
    torch.save({"vae": tokenizer.state_dict()}, sources["tokenizer"])
    for kind, config in (("transformer", CONFIG), ("tokenizer", TOKENIZER)):
        steps: list[tuple[str, int, int]] = []
        target = tmp_path / "made" / f"{kind}.safetensors"
        convert(sources[kind], target, tiny, precision, report=lambda *step, steps=steps: steps.append(step))
        direct, round_trip = fill(empty(config), sources[kind], precision), fill(empty(config), target, precision)
        assert same(direct, round_trip)
        assert {what for what, _, _ in steps} == {"read", "write"}
        assert steps[-1][1] == steps[-1][2] and not list(target.parent.glob("*.part"))
        with safe_open(target, "pt") as file:
            notes = file.metadata()
            assert file.get_tensor(next(iter(file.keys()))) is not None
        assert notes["kind"] == kind and notes["name"] == "tiny" and notes["precision"] == precision
        assert len(notes["source_sha256"]) == 64 and notes["source"] == sources[kind].name
        refused(lambda kind=kind, target=target: convert(sources[kind], target, tiny), "not overwritten")


def test_convert_refuses(transformer: InfinityTransformer, tmp_path: Path, tiny: str) -> None:
    source = tmp_path / "tiny.pth"
    torch.save({k: v for k, v in transformer.state_dict().items() if k != "pos_start"}, source)
    target = tmp_path / "x.safetensors"
    refused(lambda: convert(source, target, tiny), "1 missing (pos_start)")
    refused(lambda: convert(source, target, "tinny"), "tiny")
    refused(lambda: convert(source, target, tiny, "fp64"), "fp32")
    torch.save(transformer.state_dict(), source)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    refused(
        lambda: convert(source, target, tiny, report=lambda what, *_: full() if what == "write" else None), "No space"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pth"]

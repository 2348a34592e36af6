"""Weight files that are refused, found and converted."""

import argparse
import gzip
import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tests.checkpoint_files import CONFIG, empty, fill, same, tokenizer, transformer  # noqa: F401
from tests.minis import TOKENIZER, refused
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityTransformer
from varlab.models.tokenizers.bsq import BSQTokenizer
from varlab.schedules import custom
from varlab.weights import places, registry
from varlab.weights.convert import convert
from varlab.weights.fitting import load_into
from varlab.weights.official import ModelEntry
from varlab.weights.places import locate
from varlab.weights.reading import read
from varlab.weights.writing import hash_tensors


def test_all_that_does_not_fit_in_one_error(transformer: InfinityTransformer) -> None:
    tensors = dict(transformer.state_dict())
    for name in [n for n in tensors if n.startswith("block_chunks.1.")]:
        del tensors[name]
    tensors["stranger"] = torch.zeros(2)
    tensors["head.bias"] = torch.zeros(9)
    text = refused(
        lambda: load_into(empty(CONFIG), tensors, "half.pth"),
        "half.pth",
        "InfinityTransformer",
        "1 unexpected (stranger)",
        "1 of another shape (head.bias 9 for 16)",
        "38 missing (block_chunks.1.module.*.ada_gss (2)",
        "depth 2, width 96 and 8 bits",
        "no known model",
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
        refused(partial(read, tmp_path / name), name)
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
        refused(partial(read, tmp_path / name), name, words)
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
    asked: list[tuple[str, ...]] = []

    def fetched(*place: str) -> Path:
        asked.append(place)
        return file

    monkeypatch.setattr(places, "from_hub", fetched)
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
        refused(partial(locate, "FoundationVision/Infinity", file), str(tmp_path / file), "Without a network")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/x.pth")
    assert locate("FoundationVision/Infinity", "x.pth") == Path("/cache/x.pth")


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
        assert set(notes) >= {"versions", "git", "date"} and notes["versions"].startswith("varlab ")
        assert len(notes["source_sha256"]) == 64 and notes["source"] == sources[kind].name
        refused(partial(convert, sources[kind], target, tiny), "exists", "overwrite")


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

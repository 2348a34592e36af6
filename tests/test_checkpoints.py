"""Reading weight files: official key lists, every file layout, every way to be refused, conversion, hashes."""

import json
import lzma
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.checkpoint_files import CONFIG, empty, fill, same, tokenizer, transformer  # noqa: F401
from tests.minis import TOKENIZER, refused
from varlab.models.infinity import InfinityTransformer
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.weights import zoo
from varlab.weights.choosing import choose
from varlab.weights.fitting import load_into
from varlab.weights.reading import read

KEYS = Path(__file__).parent / "keys" / "infinity.tsv.xz"
SHARED = Path(__file__).parents[2] / "shared" / "keys"
Rows = dict[str, tuple[str, str, str]]  # key -> shape, dtype, kind


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
    with pytest.warns(UserWarning, match=r"gpt_fsdp.* trainer\.gpt_ema_fsdp"):
        assert same(fill(empty(CONFIG), path), transformer)
    with pytest.warns(UserWarning, match="gpt_ema_fsdp was taken"):
        assert torch.equal(fill(empty(CONFIG), path, ema=True).get_parameter("head.bias"), transformer.head.bias + 1)
    asked = fill(empty(CONFIG), tmp_path / "ar-ckpt.pth#trainer.gpt_ema_fsdp")
    assert torch.equal(asked.get_parameter("head.bias"), transformer.head.bias + 1)
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
    with pytest.warns(UserWarning, match="vae.* ema"):
        loaded, half = fill(empty(TOKENIZER), path), fill(empty(TOKENIZER), path, "bf16")
    with pytest.warns(UserWarning, match="ema was taken"):
        average = fill(empty(TOKENIZER), path, ema=True)
    assert same(loaded, tokenizer)
    bias = "decoder.conv_in.conv.bias"
    assert torch.equal(average.get_parameter(bias), 2 * tokenizer.get_parameter(bias))
    assert half.get_parameter("decoder.conv_in.conv.weight").dtype == torch.bfloat16
    assert half.get_parameter("decoder.norm_out.norm.weight").dtype == torch.float32
    assert half.get_buffer("quantizer.lfq.mask").tolist() == [128, 64, 32, 16, 8, 4, 2, 1]


def test_one_tensor_in_both_spellings_is_ambiguous(tokenizer: BSQTokenizer) -> None:
    twice = {**tokenizer.state_dict(), "decoder.conv_in.weight": tokenizer.get_parameter("decoder.conv_in.conv.weight")}
    refused(lambda: load_into(empty(TOKENIZER), twice, "vae"), "1 unexpected (decoder.conv_in.weight)")


def test_null_text_is_cut_never_made_up(transformer: InfinityTransformer) -> None:
    loaded = empty(replace(CONFIG, text_length=5))
    load_into(loaded, transformer.state_dict(), "flat")
    assert torch.equal(loaded.get_parameter("cfg_uncond"), transformer.cfg_uncond[:5])
    longer = empty(replace(CONFIG, text_length=20))
    refused(lambda: load_into(longer, transformer.state_dict(), "flat"), "16 rows", "reads 20", "text_length=16")


# Refusals


# Finding files


# Hash and conversion

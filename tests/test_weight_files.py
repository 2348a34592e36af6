"""Files that people have: wrappers, folders, number types; what a label may say; weights that no training leaves."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.minis import CONFIG, TOKENIZER, parts, refused
from varlab.models.infinity import InfinityTransformer
from varlab.models.tokenizers.bsq import BSQTokenizer
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARConfig, VARTransformer
from varlab.weight_labels import NAMED, OFFICIAL, WeightsLabel
from varlab.weights import content, pairs
from varlab.weights.choosing import choose
from varlab.weights.content import Content, fault_of
from varlab.weights.fitting import load_into
from varlab.weights.official import OFFICIAL as RELEASES
from varlab.weights.pairs import Part, labelled
from varlab.weights.reading import Checkpoint, read

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return parts()[0].state_dict()


def taken(path: Path, config: Any = CONFIG, kind: type[nn.Module] = InfinityTransformer) -> tuple[nn.Module, str]:
    """The module with what was chosen of a file, and the part's name."""
    with torch.device("meta"):
        module = kind(config)
    chosen = choose(read(path), module.state_dict())
    load_into(module, chosen.tensors, chosen.label)
    return module, chosen.part


def under(prefix: str, tensors: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


WRAPPERS: dict[str, tuple[Callable[[State], Any], str]] = {
    "state_dict": (lambda s: {"state_dict": s, "epoch": 3}, "state_dict"),
    "model": (lambda s: {"model": s}, "model"),
    "model in state_dict": (lambda s: {"state_dict": {"model": s}}, "state_dict.model"),
    "module.": (lambda s: under("module.", s), "module"),
    "compiled and parallel": (lambda s: under("module._orig_mod.", s), "module"),
    "compiled blocks": (lambda s: {n.replace(".sa.", "._orig_mod.sa."): t for n, t in s.items()}, ""),
    "trainer": (lambda s: {"trainer": {"net": s, "net_opt": {"state": {0: {"m": s["head.bias"]}}}}}, "trainer.net"),
    "ema alone": (lambda s: {"ema": under("module.", s)}, "ema.module"),
    "lightning": (
        lambda s: {"state_dict": under("model.", s) | under("loss.", {"logvar": torch.zeros(1)}),
                   "optimizer_states": [{"state": {}}], "callbacks": {}, "pytorch-lightning_version": "2.2"},
        "state_dict.model",
    ),
    "a name that nobody knows": (lambda s: {"my_net": under("inner.", s)}, "my_net.inner"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("suffix", ["pth", "ckpt", "pt"])
def test_wrappers_are_read_and_named(state: State, tmp_path: Path, name: str, suffix: str) -> None:
    wrap, part = WRAPPERS[name]
    path = tmp_path / f"x.{suffix}"
    torch.save(wrap(state), path)
    module, found = taken(path)
    assert found == part
    assert all(torch.equal(tensor, state[key]) for key, tensor in module.state_dict().items())


def test_trained_weights_come_before_averaged_ones_and_it_is_said(state: State, tmp_path: Path) -> None:
    other = {name: t + 1 if name == "head.bias" else t for name, t in state.items()}
    torch.save({"model": state, "model_ema": other}, tmp_path / "x.pt")
    with pytest.warns(UserWarning, match="model.* model_ema"):
        assert torch.equal(taken(tmp_path / "x.pt")[0].get_parameter("head.bias"), state["head.bias"])
    assert torch.equal(taken(tmp_path / "x.pt#model_ema")[0].get_parameter("head.bias"), other["head.bias"])
    torch.save({"a": state, "b": other}, tmp_path / "x.pt")
    refused(lambda: taken(tmp_path / "x.pt"), "holds a, b, equally good", "x.pt#a")
    torch.save({"a": state, "b": dict(state)}, tmp_path / "x.pt")  # the same twice is no choice
    with pytest.warns(UserWarning, match="a was taken"):
        taken(tmp_path / "x.pt")


def test_a_training_checkpoint_of_var_serves_for_both_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VARConfig(2, 32, 2, codes=16, code_width=4, classes=5, sides=(1, 2, 3))
    images = VQConfig(16, 4, channels=8, multipliers=(1, 2), norm_groups=4)
    transformer, tokenizer = VARTransformer(config), VQTokenizer(images)
    saved = {"var_wo_ddp": transformer.state_dict(), "vae_local": tokenizer.state_dict(),
             "var_opt": {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}}  # fmt: skip
    torch.save({"epoch": 1, "iter": 0, "trainer": saved, "args": {"depth": 2}}, tmp_path / "ar-ckpt-best.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no choice, nothing to warn of
        first, part = taken(tmp_path / "ar-ckpt-best.pth", config, VARTransformer)
        second, images_part = taken(tmp_path / "ar-ckpt-best.pth", images, VQTokenizer)
    assert (part, images_part) == ("trainer.var_wo_ddp", "trainer.vae_local")
    assert all(torch.equal(t, transformer.state_dict()[k]) for k, t in first.state_dict().items())
    assert all(torch.equal(t, tokenizer.state_dict()[k]) for k, t in second.state_dict().items())


NAMES = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors", "model.fp16.safetensors",
         "diffusion_pytorch_model.bin", "last.ckpt")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_one_file(state: State, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    assert all(torch.equal(t, state[key]) for key, t in taken(tmp_path)[0].state_dict().items())


def test_an_index_of_diffusers_and_folders_that_do_not_say(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "diffusion_pytorch_model-00001-of-00001.safetensors")
    places = dict.fromkeys(state, "diffusion_pytorch_model-00001-of-00001.safetensors")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    for source in (tmp_path, index):
        assert all(torch.equal(t, state[key]) for key, t in taken(source)[0].state_dict().items())
    index.unlink()
    torch.save(state, tmp_path / "other.pth")
    refused(lambda: read(tmp_path), "2 weight files", "other.pth", "Give one")
    (tmp_path / "above").mkdir()
    tmp_path.joinpath("other.pth").rename(tmp_path / "above" / "other.pth")
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    refused(lambda: read(tmp_path), "holds no weights", "Its folders above do")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types(state: State, tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({name: t.to(dtype) for name, t in state.items()}, tmp_path / "x.pth")
    module = taken(tmp_path / "x.pth")[0]
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, state[name].to(dtype).float())


# Labels


def part(name: str, hash: str = "0" * 16, fault: str = "") -> Part:
    return Part(Checkpoint((Path(name),), {}), Content(hash, fault))


ENTRY = next(entry for entry in RELEASES if entry.name == "infinity-2b")


@pytest.mark.parametrize("file", ["infinity_vae_d16.pth", "infinity_vae_d32.pth", "mine.pth"])
def test_a_foreign_tokenizer_is_said(file: str) -> None:
    with pytest.warns(UserWarning, match="no released pair.*infinity_2b_reg.pth"):
        label = labelled(ENTRY, part("infinity_2b_reg.pth"), part(file))
    assert label.kind == NAMED and label.doubts == ("no released pair: the tokenizer is not infinity_vae_d32reg.pth",)


def test_a_name_alone_is_never_official(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = part("infinity_2b_reg.pth", "a" * 16), part("infinity_vae_d32_reg.safetensors", "b" * 16)
    label = labelled(ENTRY, *pair)
    assert (label.kind, label.doubts) == (NAMED, ()) and label.content["transformer"] == "a" * 16
    monkeypatch.setattr(pairs, "KNOWN", {"a" * 16: "infinity_2b_reg.pth", "b" * 16: "infinity_vae_d32reg.pth"})
    renamed = part("x.bin", "a" * 16), part("y.bin", "b" * 16)
    assert labelled(ENTRY, *pair).kind == labelled(ENTRY, *renamed).kind == OFFICIAL
    assert WeightsLabel(str(labelled(ENTRY, *pair))).kind == OFFICIAL  # as a log has it
    with pytest.warns(UserWarning, match="infinity_2b_reg.pth is the released file of infinity-2b"):
        labelled(next(e for e in RELEASES if e.name == "infinity-125m"), *pair)


def test_weights_that_no_training_leaves_are_said() -> None:
    module = parts()[0]
    tensors = module.state_dict()
    assert fault_of(tensors) == ""
    assert "all" in (words := fault_of({n: torch.full_like(t, 0.5) for n, t in tensors.items()}))
    assert "constant" in words
    assert "zero" in fault_of({n: torch.zeros_like(t) for n, t in tensors.items()})
    for value in (torch.nan, torch.inf):
        assert fault_of({**tensors, "head.bias": torch.full((16,), value)}).startswith("1 tensors hold NaN or infinite")
    with pytest.warns(UserWarning, match="9 weight matrices"):
        label = labelled(ENTRY, part("infinity_2b_reg.pth", fault="all 9 weight matrices are zero"),
                         part("infinity_vae_d32reg.pth"))  # fmt: skip
    assert "transformer: all 9 weight matrices are zero" in label.doubts


def test_the_content_of_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "LARGE", 0)
    monkeypatch.setenv("VARLAB_CACHE", str(tmp_path / "cache"))
    module, file = BSQTokenizer(TOKENIZER), tmp_path / "vae.pth"
    torch.save(module.state_dict(), file)
    first = content.content_of(module, (file,))
    monkeypatch.setattr(content, "_computed", lambda _: pytest.fail("computed again"))
    assert content.content_of(module, (file,)) == first
    monkeypatch.undo()
    assert content.content_of(module.half().float(), (file,)).hash != ""

"""fp16, for GPUs without bf16: near to fp32, chosen where bf16 is emulated, and what passes its range is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import varlab as vl
from varlab.cli import app
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.tokenizers.vqvae import Attention
from varlab.weights import options, precision
from varlab.weights.fitting import load_into
from varlab.weights.registry import find

PROMPTS = {"nano-infinity": "a red star", "mini-hart": "a red star", "mini-var": "3"}
LARGEST = torch.finfo(torch.float16).max


class Logits(Probe):
    """Conditional logits and labels of every stage."""

    def __init__(self) -> None:
        self.cond: list[Tensor] = []
        self.labels: dict[int, Tensor] = {}

    def on_logits(self, stage: Any, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None) -> None:
        assert labels is not None
        self.cond.append(cond)
        self.labels[stage.index] = labels


def drawn(model: NextScaleModel[Any, Any, Any], prompt: str, forced: dict[int, Tensor]) -> tuple[Logits, Tensor]:
    """HART without its mixtures of codes, which jump where a logit passes a threshold."""
    probe, text = Logits(), [prompt]
    settings = replace(model.settings, smooth=False) if model.family == "hart" else model.settings
    read = model.read_prompts(text) if hasattr(model, "read_prompts") else text
    out = Run(model, settings, SeededNoise(0), [probe], forced=forced).generate(read, [0])
    return probe, out.image


@pytest.mark.parametrize("name", PROMPTS)
def test_logits_are_near_to_those_of_fp32_and_four_times_nearer_than_in_bf16(name: str) -> None:
    """On the same labels. fp16 has three more bits of mantissa than bf16."""
    whole, _ = drawn(vl.load(name), PROMPTS[name], {})
    errors = {}
    for kind in ("fp16", "bf16"):
        model = vl.load(name, precision=kind)
        assert model.precision == kind
        found, image = drawn(model, PROMPTS[name], whole.labels)
        pairs = list(zip(found.cond, whole.cond, strict=True))
        errors[kind] = max(float((own - other).abs().max() / other.abs().max()) for own, other in pairs)
        assert all(own.dtype == torch.float32 and own.isfinite().all() for own, _ in pairs) and image.isfinite().all()
    assert errors["fp16"] < 0.005 and errors["fp16"] < errors["bf16"] / 4


@pytest.mark.parametrize("name", PROMPTS)
def test_what_a_model_multiplies_stays_far_below_the_largest_number(name: str) -> None:
    """Of the weights that ship: those of the official models were not seen."""
    model = vl.load(name)
    seen: list[float] = []
    for module in (*model.transformer.modules(), *model.tokenizer.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _, given, out: seen.extend(map(largest, (given[0], out))))
    drawn(model, PROMPTS[name], {})
    assert len(seen) > 100 and max(seen) < LARGEST / 32


def largest(x: Tensor) -> float:
    return float(x.abs().max())


@pytest.mark.parametrize(("part", "where"), [("transformer", "stage 1"), ("decoder", "the decoder")])
def test_a_run_that_passes_the_largest_number_is_refused(part: str, where: str) -> None:
    model = vl.load("nano-infinity", precision="fp16")
    layer = model.blocks[3].ffn.fc1 if part == "transformer" else model.tokenizer.decoder.conv_in.conv
    layer.bias.data.fill_(6e4)
    layer.weight.data.mul_(200)
    with pytest.raises(VarlabError, match=f"nano-infinity passes the largest number of fp16, 65504, in {where}: take"):
        vl.sample(model, ["a red star"])


def test_weights_that_fp16_cannot_hold_are_refused() -> None:
    module = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)]), "head": nn.Linear(2, 2)})
    tensors = {name: torch.full(tensor.shape, 1e5) for name, tensor in module.state_dict().items()}
    load_into(module, tensors, "file.pth", "bf16")
    with pytest.raises(VarlabError, match=r"file.pth holds numbers that fp16 cannot \(blocks.0.bias, blocks.0.weight"):
        load_into(module, tensors, "file.pth", "fp16")


@torch.inference_mode()
def test_attention_of_a_decoder_whose_products_pass_the_largest_number() -> None:
    torch.manual_seed(0)
    layer, x = Attention(64, 32).eval(), torch.randn(1, 64, 4, 4)
    layer.qkv.weight.mul_(200)
    q, k, _ = layer.qkv(layer.norm(x)).flatten(2).chunk(3, 1)
    assert float((q.mT @ k).abs().max()) > LARGEST and largest(q) < LARGEST
    halved = layer.half()(x.half())
    assert halved.isfinite().all() and halved.dtype == torch.float16


@pytest.mark.parametrize(
    ("name", "bf16", "gain", "expected"),
    [
        ("infinity-2b", False, 4.0, "fp16"),
        ("infinity-2b", False, 0.5, "fp32"),
        ("infinity-2b", True, 4.0, "bf16"),
        ("nano-infinity", False, 4.0, "fp16"),
    ],
)
def test_auto_takes_fp16_on_a_gpu_that_only_emulates_bf16(
    name: str, bf16: bool, gain: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = {"bf16" if bf16 else "fp16": gain}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(precision, "gain", lambda device, kind: gains[kind])
    assert precision.chosen(find(name), "auto", "random", "cuda:0")[0] == expected


def test_bf16_on_such_a_gpu_is_refused_with_fp16_as_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "usable", torch.device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for kind, said in {
        "bf16": "Tesla T4 has no bf16: take precision fp16",
        "bf16-weights": "take fp16 or fp32",
    }.items():
        with pytest.raises(VarlabError, match=said):
            vl.load("nano-infinity", device="cuda", precision=kind)


def test_an_estimate_for_a_gpu_without_bf16_is_in_fp16() -> None:
    said = CliRunner().invoke(app, ["estimate", "nano-infinity", "--device", "t4"])
    assert said.exit_code == 0 and "fp16, NVIDIA T4" in " ".join(said.output.split())

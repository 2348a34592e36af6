"""int8 weights by torchao: another model that says so everywhere; without the library they are refused."""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

import varlab as vl
from varlab.errors import VarlabError
from varlab.models import quantised
from varlab.models.quantised import is_quantised, label
from varlab.runs import Job
from varlab.runs.provenance import provenance
from varlab.weight_labels import CHECKPOINT, NAMED, OFFICIAL, RANDOM, TRAINED, WeightsLabel

here = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
PROMPTS = {"nano-infinity": "a red star", "mini-hart": "a red star", "mini-var": "3"}


def held_bytes(weight: Any) -> int:
    """Of memory that a tensor really takes."""
    parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]] if is_quantised(weight) else [weight]
    return sum(part.numel() * part.element_size() for part in parts)


def test_without_the_library_it_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    monkeypatch.setattr("varlab.weights.zoo.embedded.load_mini", None)
    with pytest.raises(
        VarlabError, match=r"precision int8 needs torchao\. In the repository: pip install -e \.\[int8\]"
    ):
        vl.load("nano-infinity", precision="int8")


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        (WeightsLabel.of(OFFICIAL, "infinity_2b_reg.pth", content={"transformer": "ab"}), CHECKPOINT),
        (WeightsLabel.of(NAMED, "infinity_2b_reg.pth"), CHECKPOINT),
        (WeightsLabel.of(TRAINED, "varlab mini-infinity, ab"), TRAINED),
        (WeightsLabel.of(RANDOM, "seed 0"), RANDOM),
    ],
)
def test_the_label_is_never_that_of_the_unquantised_weights(
    weights: WeightsLabel, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModuleType("torchao")
    library.__version__ = "0.18.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchao", library)
    made = label(weights)
    assert made != weights and made.kind == kind and made.content == weights.content
    assert "int8 by torchao 0.18.0" in made and str(weights) in made


@here
@pytest.mark.parametrize("name", PROMPTS)
def test_the_blocks_alone_are_quantised_and_every_record_says_so(name: str) -> None:
    whole, small = vl.load(name), vl.load(name, precision="int8")
    assert small.precision == "int8" and "int8 on cpu" in repr(small) and "int8 by torchao" in small.weights
    pairs = list(zip(whole.transformer.named_parameters(), small.transformer.parameters(), strict=True))
    for (key, plain), held in pairs:
        matrix = key.startswith(("block_chunks.", "blocks.")) and key.endswith(".weight") and plain.ndim == 2
        assert is_quantised(held) is matrix
        if is_quantised(held):
            assert held_bytes(held) < 0.3 * held_bytes(plain)
            step = plain.abs().amax(1, keepdim=True) / 127
            assert bool(((held.dequantize() - plain).abs() <= 0.51 * step).all())  # type: ignore[operator]
    first, second = (provenance(Job(model, (PROMPTS[name],), model.settings), "one") for model in (whole, small))
    assert all(first[fact] != second[fact] for fact in ("precision", "weights"))
    pictures = [vl.sample(model, [PROMPTS[name]]).images[0].tobytes() for model in (whole, small)]
    assert pictures[0] != pictures[1]

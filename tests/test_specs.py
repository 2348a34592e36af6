"""Specs: what is read is what is written, for every registered method and probe."""

from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import text_for, tiny_infinity
from tests.minis import refused
from varlab.accelerators import ACCELERATORS, build
from varlab.accelerators.decisions import DecisionModel, always
from varlab.accelerators.fastvar import FastVAR
from varlab.accelerators.skipvar import SkipVAR
from varlab.accelerators.sparsevar import Readings, SparseVAR
from varlab.engine.hooks import Accelerator
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.errors import VarlabError
from varlab.probes import PROBES
from varlab.specs import make, option, options_of, spec_of, written

KINDS: dict[str, type] = {name: entry.kind for name, entry in ACCELERATORS.items()} | dict(PROBES)
SHARE = st.floats(0.01, 0.99, allow_nan=False)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an option's type that a method may well take."""
    if get_origin(kind) in (Union, UnionType):
        return st.one_of(*[values(part) for part in get_args(kind) if part is not DecisionModel])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        return st.lists(values(get_args(kind)[0]), min_size=1, max_size=4).map(tuple)
    text = st.sampled_from(["12x5/6x5", "6", "runs/some folder/skipvar.json"])
    plain: dict[Any, st.SearchStrategy[Any]] = {
        NoneType: st.none(), bool: st.booleans(), int: st.integers(1, 4), float: SHARE, str: text
    }  # fmt: skip
    return plain[kind]


@st.composite
def plugins(draw: st.DrawFn) -> Any:
    """A registered method or probe with any options that it accepts."""
    name = draw(st.sampled_from(sorted(KINDS)))
    known = options_of(KINDS[name])
    groups = {item.group for item in known.values()}
    chosen = {
        key: draw(values(item.kind))
        for key, item in known.items()
        if key not in groups and (item.default is MISSING or draw(st.booleans()))
    }
    alone = {key: value for key, value in chosen.items() if known[key].group is None}
    grouped = {key: value for key, value in chosen.items() if known[key].group}
    try:
        return KINDS[name](**alone, **({"readings": Readings(**grouped)} if grouped else {}))
    except VarlabError:  # options that exclude each other
        return make("method", "truncate:last=1", KINDS)


@given(plugins())
@settings(max_examples=300)
def test_what_is_written_reads_back_as_the_same(plugin: Any) -> None:
    again = make("plug-in", spec_of(plugin), KINDS)
    assert type(again) is type(plugin)
    assert written(again) == written(plugin) and spec_of(again) == spec_of(plugin)
    for key, item in options_of(type(plugin)).items():
        if item.group or (get_origin(item.kind) is Literal and key == "readings"):
            continue
        assert getattr(again, key) == getattr(plugin, key), key


def drawn(method: Accelerator) -> tuple[torch.Tensor, str]:
    model = tiny_infinity("long")
    out = Run(model, model.settings, SeededNoise(7)).generate(text_for(model, (3, 5), (0, 1)), (0, 1), [method])
    return out.image, out.ledger.table().to_csv()


@pytest.mark.parametrize("name", [n for n, e in ACCELERATORS.items() if isinstance(e.engaging, str)])
def test_a_method_that_is_read_back_draws_the_same(name: str) -> None:
    (method,) = build([str(ACCELERATORS[name].engaging)])
    (again,) = build([spec_of(method)])
    try:
        (image, work), (same, same_work) = drawn(method), drawn(again)
    except VarlabError as error:  # a family that cannot run it refuses both
        assert str(error) == refused(lambda: drawn(again))
        return
    assert torch.equal(image, same) and work == same_work
    assert written(method) == written(again)  # nothing of the run has entered the options


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FastVAR(ratios=(0.4, 0.5)), FastVAR(ratios=(0.1, 0.9))),
        (SparseVAR(keep=(0.3, 0.2), last=2), SparseVAR(keep=(0.3, 0.3), last=2)),
        (SparseVAR(keep=(0.3,), last=1), SparseVAR(keep=0.3, last=2)),
        (SparseVAR(readings=Readings(keys="weighted")), SparseVAR()),
        (SkipVAR(model="a.json"), SkipVAR(model="b.json")),
    ],
)
def test_methods_that_differ_are_told_apart(one: Accelerator, other: Accelerator) -> None:
    assert spec_of(one) != spec_of(other) and written(one) != written(other)


def test_defaults_are_written_and_shorthand_is_the_same_method() -> None:
    (given_all, plain) = build(["sparsevar:tau=none,alpha=4,last=3"]), build(["sparsevar"])
    assert written(given_all[0]) == written(plain[0]) and spec_of(given_all[0]) == "sparsevar"
    assert written(plain[0])["alpha"] == "4" and written(plain[0])["norm"] == "mean"
    preset, single = build(["sparsevar:readings=duplicated"]), build(["sparsevar:keys=weighted"])
    assert written(preset[0]) == written(single[0])


class Own(Accelerator):
    """A method with a constructor of its own."""

    name = "own"

    def __init__(self, keep: float) -> None:
        self.keep = keep


@dataclass(eq=False)
class Labelled(Accelerator):
    name = "labelled"
    text: str = option("", "any text")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (SkipVAR(model=always(0, 1)), ("skipvar: model", "DecisionModel")),
        (Own(0.5), ("Own", "dataclass")),
        (Labelled("a,b"), ("labelled: text", "a,b")),
        (Labelled(" a"), ("labelled: text",)),
    ],
)
def test_what_cannot_be_written_down_is_refused_by_name(method: Accelerator, words: tuple[str, ...]) -> None:
    refused(lambda: spec_of(method), *words)


def test_mistakes_in_a_spec_are_named() -> None:
    refused(lambda: build(["truncate:last=1,last=2"]), "last", "twice")
    refused(lambda: build(["truncate"]), "lacks last")
    refused(lambda: build(["sparsevar:norn=max"]), "norn", "norm")
    refused(lambda: build(["sparsevar:norm=maximum"]), "max")


def test_every_option_has_help_and_choices() -> None:
    for kind in KINDS.values():
        for item in options_of(kind).values():
            assert item.help and item.choices, (kind, item.name)

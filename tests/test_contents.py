"""Runs whose weights or files differ under one name are runs of their own: no kept result is taken for another's."""

from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import varlab as vl
from tests.minis import TEN_STAGES, make_encoder, make_mini, parts, refused
from tests.test_attach_folder import Fork
from tests.test_benchmark_folders import drawing
from tests.zoo_files import places, tiny  # noqa: F401
from varlab import report_inputs
from varlab.accelerators.decisions import always, save
from varlab.comparison.bench import identities
from varlab.evaluation.contract import Item
from varlab.evaluation.generation import check, generate, kept_at
from varlab.models.base import NextScaleModel
from varlab.models.text import FlanT5
from varlab.report_inputs import digests
from varlab.runs.dense import Batch
from varlab.runs.folders import run_key
from varlab.runs.job import Job
from varlab.runs.provenance import record_of
from varlab.sweeps.file import read_plan
from varlab.sweeps.shards import shards_of
from varlab.weights import registry

TEXTS = ("a red star",)
NANO = vl.load("nano-infinity")


def write(place: Path, change: float = 0.0, seed: int = 5) -> None:
    """Official files of one name, and where to look for them; ``change`` is lost when it is rounded to bf16."""
    transformer, tokenizer, _ = parts(seed)
    tensors = {name: value.clone() for name, value in transformer.state_dict().items()}
    next(value for name, value in tensors.items() if name.endswith("ffn.fc1.weight"))[0, 0] *= 1 + change
    torch.save(tensors, place / "checkpoints" / "tiny.pth")
    torch.save(tokenizer.state_dict(), place / "checkpoints" / "vae.pth")


def key_of(model: NextScaleModel, *methods: str) -> str:
    return str(record_of(Job(model, TEXTS, model.settings, accelerators=methods), "custom", 1)["key"])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("other", [{"seed": 6}, {"change": 1e-4}])
def test_two_files_of_one_name_share_nothing(places: Path, monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    monkeypatch.chdir(places)
    monkeypatch.setattr("varlab.report_inputs.MODELS", registry.MODELS)
    found, plan = [], {"models": ["tiny"], "specs": ["truncate:last=1"], "prompts": [{"set": "scenes", "n": 1}]}
    changes: list[Any] = [{}, other]
    for change in changes:
        write(places, **change)
        model = vl.load("tiny", text="random")
        logged = vl.log(model, TEXTS, seed=1, probes=[])
        again = drawing(model=model, settings=model.settings)
        names = {shard.name for shard in shards_of(read_plan(plan))}
        batch = Batch(model, model.settings, 0, 0, TEXTS).name
        found.append((logged.encoding["source"], kept_at(again), batch, digests({"model": "tiny"})["tiny"], *names))
    assert len(found[0]) == 6 and not set(found[0]) & set(found[1])
    refused(lambda: vl.log(model, TEXTS, folder=found[0][0], seed=1, probes=[]), "holds another run", "contents")


@pytest.fixture
def decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mini with stages enough for decisions, a prompt that it knows, and where to write the decisions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path / "data"))
    make_mini(tmp_path / "data" / "mini-ten", schedule=TEN_STAGES)
    (tmp_path / "one.txt").write_text("a red star\n")
    return tmp_path / "fitted.json"


def test_a_rewritten_decision_file_is_another_method(decided: Path) -> None:
    model, spec = vl.load("mini-ten"), f"skipvar:model={decided.name}"
    plan = {"models": ["mini-ten"], "specs": [spec], "prompts": ["one.txt"]}
    specs = [spec, "sparsevar:keep=0.5", "sparsevar:keep=0.2"]  # which cannot run together
    item = Item("0000", "a red star", "0000")
    made = drawing(model=model, settings=model.settings, spec=spec, items=[item], per_prompt=1)
    found = []
    for dropped in (0, 2):
        save(decided, {0.86: always(dropped, 0)})
        log = vl.log(model, "one.txt", probes=[], accelerators=[spec])
        names = {shard.name for shard in shards_of(read_plan(plan)) if shard.spec == spec}
        read = digests({"model": "mini-ten", "methods": f"none {spec}"})[decided.name]
        found.append((log.encoding["source"], str(kept_at(made)), *names, read))
        assert log["skipvar/drop"].values[0] == dropped
        if not dropped:
            vl.compare(model, "one.txt", specs, folder="compared", frontier=False)
            generate({Path("pictures"): made})
    assert len(found[0]) == 4 and not set(found[0]) & set(found[1])
    refused(lambda: vl.compare(model, "one.txt", specs, folder="compared", frontier=False), "different: contents")
    refused(lambda: check(made, Path("pictures")), "holds other images", "contents")


def test_another_text_encoder_in_a_folder_of_one_name(tmp_path: Path) -> None:
    make_encoder(tmp_path)
    model = copy(NANO)
    model.text = FlanT5(str(tmp_path))  # type: ignore[assignment]
    before = key_of(model), Batch(model, model.settings, 0, 0, TEXTS).name
    next(tmp_path.glob("*.safetensors")).write_bytes(b"trained on")
    assert not set(before) & {key_of(model), Batch(model, model.settings, 0, 0, TEXTS).name}


def test_an_attached_run_with_another_tokenizer_is_another_run() -> None:
    keys = []
    for shift in (0.0, 1.0):
        fork = Fork()
        with torch.no_grad():
            next(iter(fork.vae.parameters())).add_(shift)
        log = fork.attach(None, seed=7)(fork.generate)(list(TEXTS)).log
        keys.append(run_key(dict[Any, Any](log.attrs)))
    assert keys[0] != keys[1]


def test_learned_measures_are_told_apart_by_their_weights() -> None:
    class Learned:
        def __init__(self, value: float) -> None:
            self.tensors = {"weight": torch.tensor([value])}

    one, two = (identities({"ssim": len, "lpips": Learned(value)}) for value in (1.0, 2.0))  # type: ignore[dict-item]
    assert one[0] == two[0] == "ssim" and one[1] != two[1]


def test_runs_of_minis_keep_their_folders() -> None:
    job = Job(NANO, tuple(vl.prompts("scenes", n=2).texts), NANO.settings, probes=("residual-spectrum",))
    assert record_of(job, "scenes", 2)["key"] == "fdad52cf2f8cd1bd"


def test_inputs_longer_than_a_name_are_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Methods are one text with blanks between; and new evidence is read by reports that name other models."""
    monkeypatch.setattr(report_inputs, "claims_folder", lambda: tmp_path)
    methods = " ".join(f"sparsevar:keep=0.{i},last=3" for i in range(10, 40))
    before = digests({"model": "mini-ten", "methods": methods})
    (tmp_path / "new.csv").write_text("a row")
    after = digests({"model": "mini-ten", "methods": methods})
    assert {name for name in after if before.get(name) != after[name]} == {"claims"}

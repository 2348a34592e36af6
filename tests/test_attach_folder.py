"""Attached runs in run folders: many prompts, resumed, read by all that reads runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import varlab as vl
from tests.conftest import features, tiny_infinity, tiny_var
from tests.minis import refused
from varlab.attached import Attached
from varlab.attached.standins import infinity, var
from varlab.outputs import read_facts
from varlab.runs.states import verify

TEXTS = ["a red star", "a blue ring", "a green star"]


class Fork:
    """A model of others with a user's own function around its sampler."""

    def __init__(self) -> None:
        own = tiny_infinity("odd-tall")
        self.own, self.model, self.vae = own, infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
        self.drawn: list[str] = []
        self.fails_at = ""

    def generate(self, prompt: str) -> None:
        if prompt == self.fails_at:
            raise KeyboardInterrupt
        self.drawn.append(prompt)
        text = features(4, seed=len(prompt))
        self.model.autoregressive_infer_cfg(**infinity.arguments(self.own, text, vae=self.vae, g_seed=7))

    def attach(self, folder: Path | None, **more: Any) -> Attached:
        return vl.attach(self.model, vae=self.vae, folder=folder, **more)


def test_a_decorated_function_draws_many_prompts(tmp_path: Path) -> None:
    fork = Fork()
    run = fork.attach(tmp_path / "run", seed=7, name="my-fork")(fork.generate)(TEXTS)
    log = vl.open_log(tmp_path / "run")
    assert fork.drawn == TEXTS == log.attrs["prompts"]
    assert (log.attrs["source"], log.attrs["model"], log.attrs["seed"]) == ("attached", "my-fork", 7)
    assert log.attrs["seeds"] == [7, 7, 7]
    assert str(verify(tmp_path / "run")) == "complete"
    assert [picture.size for picture in run.images] == [(12, 20)] * 3
    facts = read_facts(tmp_path / "run" / "images" / "000001.png")
    assert (facts["prompt"], facts["seed"], facts["source"]) == (TEXTS[1], 7, "attached")
    in_memory = Fork()
    twin = in_memory.attach(None, seed=7)(in_memory.generate)(TEXTS).log
    for name in map(str, twin["token-mse"].data_vars):
        np.testing.assert_array_equal(log["token-mse"][name].values, twin["token-mse"][name].values)


@pytest.mark.parametrize(("device", "kept"), [("cpu", 1), ("cuda", 0)])
def test_only_beside_a_model_on_a_processor_freed_memory_stays(
    device: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()
    monkeypatch.setattr("varlab.attached.hooked.keep_freed_pages", lambda: asked.append(1))
    monkeypatch.setattr(Attached, "_device", torch.device(device))
    with Fork().attach(None):
        assert len(asked) == kept


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    fork = Fork()
    fork.fails_at = TEXTS[2]
    with pytest.raises(KeyboardInterrupt):
        fork.attach(tmp_path / "run")(fork.generate)(TEXTS)
    assert verify(tmp_path / "run").word == "partial"
    assert vl.open_log(tmp_path / "run")["token-mse"].sizes["prompt"] == 2
    fork.fails_at, fork.drawn = "", []
    run = fork.attach(tmp_path / "run")(fork.generate)(TEXTS)
    assert fork.drawn == [TEXTS[2]]
    assert run.log.attrs["prompts"] == TEXTS
    assert run.log.attrs["seeds"] == [7, 7, 7]
    fork.drawn = []
    fork.attach(tmp_path / "run")(fork.generate)(TEXTS)
    assert fork.drawn == []


def test_prompts_are_named_in_a_loop(tmp_path: Path) -> None:
    fork = Fork()
    for _ in range(2):
        with fork.attach(tmp_path / "run") as hooked:
            for text in TEXTS:
                if hooked.prompt(text):
                    fork.generate(text)
        assert fork.drawn == TEXTS
        assert hooked.log["step-redundancy"].sizes["prompt"] == 3


def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path) -> None:
    fork = Fork()
    folder = tmp_path / "run"
    fork.attach(folder)(fork.generate)(TEXTS[:2])
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def again(texts: list[str], **more: Any) -> None:
        fork.attach(folder, **more)(fork.generate)(texts)

    refused(lambda: again(["another text"]), "not ['another text']")
    refused(lambda: again(TEXTS), "finished run of 2 prompts")
    refused(lambda: again(TEXTS[:2], probes=["token-mse"]), "another run", "probes")
    refused(lambda: again(TEXTS[:2], seed=3), "another run", "seed")
    refused(lambda: again(TEXTS[:2], name="other"), "another run", "model")
    other = var.StandIn(tiny_var())

    def strange() -> None:
        with vl.attach(other, folder=folder):
            pass

    refused(strange, "another run")
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")

    def into_notes() -> None:
        with fork.attach(tmp_path / "notes"):
            pass

    refused(into_notes, "not empty")
    with fork.attach(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()


def test_a_refused_folder_keeps_what_is_the_users_own(tmp_path: Path) -> None:
    """Pictures under the names that a run would use too, and the record of a run that has drawn nothing yet."""
    fork, folder = Fork(), tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "holiday.png").write_bytes(b"a picture")

    def enter(folder: Path = folder) -> None:
        with fork.attach(folder):
            pass

    refused(enter, "holds no run")
    assert (folder / "images" / "holiday.png").read_bytes() == b"a picture"
    refused(lambda: enter(folder / "images" / "holiday.png"), "cannot be written in")
    busy = tmp_path / "busy"
    with fork.attach(busy):
        (busy / "run.json").write_text("{}")
        refused(lambda: Fork().attach(busy).__enter__(), "busy")
        assert (busy / "run.json").is_file()
        (busy / "run.json").unlink()


def test_unnamed_calls_do_not_write_over_what_is_there(tmp_path: Path) -> None:
    fork = Fork()
    fork.fails_at = TEXTS[1]
    with pytest.raises(KeyboardInterrupt):
        fork.attach(tmp_path / "run")(fork.generate)(TEXTS)

    def unnamed() -> None:
        with fork.attach(tmp_path / "run"):
            fork.generate("x")

    refused(unnamed, "Name the prompts")


def test_figures_tables_and_verdicts_read_an_attached_log(tmp_path: Path) -> None:
    from varlab import claims
    from varlab.claims import freqexit, skipvar, sparsevar

    fork = Fork()
    fork.attach(tmp_path / "run")(fork.generate)(TEXTS)
    log = vl.open_log(tmp_path / "run")
    names = ("residual_spectrum", "high_frequency_share", "wavelet_share", "explained_share", "energy_maps",
             "concentration", "step_redundancy", "saturation", "energy_left", "contact_sheet")  # fmt: skip
    for name in names:
        assert getattr(vl.figures, name)(log) is not None
    found = [
        sparsevar.residuals_on_edges(log),
        freqexit.high_frequency_rises(log, None),
        skipvar.late_steps_redundant(log),
    ]
    text = claims.account(log, found)
    assert "attached-StandIn" in text
    assert "not the official checkpoints" in text
    assert vl.log("attached-StandIn", folder=tmp_path / "run", n=3)["token-mse"].sizes["prompt"] == 3


def test_pictures_of_a_folder_are_those_of_the_sampler(tmp_path: Path) -> None:
    own = tiny_var()
    model = var.StandIn(own)
    with vl.attach(model, folder=tmp_path / "run", probes=()) as hooked:
        picture = model.autoregressive_infer_cfg(2, 3, 0, 2.0, 1)
    held = np.array(Image.open(tmp_path / "run" / "images" / "000001.png"))
    assert np.array_equal(held, (picture[1].permute(1, 2, 0) * 255).to(torch.uint8).numpy())
    assert hooked.seconds[0] > 0
    assert hooked.log["attached"].seconds.shape == (2,)


def test_attached_pictures_stand_beside_our_own_as_foreign(tmp_path: Path) -> None:
    own = tiny_var()
    vl.log(own, ["3", "7"], folder=tmp_path / "ours", seed=0, probes=["token-mse"], cfg=2.0, top_k=1, top_p=0.0)
    model = var.StandIn(own)
    with vl.attach(model, folder=tmp_path / "fork", name="fork"):
        model.autoregressive_infer_cfg(2, torch.tensor([3, 7]), g_seed=0, cfg=2.0, top_k=1)
    found = vl.compare_images(tmp_path / "ours", tmp_path / "fork")
    assert found.prompts["ssim"].tolist() == [1, 1]
    assert any("Foreign: fork" in note and "StandIn" in note for note in found.facts["notes"])

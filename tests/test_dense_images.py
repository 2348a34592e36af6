"""Dense images are drawn once for sweeps, comparisons and benchmarks, and change no bit of what each gives alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import varlab as vl
from tests.minis import nano  # noqa: F401  (a fixture)
from tests.sweep_plans import PLAN
from tests.test_benchmark_folders import drawing
from varlab.engine.loop import Run
from varlab.evaluation.generation import generate
from varlab.models.base import NextScaleModel
from varlab.runs.dense import Batch, DenseImages
from varlab.sweeps import sweep

N = 4
PROMPTS = vl.prompts("scenes", n=N)


def files(place: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in place.iterdir()}


def whole_stages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each final stage that runs whole and guided: that of the dense run alone."""
    ran: list[int] = []
    plain = Run.run_stage

    def counting(self: Run, state: Any, k: int, plan: Any) -> None:
        if k == len(self.model.schedule) - 1 and plan.selection is None and plan.rows == "both":
            ran.append(k)
        plain(self, state, k, plan)

    monkeypatch.setattr(Run, "run_stage", counting)
    return ran


def test_a_sweep_and_the_frontier_share_them(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = vl.frontier(nano, PROMPTS, seed=3, batch=2, folder=tmp_path / "alone")
    sweep(PLAN, tmp_path / "sweep", dense=tmp_path / "dense")  # shards of two
    drawn, ran = files(tmp_path / "dense"), whole_stages(monkeypatch)
    shared = vl.frontier(nano, PROMPTS, seed=3, batch=2, folder=tmp_path / "shared", dense=tmp_path / "dense")
    assert not ran and files(tmp_path / "dense") == drawn and len(drawn) == 2
    pd.testing.assert_frame_equal(shared.prompts, alone.prompts, check_exact=True)


def test_a_sweep_reads_what_a_comparison_kept(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = vl.compare(nano, PROMPTS, [], seed=3, batch=2, frontier=tmp_path / "f", dense=tmp_path / "dense")
    assert len(files(tmp_path / "dense")) == 2
    own = DenseImages.at(tmp_path / "dense")
    assert own is not None
    held = own.read(Batch(nano, nano.settings, 3, 0, PROMPTS.texts[:2]))
    assert held is not None
    assert np.array_equal((held[0] * 255).byte().movedim(0, -1).numpy(), np.asarray(found.images["none"][0]))
    generated: list[int] = []
    monkeypatch.setattr(Run, "generate", lambda *given, **named: generated.append(1))
    made = sweep(PLAN | {"specs": ["truncate:last=1"]}, tmp_path / "s", dense=tmp_path / "dense")
    assert not generated and len(made.prompts) == 2 * N  # blind ones share the walk; nothing is drawn for itself


def test_a_benchmark_reads_and_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = DenseImages.at(tmp_path / "dense")
    specs = ("none", "truncate:last=1")
    generate({tmp_path / "alone" / spec: drawing(spec=spec, batch=6) for spec in specs})
    generate({tmp_path / "first": drawing(batch=6, kept=kept)})
    drawn, ran = files(tmp_path / "dense"), whole_stages(monkeypatch)
    generate({tmp_path / "second" / spec: drawing(spec=spec, batch=6, kept=kept) for spec in specs})
    assert not ran and files(tmp_path / "dense") == drawn and len(drawn) == 1
    for spec in specs:
        pictures = sorted((tmp_path / "alone" / spec / "images").rglob("*.png"))
        assert len(pictures) == 6
        for path in pictures:
            other = tmp_path / "second" / spec / path.relative_to(tmp_path / "alone" / spec)
            assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(other)))


def test_other_settings_batches_and_damage_are_other_images(nano: NextScaleModel, tmp_path: Path) -> None:
    kept = DenseImages.at(tmp_path)
    assert kept is not None
    batch = Batch(nano, nano.settings, 3, 0, ("a", "b"))
    names = {batch.name} | {
        Batch(*given).name
        for given in (
            (nano, nano.settings, 4, 0, ("a", "b")),
            (nano, nano.settings, 3, 1, ("a", "b")),
            (nano, nano.settings, 3, 0, ("a",)),
            (nano, replace(nano.settings, cfg=4.0), 3, 0, ("a", "b")),
            (vl.load("nano-infinity", init="random"), nano.settings, 3, 0, ("a", "b")),
        )
    }
    assert len(names) == 6 and kept.read(batch) is None
    (tmp_path / batch.name).write_bytes(b"cut")
    assert kept.read(batch) is None

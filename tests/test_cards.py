"""The card of a captioned mini: its scores, and what its training gave it over its untrained self."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.minis import refused
from varlab.evaluation.card import untrained_self, write_card
from varlab.evaluation.command import former_score, score_command
from varlab.evaluation.residual import without_residual
from varlab.evaluation.scenes import SceneScore, lead
from varlab.runs import sample
from varlab.scenes import summarise
from varlab.schedules import square
from varlab.training.recipes import MINI_HART
from varlab.training.records import note, parts_of, settings_of
from varlab.weights import zoo
from varlab.weights.embedded import save_mini

SMALL = replace(
    MINI_HART,
    schedule=square((1, 2, 3, 4, 6, 8), "small"),
    transformer=replace(
        MINI_HART.transformer, depth=2, width=32, heads=2, stages=6, diffusion_width=16, diffusion_depth=1
    ),
    tokenizer=replace(MINI_HART.tokenizer, channels=8),
)


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a mini with the records that its training would have left."""
    folder = tmp_path / "mini-hart"
    counts = {f"{part}_{what}": 3 for part in ("tokenizer", "transformer") for what in ("samples", "steps", "hours")}
    told = replace(SMALL, correction=replace(SMALL.correction, batch=4), loop=replace(SMALL.loop, learning_rate=2e-3))
    part = settings_of(told, 2, "cpu", False)
    note(tmp_path / "run", 0, part)
    note(tmp_path / "run", 2, part | {"shorten": 0.5, "largest": 4, "whole_from": 2, "categories": {"counting": 2.0}})
    parts = parts_of(tmp_path / "run", 3, 3)
    facts = {"image_size": 32, "pool": 9, "pool_seed": 1, "device": "cpu", "parameters": 7, "bytes": 14} | counts
    facts |= {"parts": parts, "benchmark_texts_trained_on": 0.5}
    save_mini(
        folder, SMALL.parts(SMALL.new_tokenizer(), SMALL.new_transformer()), SMALL.schedule, SMALL.settings, facts
    )
    (folder / "training").mkdir()
    pd.DataFrame({"seconds": [1, 2], "loss": [3.0, 2.0]}).to_csv(folder / "training" / "transformer.csv", index=False)
    monkeypatch.setenv("VARLAB_DATA", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    return folder


def scores(correct: list[list[int]], categories: list[str]) -> SceneScore:
    """``correct``: one list an entry, one value an image."""
    rows = [
        {"entry": i, "category": categories[i], "prompt": f"prompt {i}", "correct": bool(value)}
        for i, values in enumerate(correct)
        for value in values
    ]
    table = pd.DataFrame(rows)
    return SceneScore(table, summarise(table))


def test_the_untrained_self_shares_the_tokenizer_alone(mini: Path) -> None:
    model = zoo.load("mini-hart")
    other = untrained_self(model)
    assert other.tokenizer is model.tokenizer and other.settings == model.settings  # type: ignore[attr-defined]
    assert other.weights == "random (seed 0), trained tokenizer" and model.weights.startswith("trained")
    for part in ("transformer", "text"):
        ours, theirs = (getattr(each, part) for each in (model, other))
        modules = (ours, theirs) if part == "transformer" else (ours.captions, theirs.captions)
        weights = [dict(module.named_parameters()) for module in modules]
        assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_lead_pairs_entries_and_averages_categories() -> None:
    """Whatever the images an entry: (1 - 0, .5 - 1) of one category and (1 - 0) of another, which tells no interval."""
    categories = ["a", "a", "b"]
    found = lead(scores([[1, 1], [1, 0], [1, 1]], categories).entries, scores([[0], [1], [0]], categories).entries)
    assert found["mean"].tolist() == pytest.approx([0.25, 1.0, 0.625])
    assert found.loc["a", ["low", "high"]].tolist() == [-0.5, 1.0]
    assert found.loc[["b", "overall"], ["low", "high"]].isna().all(axis=None)
    assert found.loc["overall", "prompts"] == 3
    one, two = scores([[1]], ["a"]).entries, scores([[1], [1]], ["a", "a"]).entries
    refused(lambda: lead(one, two), "different prompt entries", "same n")


def test_a_pair_narrows_the_interval() -> None:
    """Entries that both get right or wrong say nothing of a difference: unpaired, its interval would hold zero."""
    hard = np.arange(40) % 2
    first, second = ([[int(value)] for value in hard | extra] for extra in (np.arange(40) % 8 == 0, np.zeros(40, int)))
    a, b = scores(first, ["a"] * 40), scores(second, ["a"] * 40)
    assert lead(a.entries, b.entries).loc["overall", "low"] > 0
    assert a.summary.loc["overall", "low"] < b.summary.loc["overall", "high"]


def test_scores_are_compared_by_entry_with_those_of_a_file(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, path = zoo.load("mini-hart"), tmp_path / "scores.json"
    score_command("scenes", model, 12, 1, 0, path, lambda *_: None)
    stored = json.loads(path.read_text())
    for entry in stored["entries"]:
        entry["correct"] -= 0.25  # as if the former weights had been worse by that everywhere
    path.write_text(json.dumps(stored))
    frame, note = score_command("scenes", model, 12, 1, 0, None, lambda *_: None, against=path)
    ahead = frame[frame.source == f"lead over {model.weights}"].set_index("category")
    assert ahead.loc["overall", ["mean", "low", "high"]].tolist() == pytest.approx([0.25] * 3)
    assert "paired by entry" in note
    refused(lambda: score_command("scenes", model, 6, 1, 0, None, lambda *_: None, against=path), "same n")
    refused(lambda: score_command("frechet", model, 6, 1, 0, None, lambda *_: None, against=path), "--against pairs")
    refused(lambda: former_score(tmp_path / "none.json"), "There is no file", "--json")
    path.write_text("{}")
    refused(lambda: former_score(path), "no scores by entry")


def test_the_card_says_what_training_gave(mini: Path) -> None:
    model = zoo.load("mini-hart")
    text = write_card(model, n=24, per_prompt=2).read_text()
    assert "`varlab card mini-hart --per-prompt 2`" in text and "24 entries, 2 images each" in text
    card = json.loads((mini / "card.json").read_text())
    found, drawn = card["untrained"], card["scores"]["samples"]["overall"]
    assert found["weights"] == "random (seed 0), trained tokenizer" and found["weights"] in text
    assert found["lead"]["mean"] == pytest.approx(drawn["mean"] - found["score"]["mean"], abs=2e-4)
    assert found["lead"]["prompts"] == found["score"]["n"] == 24 and drawn["n"] == 48
    word = "excludes" if found["lead"]["low"] > 0 else "includes"
    assert f"its interval {word} zero" in text and "| untrained self |" in text
    assert "| 4 to 5 | 8 |" in text and "| 6 to 6 | 8 | 100,000 (1) | 0.002 | 4, in 1 updates all | 0.5 |" in text
    assert "Scenes from update 6 on by category, where 1 is an equal share:\ncounting 2.0.\n" in text
    assert "50 % have a text" in text and "continued with `--init-from`" in text and "do not build on it" in text
    residual = card["residual"]
    whole, plain = residual["sides"]["codes and residual"], residual["sides"]["codes alone"]
    assert whole["psnr"] == card["reconstruction_psnr"] and whole["samples"] == drawn
    assert residual["lead"]["mean"] == pytest.approx(drawn["mean"] - plain["samples"]["mean"], abs=2e-4)
    assert f"| {whole['psnr']} | {plain['psnr']} |" in text


def test_without_the_residual_the_codes_are_the_same(mini: Path) -> None:
    model = zoo.load("mini-hart")
    plain = without_residual(model)  # type: ignore[arg-type]
    assert model.settings.residual and not plain.settings.residual  # type: ignore[attr-defined]
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    *_, last = plain.tokenizer.steps(model.encode(pixels), model.schedule.grids, last_phi=False)
    torch.testing.assert_close(plain.encode(pixels), last.canvas)
    with_it, without = (sample(each, ["a red star"], seed=3).images[0] for each in (model, plain))
    assert with_it.tobytes() != without.tobytes()

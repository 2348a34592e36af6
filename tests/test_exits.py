"""The motivation of exits and their quality: what the lens reads, what removing detail changes, figures of tables."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import tiny_var
from tests.minis import refused
from tests.test_class_quality import few_features, named_var  # noqa: F401  (a fixture)
from varlab.analysis.measured import Measured, read_measured
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.evaluation import classes
from varlab.evaluation.classes import labels
from varlab.evaluation.scenes import HELD, drawn
from varlab.figures import exits as figures
from varlab.figures import style
from varlab.models.guidance import Settings
from varlab.models.var_model import VAR
from varlab.studies.exits import detail, facts_of
from varlab.studies.exits.detail import WithoutDetail, detail_removed, detail_shares
from varlab.studies.exits.lens import _by_stage, _Drawn, detail_share, lens
from varlab.studies.exits.quality import exit_pictures, exit_quality, scaled_rows, shorthand, spread_classes
from varlab.studies.exits.speed import exit_specs
from varlab.studies.kept import kept, origin


@pytest.fixture(scope="module")
def seen() -> Measured:
    return lens(tiny_var(), n=3, batch=2)


def test_the_last_layer_agrees_with_itself_and_none_before_it_is_perfect(seen: Measured) -> None:
    last, others = (seen.table[(seen.table.layer == 4) == flag] for flag in (True, False))
    assert len(seen.table) == 3 * 4 * 4
    assert (last.agreement == 1).all() and last.divergence.abs().max() < 1e-5 and (last.error == 0).all()
    assert others.divergence.min() > 0 and others.agreement.mean() < 1
    assert seen.table[seen.table.layer == 1].similarity.isna().all()
    assert seen.table[seen.table.layer > 1].similarity.between(-1, 1.0001).all()


def test_the_lens_reads_the_samplers_own_logits() -> None:
    """With one choice left the drawn codes are the most likely ones of the last layer's guided logits."""
    model = tiny_var()
    drawn = _Drawn()
    Run(model, Settings(cfg=2.0, top_k=1), SeededNoise(0), [drawn]).generate(labels(model, 2), [0, 1])
    with torch.inference_mode():
        layers = _by_stage(model, labels(model, 2), drawn.labels)
    assert all(torch.equal(z.argmax(-1), own) for z, own in zip(layers[-1], drawn.labels, strict=True))


def test_detail_is_what_a_haar_transform_calls_so() -> None:
    flat, board = torch.ones(1, 2, 4, 4), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert detail_share(flat).item() == pytest.approx(0) and detail_share(board).item() == pytest.approx(1)
    assert detail_share(torch.ones(1, 2, 1, 1)).isnan().all()


def test_removed_details_are_gone_and_only_there() -> None:
    model = tiny_var()
    shares = detail_shares(model, n=4).table
    assert shares[shares.source == "codes of the stage"].groupby("stage")["share"].count().tolist() == [0, 4, 4, 4]
    without = detail_shares(model.with_(WithoutDetail, stages=[1, 2]), n=4).table
    means = without[without.source == "codes of the stage"].groupby("stage")["share"].mean()
    assert means[2] == pytest.approx(0, abs=1e-6) and means[4] > 0.1
    untouched = model.with_(WithoutDetail)
    images = [Run(m, m.settings, SeededNoise(0)).generate([1], [0]).image for m in (model, untouched)]
    assert torch.equal(*images)


@pytest.mark.usefixtures("few_features")
def test_loss_of_detail_is_measured_against_the_whole_model() -> None:
    table = detail_removed(named_var(), {"the last two": [2, 3]}, n=18, resamples=5).table.set_index("removed")
    assert table.loc["nothing", "ssim"] == 1 and table.loc["the last two", "ssim"] < 1
    assert table.loc["the last two", "ssim_low"] <= table.loc["the last two", "ssim"]


def test_loss_of_detail_holds_few_pictures_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    most, alive = 0, list[weakref.ref[np.ndarray]]()

    def grey(model: WithoutDetail, texts: list[str], seed: int) -> Iterator[np.ndarray]:
        nonlocal most
        for i in range(len(texts)):
            picture = np.full((16, 16, 3), i % 200 + len(model.stages), np.uint8)
            alive.append(weakref.ref(picture))
            most = max(most, sum(one() is not None for one in alive))
            yield picture

    monkeypatch.setattr(detail, "drawn", grey)
    monkeypatch.setattr(classes, "score_images", lambda few, *_: pd.DataFrame({"correct": [True] * len(few)}))
    monkeypatch.setattr("varlab.evaluation.scattering.scattering", lambda images: images.mean((2, 3)))
    table = detail_removed(named_var(), {"one": [1], "two": [1, 2]}, n=220, resamples=2).table
    assert len(table) == 3 and table.ssim[0] == 1 > table.ssim[1] > table.ssim[2]
    assert most <= 3 * (2 * HELD + 2)  # of 660: those that are judged, and those that come next, of three models


def test_exit_vectors_have_one_shorthand() -> None:
    assert shorthand((10, 10, 10, 6)) == "10x3/6" and shorthand((4, 4)) == "4"
    assert scaled_rows(tiny_var()) == {"4": "full", "3": "a", "3x2/2x2": "b", "2": "c"}
    refused(lambda: scaled_rows(tiny_var(), ["e"]), "no published row")


@pytest.mark.usefixtures("few_features")
def test_quality_of_exits_has_its_account_beside_it() -> None:
    model, notes = named_var(), []
    found = exit_quality({"a": model}, ["4", "2"], n=18, resamples=5, progress=lambda *x: notes.append(x))
    assert found.table[["weights", "exits"]].apply(tuple, axis=1).tolist() == [("a", "4"), ("a", "2")]
    assert found.table.block_calls.tolist() == [16, 8] and notes[-1] == (2, 2)
    refused(lambda: exit_quality({"a": model, "b": tiny_var("long")}, ["2"], n=18), "one schedule")


def test_a_table_is_measured_once_for_its_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, calls = named_var(), []

    def counted(models: dict[str, VAR], exits: list[str], n: int) -> Measured:
        calls.append(n)
        return Measured(pd.DataFrame({"exits": exits, "share": 1 / 3}), facts_of(model, ["a red circle"], len(calls)))

    first = kept(counted, {"a": model}, ["2", "4"], 5)
    again = kept(counted, {"a": model}, ["2", "4"], 5)
    assert calls == [5] and again.table.equals(first.table) and again.facts == first.facts
    assert first.facts["date"][:10] in origin(first) and str(first.facts["device"]) in origin(first)
    kept(counted, {"a": model}, ["2", "4"], 6)
    kept(counted, {"a": model}, ["2"], 5)
    kept(counted, {"a": model.with_(WithoutDetail, settings=Settings(cfg=3.0))}, ["2", "4"], 5)
    assert calls == [5, 6, 5, 5]
    assert kept(counted, {"a": model}, ["2", "4"], 5, again=True).facts["seed"] == 5
    for cut in tmp_path.glob("runs/*/table.*"):  # killed before it wrote a table: it left a lock
        cut.with_name(".lock").touch()
        cut.unlink()
    assert kept(counted, {"a": model}, ["2", "4"], 6).table.exits.tolist() == ["2", "4"] and calls[-1] == 6
    kept(counted, {"a": model}, ["2"], 5)
    for damaged in tmp_path.glob("runs/*/table.json"):
        damaged.unlink()
    refused(lambda: kept(counted, {"a": model}, ["2"], 5), "There is no table.csv with its table.json")


# Figures


def facts(model: str = "tiny-var") -> dict[str, object]:
    return {"model": model, "weights": "random", "n": 3, "seed": 0, "schedule": [[1, 1], [2, 2], [3, 3], [5, 5]]}


def frame(**columns: object) -> pd.DataFrame:
    """With a narrow interval around every measure."""
    table = pd.DataFrame(columns)
    for name in set(figures.MEASURES) & set(table.columns):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.1, table[name] + 0.1
    return table


def test_images_by_exit_are_of_classes_far_apart_and_kept_as_drawn(tmp_path: Path) -> None:
    model = tiny_var()
    names = spread_classes(model, 2)
    places = [model.text.texts.index(name) for name in names]
    assert places == [len(model.text.texts) // 4, 3 * len(model.text.texts) // 4]
    table = frame(weights=["plain"] * 2, exits=["4", "2"], block_calls=[16, 8], gflops=[2.0, 1])
    pictures = exit_pictures({"plain": model}, Measured(table, facts()), 2)
    pictures.save(tmp_path, "samples")
    again = read_measured(tmp_path, "samples")
    assert pictures.pictures is not None and again.pictures is not None
    assert np.array_equal(pictures.pictures, again.pictures) and again.facts["pictures"] == names
    assert np.array_equal(again.pictures[1, 1], list(drawn(model, names, 0, exit_specs(model, ["2"])))[1])
    refused(lambda: figures.samples_by_exit(Measured(again.table, again.facts)), "no pictures")
    grid = figures.samples_by_exit(again)
    words = [text.get_text() for text in grid.axes[0].texts if text.get_text()]
    assert words == ["exit 4", "exit 2", *names, "plain"] and len(grid.axes[0].images) == 4
    plt.close("all")
    (tmp_path / "samples.png").write_bytes((tmp_path / "samples.png").read_bytes()[:90])
    refused(lambda: read_measured(tmp_path, "samples"), "damaged", "varlab report --fresh")


def test_figures_read_tables_alone(seen: Measured, tmp_path: Path) -> None:
    for measure in figures.LENS:
        ax = figures.lens(seen, measure)
        assert len(ax.lines) == 4 and ax.get_ylabel() == figures.LENS[measure][0]
        assert "95 % intervals: stages 1, 2, 3, 4" in ax.get_xlabel()
    ax = figures.detail_share(detail_shares(tiny_var(), n=3))
    assert ax.get_ylim() == (0, 1)
    removed = frame(removed=["nothing", "late"], scattering_frechet=[1.0, 2], class_accuracy=[0.9, 0.5], ssim=[1, 0.5])
    assert len(figures.detail_loss(Measured(removed, facts())).axes) == 3
    traded = frame(
        weights=["a", "a", "FreqExit"],
        exits=["4", "2", "2"],
        block_calls=[16, 8, 8],
        scattering_frechet=[1.0, 3, 2],
        class_accuracy=[0.9, 0.4, 0.5],
    )
    ax = figures.exit_tradeoff(Measured(traded, facts()))
    legend = ax.get_legend()
    assert legend and [text.get_text() for text in legend.get_texts()] == ["a", "FreqExit"]
    assert ax.lines[1].get_color() == style.METHODS["freqexit"][0]  # as in every figure
    assert not np.isin(ax.lines[0].get_xdata(), ax.lines[1].get_xdata()).any()  # one interval would hide the other
    pair = style.panels(2)
    for name, panel in zip(("scattering_frechet", "class_accuracy"), pair, strict=True):
        figures.exit_tradeoff(Measured(traded, facts()), name, ax=panel)
    assert len({panel.get_title(loc="left") for panel in pair} - {""}) == 2  # beside each other on a page
    refused(lambda: figures.exit_tradeoff(Measured(traded, facts()), "fid"), "measure")
    cost = pd.DataFrame({"block_calls": [16, 8], "gflops": [2.0, 1.1], "transformer_ratio": [1, 0.5], "low": [1, 0.4],
                         "high": [1, 0.6], "batch": [1, 1]})  # fmt: skip
    assert len(figures.exit_cost([Measured(cost, facts())]).axes) == 2
    runs = frame(recipe=["untrained", "corrected", "corrected"], exits=["2"] * 3, train_seed=[-1, 0, 1],
                 scattering_frechet=[9.0, 3, 4], class_accuracy=[0.1, 0.8, 0.9])  # fmt: skip
    kept = Measured(runs, facts())
    kept.save(tmp_path, "ablation")
    again = read_measured(tmp_path, "ablation")
    assert again.table["exits"].tolist() == ["2"] * 3 and np.allclose(again.table.scattering_frechet, [9, 3, 4])
    drawn = figures.ablation(again, "2")
    assert [t.get_text() for t in drawn.axes[0].get_yticklabels()] == ["untrained", "corrected"]
    named = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert named == ["not trained for exits", "training seed 0", "training seed 1"]
    refused(lambda: figures.ablation(again, "7"), "no exit 7")
    refused(lambda: read_measured(tmp_path, "table"), "There is no table.csv")
    plt.close("all")

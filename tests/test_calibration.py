"""Calibration: shares and labels by hand, fits that find what is there, honest comparison with the majority."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import tiny_infinity
from varlab.accelerators.decisions import FEATURES
from varlab.accelerators.sparsevar import normalise
from varlab.claims import Outcome
from varlab.errors import VarlabError
from varlab.schedules import square
from varlab.studies.calibration import skipvar, sparsevar


def measured(n: int, seed: int = 0) -> pd.DataFrame:
    """Prompts whose similarity falls with HF_Diff: the more stages are dropped, the faster."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"prompt": "a star", "hf_diff": rng.random(n), "hf_ratio": rng.random(n)})
    for k in (1, 2, 3):
        table[f"drop {k}"] = 1 - 0.3 * k * table.hf_diff
        table[f"replace {k}"] = 1 - 0.15 * k * table.hf_diff
    return table


def test_the_label_is_the_most_aggressive_strategy_that_stays_above_the_target() -> None:
    table = pd.DataFrame({"drop 1": [0.9, 0.9, 0.8], "drop 2": [0.87, 0.8, 0.7], "drop 3": [0.86, 0.9, 0.6]})
    assert skipvar.labels(table, "drop", 0.86).tolist() == [3, 3, 0]
    assert skipvar.labels(table, "drop", 0.88).tolist() == [1, 3, 0]


def test_the_fit_predicts_as_scikit_learn_does_and_beats_the_majority() -> None:
    train, held_out = measured(300), measured(200, seed=1)
    fitted = skipvar.fit(tiny_infinity("long"), train, held_out, targets=(0.84,))
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = skipvar.labels(train, "drop", 0.84)
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1500)).fit(train[list(FEATURES)], classes)
    points = held_out[list(FEATURES)]
    ours = fitted.models[0.84].skip.predict(torch.from_numpy(points.to_numpy()))
    assert ours == reference.predict(points).tolist()
    row = fitted.accuracy.set_index("model").loc["drop"]
    truth = skipvar.labels(held_out, "drop", 0.84)
    assert row.accuracy == (np.array(ours) == truth).mean() > row.majority + 0.2
    assert (
        row.majority
        == (truth == np.bincount(classes).argmax()).mean()
        == row[f"always {np.bincount(classes).argmax()}"]
    )


def test_the_second_model_learns_from_what_may_not_be_skipped() -> None:
    train = measured(300)
    fitted = skipvar.fit(tiny_infinity("long"), train, measured(200, 1), targets=(0.84,))
    rest = train[skipvar.labels(train, "drop", 0.84) == 0]
    assert fitted.accuracy.set_index("model").loc["replace"].n_train == len(rest) < 300
    assert set(fitted.models[0.84].uncond.classes) == set(skipvar.labels(rest, "replace", 0.84))


def test_one_class_is_a_model_too() -> None:
    table = measured(50)
    table[[f"drop {k}" for k in (1, 2, 3)]] = 1.0
    fitted = skipvar.fit(tiny_infinity("long"), table, table, targets=(0.86,))
    assert fitted.models[0.86].skip.classes == (3,)
    assert fitted.accuracy.set_index("model").loc["drop"].accuracy == 1
    assert fitted.models[0.86].strategies(torch.zeros(2, 2)) == [(3, 0), (3, 0)]


def test_the_gain_pairs_the_held_out_prompts() -> None:
    fitted = skipvar.fit(tiny_infinity("long"), measured(300), measured(200, seed=1), targets=(0.84,))
    row = fitted.accuracy.set_index("model").loc["drop"]
    best = max(row[f"always {n}"] for n in range(4))
    assert row.gain == pytest.approx(row.accuracy - best) and row["gain low"] <= row.gain <= row["gain high"]
    assert row.verdict == "holds" and fitted.models[0.84].facts["accuracy"][0]["verdict"] == "holds"
    blind = measured(300).assign(hf_diff=0.5, hf_ratio=np.random.default_rng(3).random(300))
    row = skipvar.fit(tiny_infinity("long"), blind, blind, targets=(0.84,)).accuracy.set_index("model").loc["drop"]
    assert row.gain <= 0.02 and row.verdict != "holds"


def test_no_text_is_in_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And both hold every kind of prompt, though the small categories are used up early."""
    seen: list[pd.DataFrame] = []

    def stand_in(model: object, texts: list[str], seed: int, progress: object) -> pd.DataFrame:
        return measured(len(texts)).assign(prompt=texts)

    def keep(model: object, train: pd.DataFrame, held_out: pd.DataFrame, *_: object) -> None:
        seen.extend([train, held_out])

    monkeypatch.setattr(skipvar, "measure", stand_in)
    monkeypatch.setattr(skipvar, "fit", keep)
    skipvar.calibrate(tiny_infinity("long"))
    train, held_out = (set(table.prompt) for table in seen)
    assert (len(train), len(held_out)) == (300, 100) and not train & held_out
    short = [{text for text in part if len(text.split()) == 2} for part in (train, held_out)]
    assert all(short)  # "a star", "two rings"
    with pytest.raises(VarlabError, match="18 different texts"):
        skipvar.calibrate(tiny_infinity("long"), "scenes-counting", n=15, held_out=5)


def test_prompts_split_by_how_much_detail_the_late_stage_added() -> None:
    table = measured(5)
    table["prompt"] = list("abcde")
    table["hf_diff"] = [0.1, 0.5, 0.2, 0.4, 0.3]
    assert skipvar.split_by_frequency(table) == (["b", "d", "e"], ["c", "a"])


def test_shares_below_tau_are_those_of_the_resized_map() -> None:
    model = tiny_infinity("square").with_(schedule=square((1, 2, 2), "flat"))
    d = torch.tensor([[[1.0, 1.0, 1.0, 5.0]]])  # one prompt, one block, 2x2
    table = sparsevar.share_table(model, {1: d}, (0.0, 0.75, 0.75, 0.75)).set_index(["norm", "root", "block"])
    z = normalise(d, "mean", d.mean(-1, keepdim=True))[0, 0]
    row = table.loc["mean", False, 1]
    assert [row[f"below {tau}"] for tau in sparsevar.TAUS] == [
        float((z < tau).float().mean()) for tau in sparsevar.TAUS
    ]
    assert [row[f"below {tau}"] for tau in sparsevar.TAUS] == [0.0, 0.0, 0.75, 0.75]  # z = .5, .5, .5, 2.5
    assert row.distance == pytest.approx(0.375)
    two = torch.cat([d, torch.tensor([[[1.0, 1.0, 1.0, 1.0]]])])  # and one without contrast
    row = sparsevar.share_table(model, {1: two}, (0.0,) * 4).set_index(["norm", "root", "block"]).loc["mean", False, 1]
    assert (row["below 0.7 low"], row["below 0.7"], row["below 0.7 high"]) == (0, 0.375, 0.75)


def test_a_block_that_follows_edges_is_told_from_one_that_does_not() -> None:
    model = tiny_infinity("square")
    image = torch.zeros(2, 3, 20, 20)
    image[:, :, 5:10, 8:16] = 1
    from varlab.measures.metrics import edge_energy

    edges = edge_energy(image, (5, 5)).flatten(1)
    table = sparsevar.edge_table(sparsevar.edge_correlations(model, {3: torch.stack([edges, -edges], 1)}, image))
    assert table.correlation.tolist() == pytest.approx([1, -1], abs=1e-6)


@pytest.mark.parametrize(
    ("edge", "background", "word"),
    [
        (0.5, 0.2, Outcome.HOLDS),
        (0.5, 0.5, Outcome.WIDE),
        (0.2, 0.5, Outcome.FAILS),
        (0.0, -0.5, Outcome.WIDE),
        (-0.2, -0.5, Outcome.FAILS),
    ],
)
def test_the_posters_blocks_are_judged_at_their_depth(edge: float, background: float, word: Outcome) -> None:
    """Blocks 16 and 21 of 32, whatever the extremes do."""
    values = np.random.default_rng(0).normal(0, 0.05, (20, 32))
    values -= values.mean(0)
    values[:, 0], values[:, 31] = 0.9, -0.9
    values[:, 15] += edge
    values[:, 20] += background
    table = sparsevar.edge_table(values)
    found = sparsevar.Calibration(pd.DataFrame(), table, values, (), 32, {"n": 20}).block_verdict()
    assert found.outcome is word
    assert "block 16" in found.finding and "block 21" in found.finding and "lowest: 32" in found.finding


def test_short_schedules_are_refused() -> None:
    with pytest.raises(VarlabError, match="at least 8 stages"):
        skipvar.calibrate(tiny_infinity("square"), n=2, held_out=1)
    with pytest.raises(VarlabError, match="no stage to score"):
        sparsevar.calibrate(tiny_infinity("square"), n=2, last=4)


@pytest.mark.parametrize(("n", "expected"), ((1, "too few"), (5, "too few"), (6, "holds")))
def test_a_reading_of_few_prompts_is_no_verdict(n: int, expected: str) -> None:
    row = {"norm": "mean", "root": False, "block": 3, "distance": 0.01}
    for tau in sparsevar.TAUS:
        row |= {f"below {tau}": 0.5, f"below {tau} low": np.nan, f"below {tau} high": np.nan}
    edges = pd.DataFrame({"block": [1], "correlation": [0.5]})
    found = sparsevar.Calibration(pd.DataFrame([row]), edges, np.zeros((n, 1)), (0.5,) * 4, 1, {"n": n})
    verdict = found.reading_verdict()
    assert str(verdict.outcome) == expected
    assert [(number.estimate, number.reference, number.n) for number in verdict.numbers] == [(0.01, sparsevar.CLOSE, n)]

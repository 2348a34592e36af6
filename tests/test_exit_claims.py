"""Verdicts on exits follow their tables, in both directions."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from varlab.analysis.comparisons import log_of
from varlab.analysis.measured import Measured
from varlab.claims import freqexit, recipes
from varlab.claims.account import limits
from varlab.claims.published import published_exits
from varlab.claims.rules import FAILS, HOLDS, PARTLY, WIDE
from varlab.claims.verdict import Outcome, Verdict
from varlab.figures import forest
from varlab.figures.style import figure_of
from varlab.studies.exits.ablation import find_ablation, over_trainings, summary


def found(table: pd.DataFrame, stages: int = 10) -> Measured:
    return Measured(table, {"schedule": [[k + 1, k + 1] for k in range(stages)], "threads": 1})


@pytest.mark.parametrize(("late", "word"), [(0.9, HOLDS), (0.1, FAILS)])
def test_detail_rises_or_falls(late: float, word: Outcome) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (12, 10))
    rows = [
        {"prompt": i, "stage": k + 1, "source": "codes of the stage", "share": (late if k > 5 else 0.5) + noise[i, k]}
        for i in range(12)
        for k in range(10)
    ]
    assert freqexit.detail_rises(found(pd.DataFrame(rows))).outcome is word


@pytest.mark.parametrize(("low", "high", "word"), [(8, 9, HOLDS), (0.1, 0.2, FAILS), (2.5, 9, WIDE)])
def test_detail_matters_where_intervals_part(low: float, high: float, word: Outcome) -> None:
    table = pd.DataFrame({"removed": ["nothing", "late"], "scattering_frechet": [2.5, (low + high) / 2], "n": 90,
                          "scattering_frechet_low": [2, low], "scattering_frechet_high": [3, high],
                          "class_accuracy": 0.5, "class_accuracy_low": 0.4, "class_accuracy_high": 0.6})  # fmt: skip
    assert freqexit.detail_matters(found(table), "late").outcome is word


def test_layers_and_exits_are_judged_by_their_means() -> None:
    rows = [{"prompt": i, "stage": 1, "layer": layer, "similarity": 0.4, "agreement": layer / 8} for i in range(8)
            for layer in (1, 2, 3, 4)]  # fmt: skip
    lens = found(pd.DataFrame(rows))
    assert freqexit.layers_differ(lens).outcome is HOLDS and freqexit.untrained_exits_fail(lens).outcome is HOLDS
    alike = found(lens.table.assign(similarity=0.95, agreement=0.9))
    assert freqexit.layers_differ(alike).outcome is FAILS and freqexit.untrained_exits_fail(alike).outcome is FAILS


CALLS, OPERATIONS = [1, *[0.75, 0.75] * 4], [1, *[0.6, 0.9] * 4]


def timed(ratios: list[float], batch: int, rounds: int = 7, **facts: object) -> Measured:
    """Full depth, then pairs of vectors of equal calls and different operations."""
    table = pd.DataFrame({"exits": ["12", *["12/6", "6/12"] * 4], "block_calls": [120, *[90] * 8],
                          "gflops": [10, *[6, 9] * 4], "transformer_ratio": ratios, "low": ratios, "high": ratios,
                          "batch": batch, "rounds": rounds})  # fmt: skip
    return Measured(table, found(table).facts | facts)


def test_time_follows_calls_or_operations() -> None:
    calls, operations = timed(CALLS, 1), timed(OPERATIONS, 8)
    held = freqexit.time_follows_calls(calls, operations)
    assert held.outcome is HOLDS and [round(number.estimate, 3) for number in held.numbers] == [-0.15, 0.15]
    assert freqexit.time_follows_calls(timed(OPERATIONS, 1), operations).outcome is PARTLY
    assert freqexit.time_follows_calls(timed(OPERATIONS, 1), timed(CALLS, 8)).outcome is FAILS
    hasty = freqexit.time_follows_calls(calls, timed(OPERATIONS, 8, rounds=5))
    assert hasty.outcome is Outcome.TOO_FEW and "6 rounds" in hasty.text


def test_a_time_that_is_as_near_to_calls_as_to_operations_tells_nothing() -> None:
    between = timed(CALLS[:5] + OPERATIONS[5:], 8)  # half of the vectors go with calls, half with operations
    found = freqexit.time_follows_calls(between, between)
    assert found.outcome is WIDE and all(one.low < 0 < one.high and one.n == 8 for one in found.numbers)


@pytest.mark.parametrize(("family", "paper"), [("var", "FreqExit"), ("infinity", "SparseVAR")])
def test_limits_name_the_papers_of_the_family(family: str, paper: str) -> None:
    (said,) = (limit for limit in limits(log_of({"n": 8, "family": family})) if limit.startswith("One resolution"))
    assert paper in said and said.count("look") == 1


def test_a_time_knows_what_it_was_measured_on() -> None:
    """Images of a report may be kept from another machine than that of its times."""
    speed = timed([1, *[0.55, 0.7] * 4], 8, device="cpu (this one)", n=8)
    speed = Measured(speed.table.drop_duplicates("exits"), speed.facts)
    half = freqexit.half_is_faster(speed, "12/6")
    assert half.outcome is HOLDS and freqexit.half_is_faster(speed, "6/12").outcome is FAILS
    assert half.of == {"device": "cpu (this one)", "n": 8} == freqexit.time_follows_calls(speed, speed).of
    assert Verdict.read(half.record()) == half
    facts = {"n": 96, "device": "cpu (of the images)"}
    said = " ".join(text.get_text() for text in figure_of(forest(half, log_of(facts))).findobj(Text))
    assert "(this one)" in said.replace("\N{NO-BREAK SPACE}", " ") and "images" not in said


@pytest.mark.parametrize(
    ("bounds", "word"),
    [
        ([(-3, -1), (-2, -1)], HOLDS),
        ([(1, 3), (1, 2)], FAILS),
        ([(-3, 1), (-2, 1)], WIDE),
        ([(-3, -1), (-2, 1)], PARTLY),
    ],
)
def test_a_recipe_beats_another_by_every_seed_or_partly(bounds: list[tuple[float, float]], word: Outcome) -> None:
    table = pd.DataFrame({"recipe": "corrected", "exits": "6", "train_seed": [0, 1], "n": 2000, "class_accuracy": 0.1,
                          "less_layerskip": [sum(b) / 2 for b in bounds],
                          "less_layerskip_low": [b[0] for b in bounds],
                          "less_layerskip_high": [b[1] for b in bounds]})  # fmt: skip
    verdict = recipes.beats(found(table), "layerskip", "6")
    assert verdict.outcome is word and "n = 2000" in verdict.finding and "seed 1" in verdict.finding
    assert recipes.beats(found(table), "untrained", "6").outcome is Outcome.NOT_MEASURED


def test_the_published_table_is_quoted_whole() -> None:
    table = published_exits().set_index("method")
    assert table.loc["FreqExit d", "FID"] == 3.58 and table.loc["VAR-d20", "GFLOPs"] == 1879 and len(table) == 8


def trained(rows: list[tuple[str, int, str, float, float]]) -> Measured:
    """Recipe, training seed, exits, distance, accuracy; bounds of .2 and .02."""
    columns = ["recipe", "train_seed", "exits", "scattering_frechet", "class_accuracy"]
    table = pd.DataFrame(rows, columns=columns).assign(n=2000)
    for name, half in (("scattering_frechet", 0.2), ("class_accuracy", 0.02)):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - half, table[name] + half
    return found(table)


def test_a_single_term_that_beats_all_terms_together_is_named() -> None:
    rows = [("corrected", 0, "6", 2.9, 0.12), ("only-distillation", 0, "6", 2.5, 0.16), ("plain", 0, "6", 9.0, 0.01)]
    verdict = recipes.best_recipe(trained(rows), "6")
    assert verdict.outcome is FAILS and "only-distillation (Fréchet" in verdict.finding.split("It beats")[0]
    assert "It beats plain." in verdict.finding and "of one training over its images" in verdict.finding
    assert recipes.best_recipe(trained(rows[::2]), "6").outcome is HOLDS
    assert recipes.best_recipe(trained([rows[0], ("only-distillation", 0, "6", 2.9, 0.12)]), "6").outcome is WIDE
    assert recipes.best_recipe(trained(rows[:1]), "6").outcome is Outcome.NOT_MEASURED


@pytest.mark.parametrize(
    ("gaps", "word"), [((0.5, 0.4, 0.6), FAILS), ((0.5, -0.4, 0.6), WIDE), ((-0.5, -0.4, -0.6), HOLDS)]
)
def test_recipes_with_several_trainings_are_compared_over_these(gaps: tuple[float, ...], word: Outcome) -> None:
    """Each training alone differs by more than its images tell apart; what counts is whether the next one would."""
    rows = [("corrected", seed, "6", 2.9 + 0.1 * seed, 0.1) for seed in range(3)]
    rows += [("plain", seed, "6", 2.9 + 0.1 * seed - gap, 0.1) for seed, gap in enumerate(gaps)]
    rows += [("plain", 3, "6", 0.1, 0.9)]  # of a seed that the other recipe lacks
    verdict = recipes.best_recipe(trained(rows), "6")
    distance = verdict.numbers[0]
    half = 4.302653 * np.std(gaps, ddof=1) / 3**0.5
    assert (distance.low, distance.high) == pytest.approx((np.mean(gaps) - half, np.mean(gaps) + half))
    assert verdict.outcome is word and distance.n == 6000
    assert "3 trainings" in verdict.finding


@pytest.mark.parametrize(("after", "word"), [(0.81, FAILS), (0.94, HOLDS), (0.99, HOLDS), (0.92, WIDE)])
def test_what_training_for_exits_costs_at_full_depth_is_said(after: float, word: Outcome) -> None:
    rows = [("untrained", -1, "12", 1.4, 0.94), ("corrected", 0, "12", 1.5, after)]
    table = trained(rows)
    for end, way in (("low", -1), ("high", 1)):
        table.table[f"class_accuracy_{end}"] = table.table.class_accuracy + way * 0.01
    verdict = recipes.full_depth_kept(table, "12")
    assert verdict.outcome is word and "0.94" in verdict.finding and f"{after:.2f}" in verdict.finding
    assert recipes.full_depth_kept(trained(rows[:1]), "12").outcome is Outcome.NOT_MEASURED


def test_recipes_are_summed_up_over_their_trainings() -> None:
    rows = [("untrained", -1, "6", 9.0, 0.01), ("plain", 0, "6", 4.0, 0.2), ("plain", 1, "6", 5.0, 0.4),
            ("official", 0, "6", 3.0, 0.1), ("plain", 0, "12", 1.0, 0.9)]  # fmt: skip
    table = trained(rows).table
    for name in ("precision", "recall"):
        table[[name, f"{name}_low", f"{name}_high"]] = 0.5, 0.4, 0.6
    found = over_trainings(table, "6").set_index("recipe")
    assert found.trainings.to_dict() == {"untrained": 0, "plain": 2, "official": 1}
    assert found.n.to_dict() == {"untrained": 2000, "plain": 4000, "official": 2000}
    assert tuple(found.loc["plain", ["class_accuracy", "class_accuracy_low", "class_accuracy_high"]]) == pytest.approx(
        (0.3, 0.3 - 1.2706205, 0.3 + 1.2706205)  # t at one degree of freedom 12.706, standard error .1
    )
    assert found.loc["official", "scattering_frechet_high"] == pytest.approx(3.2)  # of one training, over images
    assert "  plain, 2 trainings: scattering_frechet 4.500 [" in summary(table, "6")


def test_the_shipped_ablation_says_what_a_reader_needs() -> None:
    ablation = find_ablation(None, "mini-var-freqexit")
    assert "only-distillation" in recipes.best_recipe(ablation, "6").finding
    assert recipes.full_depth_kept(ablation, "12").outcome is FAILS

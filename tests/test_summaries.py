"""What people see of an object in a notebook or shell: a few lines that say what it is. Examples of all functions."""

import pandas as pd
import pytest
import torch

import varlab as vl
from varlab.comparison import Comparison
from varlab.engine.ledger import Ledger
from varlab.engine.plan import RUN, StagePlan, select


@pytest.mark.parametrize("name", vl.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>>" in (getattr(vl, name).__doc__ or "")


def test_a_model_says_what_it_is() -> None:
    model = vl.load("nano-infinity")
    lines = repr(model).splitlines()
    parameters = sum(p.numel() for p in model.transformer.parameters())
    assert lines[0] == f"nano-infinity (infinity), {parameters:,} parameters" and len(lines) == 4
    assert str(model.weights)[:40] in lines[1] and f"{model.schedule.tokens} tokens" in lines[2]
    assert "fp32 on cpu" in lines[3]


def test_a_run_says_what_it_holds_and_how_it_was_made() -> None:
    run = vl.sample("nano-infinity", ["a red star", "a blue ring"], seed=7, accelerators="truncate:last=1")
    text = repr(run)
    width, height = run.images[0].size
    assert text.splitlines()[0] == f"2 images of {width} x {height} from nano-infinity, seed 7"
    assert "truncate:last=1" in text and "of a dense run" in text and len(text) < 600
    done = sum(work.flops for work in run.ledger.stages) / sum(work.dense_flops for work in run.ledger.stages)
    assert f"{done:.3f} of a dense run" in repr(run.ledger) and len(repr(run.ledger)) < 300


def test_plans_say_what_they_change() -> None:
    assert repr(RUN) == "StagePlan(action='run')"
    kept = select(torch.arange(100) < 30)
    assert repr(StagePlan(selection=kept, depth=3)) == (
        "StagePlan(action='run', selection=Selection(30 of 100 tokens), depth=3)"
    )
    assert "stages" in repr(Ledger.of(4)) and "dense" not in repr(Ledger.of(4))


def test_a_comparison_shows_its_rows_and_escapes_names() -> None:
    methods = ["none", "<b>odd</b>"]
    numbers = {name: [1.0, 0.5] for name in ("seconds", "seconds_q25", "seconds_q75", "work_ratio", "efficiency")}
    for name in ("speedup", "psnr", "ssim", "high_frequency_ssim"):
        numbers |= {name: [1.0, 0.9], f"{name}_low": [1.0, 0.8], f"{name}_high": [1.0, 0.95]}
    table = pd.DataFrame(
        numbers | {"n": 4, "timings": 2, "engaged": True, "peak_mib": 1.0}, index=pd.Index(methods, name="method")
    )
    empty = pd.DataFrame()
    facts = {"model": "<i>mine</i>", "seed": 1, "weights": "random"}
    found = Comparison(table, empty, empty, {}, {}, {}, facts)
    text, page = repr(found), found._repr_html_()
    assert text.startswith("2 methods on 4 prompts: <i>mine</i>, seed 1") and len(text.splitlines()) == 4
    assert "0.900 [0.800, 0.950]" in text and "0.500" in text
    assert "&lt;b&gt;odd" in page and "<b>" not in page and "<i>" not in page

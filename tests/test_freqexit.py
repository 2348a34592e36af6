"""Early exits: what may be asked for, what a cache holds, what it costs beside the published column."""

import warnings

import pytest
import torch

from tests.conftest import features, tiny_infinity, tiny_var
from tests.minis import refused
from varlab.accelerators import build
from varlab.accelerators.exit_account import account, exact_flops
from varlab.accelerators.freqexit import ROWS, read_exits, row_exits
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.state import Generation
from varlab.models.guidance import Settings
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARConfig, VARTransformer
from varlab.models.var_model import VAR

PUBLISHED = {"full": 1879, "a": 1664, "b": 1466, "c": 1448, "d": 1341}  # GFLOPs of table 1


def run(spec: str, labels: tuple[int, ...] = (3,)) -> Generation:
    return Run(tiny_var(), Settings(cfg=2.0), SeededNoise(7)).generate(labels, range(len(labels)), build([spec]))


def test_vectors_are_read_in_the_papers_shorthand() -> None:
    assert read_exits("16", 3) == (16, 16, 16)
    assert read_exits("16x5/12x5", 10) == (16,) * 5 + (12,) * 5
    assert read_exits("4/3/2/2", 4) == (4, 3, 2, 2)


def test_rows_scale_with_depth_and_stages() -> None:
    assert row_exits("b", 20, 10) == (16,) * 5 + (12,) * 5
    assert row_exits("d", 30, 10) == (15,) * 10
    assert row_exits("falling", 12, 5) == (10, 7, 7, 6, 6)
    assert row_exits("8", 2, 3) == (1, 1, 1)
    for row in ROWS:
        assert len(row_exits(row, 24, 13)) == 13


def test_what_cannot_run_is_refused() -> None:
    refused(lambda: run("freqexit:exits=4/3/2"), "lists 3 stages", "has 4")
    refused(lambda: run("freqexit:exits=5"), "stage 1 is to run 5 blocks", "has 4")
    refused(lambda: run("freqexit:exits=4/4/4/0"), "stage 4 is to run 0 blocks")
    refused(lambda: run("freqexit:exits=deep"), "neither a number")
    refused(lambda: run("freqexit:row=e"), "row in")
    refused(lambda: build(["freqexit"]), "exits or row")
    refused(lambda: build(["freqexit:exits=2,row=a"]), "exits or row")


def test_rising_exits_warn_and_deep_caches_miss_stages() -> None:
    with pytest.warns(UserWarning, match="rise at stage 2"):
        out = run("freqexit:exits=1/2/3/4")
    assert out.states[0].kv.lengths == [1 + 4 + 9 + 25, 4 + 9 + 25, 9 + 25, 25]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        falling = run("freqexit:exits=4/3/2/1")
    assert falling.states[0].kv.lengths == [39, 14, 5, 1]


def test_a_skipped_block_is_never_called() -> None:
    out = run("freqexit:exits=4/3/2/2", labels=(3, 7))
    assert [work.block_calls for work in out.ledger.stages] == [4, 3, 2, 2]
    assert [work.row_blocks for work in out.ledger.stages] == [4 * 4, 4 * 3, 4 * 2, 4 * 2]
    assert [work.token_blocks for work in out.ledger.stages] == [4 * 4 * 1, 4 * 3 * 4, 4 * 2 * 9, 4 * 2 * 25]
    report = out.reports[(0, 1)]["freqexit"]
    costs = account(tiny_var(), (4, 3, 2, 2), Settings(cfg=2.0))
    assert report == {
        "exits": [4, 3, 2, 2],
        "block_calls": 11,
        "weighted_depth": 84 / 39,
        "transformer_gflops": costs.transformer_gflops,
        "paper_gflops": costs.paper_gflops,
    }


def test_exits_work_on_infinity() -> None:
    out = Run(tiny_infinity(), Settings(cfg=2.0), SeededNoise(7)).generate(
        features(3), (0,), build(["freqexit:exits=2"])
    )
    assert out.ledger.engaged and out.image.isfinite().all()


@pytest.mark.parametrize("exits", [(4, 4, 4, 4), (4, 3, 2, 1), (1, 2, 3, 4)])
@pytest.mark.parametrize("shared", [False, True])
def test_the_account_equals_the_ledger(exits: tuple[int, ...], shared: bool) -> None:
    model, settings = tiny_var("square", shared), Settings(cfg=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        methods = build([f"freqexit:exits={'/'.join(map(str, exits))}"])
        out = Run(model, settings, SeededNoise(7)).generate([3], (0,), methods)
    assert exact_flops(model, exits, settings) == out.ledger.transformer_flops
    costs = account(model, exits, settings)
    assert costs.block_calls == sum(work.block_calls for work in out.ledger.stages)
    assert costs.weighted_depth == sum(work.token_blocks for work in out.ledger.stages) / 2 / 39


def test_the_published_column_of_d20() -> None:
    with torch.device("meta"):
        model = VAR(VARTransformer(VARConfig(20, 1280, 20)), VQTokenizer(VQConfig()), name="var-d20")
    for row, gflops in PUBLISHED.items():
        costs = account(model, row_exits(row, 20, 10))
        assert abs(costs.paper_gflops - gflops) < 1
    assert round(account(model, row_exits("full", 20, 10)).transformer_gflops) == 1143

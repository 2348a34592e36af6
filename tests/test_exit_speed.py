"""The speed of an exit: counts that are exact, and a time with its interval."""

import pytest

from tests.conftest import tiny_infinity, tiny_var
from tests.minis import refused
from varlab.studies.exits.speed import exit_speed


def test_an_exit_is_timed_beside_its_account() -> None:
    table = exit_speed(tiny_var("long"), ["2", "4x4/2x4"], batch=2, rounds=3).table.set_index("exits")
    assert table.block_calls.tolist() == [32, 16, 24] and table.loc["4", "transformer_ratio"] == 1
    assert table.weighted_depth.tolist()[:2] == [4, 2]
    assert 0 < table.loc["2", "low"] <= table.loc["2", "transformer_ratio"] <= table.loc["2", "high"]
    assert table.loc["4", "gflops"] > table.loc["4x4/2x4", "gflops"] > table.loc["2", "gflops"]


def test_what_has_no_account_or_no_such_block_is_refused() -> None:
    refused(lambda: exit_speed(tiny_infinity()), "of another family")
    refused(lambda: exit_speed(tiny_var(), ["9"]), "stage 1 is to run 9 blocks")
    refused(lambda: exit_speed(tiny_var(), ["2/2"]), "lists 2 stages")
    with pytest.warns(UserWarning, match="rise"):
        exit_speed(tiny_var(), ["1/2/2/2"], batch=1, rounds=1)

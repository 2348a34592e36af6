"""Axes of a log have names that one selects by: in memory, reopened, of version 1; with the same values."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import varlab as vl
from tests.conftest import tiny_infinity
from tests.minis import refused
from varlab.analysis import logs, tokens
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText
from varlab.runs import folders, log_run, sample
from varlab.runs.naming import numbered

PROMPTS = ["a red star", "a blue ring"]
PROBES = ("residual-spectrum:preview=full", "token-mse")
OLD = {"guidance_row": "branch", "sublayer": "site"}


@pytest.fixture(scope="module")
def model() -> Infinity:
    model = tiny_infinity()
    model.text = RandomText(model.transformer.config.text_width, rows=4)
    model.weights = "random (seed 0)"
    return model


@pytest.fixture(scope="module")
def log(model: Infinity) -> xr.DataTree:
    return sample(model, PROMPTS, probes=PROBES).log


def without_facts(log: xr.DataTree) -> xr.DataTree:
    """Those of a run folder are more."""
    log = log.copy()
    log.attrs = {}
    return log


def version_1(folder: Path, log: xr.DataTree) -> None:
    """A folder as it was written before axes had their names, with bands of frequency by number alone."""

    def group(data: xr.Dataset) -> xr.Dataset:
        if "frequency_band" in data.coords:
            del data["frequency_band"].attrs["names"]
        return data.rename({new: old for new, old in OLD.items() if new in data.dims})

    groups = {node.path: group(node.to_dataset(inherit=False)) for node in numbered(log).subtree}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = log.attrs | {"log_version": 1}
    folder.mkdir()
    tree.to_zarr(folder / folders.STORE, consolidated=False)


def test_values_are_selected_by_name(log: xr.DataTree) -> None:
    spectrum, change = log["residual-spectrum"], log["token-mse"]["mse"]
    assert spectrum["power"].sel(source="preview change").dims == ("prompt", "stage", "radius")
    assert spectrum["concentration"].sel(spread="contribution").shape == (2, 4)
    assert list(spectrum["band"].to_numpy()) == ["LL", "LH", "HL", "HH"]
    bands = ["0 to 0.0625", "0.0625 to 0.125", "0.125 to 0.25", "0.25 to 0.5", "above 0.5"]
    assert list(spectrum["frequency_band"].to_numpy()) == bands
    assert change.dims == ("prompt", "stage", "block", "sublayer", "guidance_row")
    assert list(change["sublayer"].values) == ["block", "attention", "cross", "ffn"]
    one = change.sel(sublayer="ffn", guidance_row="unconditional")
    np.testing.assert_array_equal(one.values, change.values[..., 3, 1])
    maps = log["token-mse/stage-02"]["mse"].sel(sublayer="attention", guidance_row="conditional")
    assert maps.dims == ("prompt", "block", "y", "x")


def test_a_log_is_the_same_in_memory_and_reopened(log: xr.DataTree, model: Infinity, tmp_path: Path) -> None:
    stored = log_run(model, PROMPTS, tmp_path / "run", probes=PROBES)
    for again in (stored, vl.open_log(tmp_path / "run")):
        xr.testing.assert_identical(without_facts(again), without_facts(log))
    folders.write_log(tmp_path, vl.open_log(tmp_path / "run"))
    xr.testing.assert_identical(vl.open_log(tmp_path), stored)
    text = json.loads((tmp_path / "log.zarr" / "residual-spectrum" / "source" / "zarr.json").read_text())
    assert text["data_type"] == "int64"  # text has no settled form in zarr
    assert text["attributes"]["names"] == list(log["residual-spectrum"]["source"].to_numpy())


def test_logs_of_version_1_are_read_with_the_axes_of_today(
    log: xr.DataTree, model: Infinity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_1(tmp_path / "old", log)
    xr.testing.assert_identical(without_facts(vl.open_log(tmp_path / "old")), without_facts(log))
    log_run(model, PROMPTS, tmp_path / "run", probes=PROBES)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"log_version": 1}))
    monkeypatch.setattr("varlab.runs.run.Job.run", lambda *_: pytest.fail("sampled again"))
    assert log_run(model, PROMPTS, tmp_path / "run", probes=PROBES).attrs["log_version"] == 2


def test_tables_give_the_same_of_either(log: xr.DataTree, tmp_path: Path) -> None:
    version_1(tmp_path / "old", log)
    old = vl.open_log(tmp_path / "old")
    for table in (tokens.sublayer_split_table, vl.figures.explained_share_table, vl.figures.wavelet_share_table):
        assert table(old).equals(table(log))
    assert set(tokens.sublayer_split_table(log)["sublayer"]) == {"attention", "cross", "ffn"}
    refused(lambda: logs.pick(log["residual-spectrum"].dataset["power"], source="latent"), "latent", "preview change")


def test_groups_are_the_same_of_a_log_and_of_the_folder_of_its_run(model: Infinity, tmp_path: Path) -> None:
    run = log_run(model, PROMPTS, tmp_path / "run", probes=PROBES, accelerators=["sparsevar:keep=0.5,last=1"])
    paths = logs.groups(run)
    kept = [path for path in paths if path.startswith("sparsevar/") and path.endswith("/kept")]
    assert len(kept) == 1 and {"token-mse", "residual-spectrum/power"} <= paths
    on_disk = logs.groups(tmp_path / "run")
    assert paths <= on_disk and all("/" in path for path in on_disk - paths)  # coordinates
    refused(lambda: logs.groups(tmp_path), "holds no log")


@pytest.mark.parametrize("manifest", [True, False])
def test_groups_of_a_damaged_log_are_refused_as_the_log_is(log: xr.DataTree, tmp_path: Path, manifest: bool) -> None:
    folders.write_log(tmp_path, log)
    shutil.rmtree(tmp_path / "log.zarr")
    (tmp_path / "log.zarr").mkdir()
    if not manifest:
        (tmp_path / "complete.json").unlink()
    assert refused(lambda: logs.groups(tmp_path), "damaged") == refused(lambda: vl.open_log(tmp_path), "damaged")

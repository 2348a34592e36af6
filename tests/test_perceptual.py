"""LPIPS from weights of one's own: the definition by hand, files of the official names, clear refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import varlab as vl
from varlab.comparison import compare, interleaved
from varlab.errors import VarlabError
from varlab.weights import lpips as perceptual
from varlab.weights.lpips import VARIABLE, load_lpips, shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in two files named and laid out as the official ones."""
    place = tmp_path_factory.mktemp("lpips")
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes().items()}
    alex = {name: value for name, value in made.items() if name.startswith("features")}
    torch.save(alex | {"classifier.6.bias": torch.zeros(3)}, place / "alexnet-owt-7be5be79.pth")
    torch.save({name: value.abs() for name, value in made.items() if name.startswith("lin")}, place / "alex.pth")
    return place


def test_it_is_the_sum_of_weighted_differences_of_unit_features(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 3, 3, 48, 64, generator=generator)
    lpips = load_lpips(folder)
    assert lpips is not None
    weights = torch.load(folder / "alexnet-owt-7be5be79.pth") | torch.load(folder / "alex.pth")
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    x, y = ((2 * image - 1 - shift) / scale for image in (a, b))
    expected = torch.zeros(3)
    plan = [(0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False)]
    for i, (layer, stride, padding, pool) in enumerate(plan):
        maps = []
        for z in (x, y):
            z = F.max_pool2d(z, 3, 2) if pool else z
            maps.append(F.conv2d(z, weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"], stride,
                                 padding).relu())  # fmt: skip
        x, y = maps
        apart = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
        expected += (apart * weights[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    assert lpips(a, b).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert lpips(a, a).tolist() == [0, 0, 0] and (lpips(a, b) > 0).all()


def test_many_images_go_in_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.rand(2, 5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    lpips = load_lpips(folder)
    assert lpips is not None
    whole, sizes, features = lpips(a, b), [], lpips.features

    def counted(image: torch.Tensor) -> list[torch.Tensor]:
        sizes.append(len(image))
        return features(image)

    monkeypatch.setattr(perceptual, "BATCH", 2)
    monkeypatch.setattr(lpips, "features", counted)
    assert torch.allclose(lpips(a, b), whole, rtol=1e-5) and sizes == [2, 2, 2, 2, 1, 1]


def test_pictures_too_small_stop_before_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "Bench", None)
    monkeypatch.setattr(perceptual, "LEAST", 1000)
    with pytest.raises(VarlabError, match="1000 pixels"):
        compare(vl.load("nano-infinity"), ["a star"], [], n=1, lpips=folder)


def test_what_is_missing_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert load_lpips() is None
    with pytest.raises(VarlabError, match=r"alexnet-owt-7be5be79.pth and alex.pth"):
        load_lpips(tmp_path / "gone")
    (tmp_path / "alex.pth").write_bytes((folder / "alex.pth").read_bytes())
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(VarlabError, match=r"features\.0\.bias"):
        load_lpips()
    lpips = load_lpips(folder)
    assert lpips is not None
    with pytest.raises(VarlabError, match="at least 31 pixels"):
        lpips(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_a_comparison_has_the_column_where_weights_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    found = compare(vl.load("nano-infinity"), "scenes", ["truncate:last=2"], n=2, batch=2, lpips=folder, frontier=False)
    row = found.table.loc["truncate:last=2"]
    assert 0 < row.lpips_low <= row.lpips <= row.lpips_high and found.table.loc["none"].lpips == 0
    assert "LPIPS" in found.fidelity() and np.isfinite(found.prompts.lpips).all()

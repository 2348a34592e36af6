"""Probes on what a method leaves out: subsets of tokens, split batches, skipped stages; and on previews."""

import numpy as np
import pytest
import torch

from tests.conftest import tiny_infinity
from tests.engine_runs import Keep, Split
from tests.probe_runs import run, values
from varlab.engine.hooks import Accelerator
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.previews import Previews
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.measures.spectra import high_frequency_share
from varlab.models.infinity_model import Infinity
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.probes import PROBES, build
from varlab.probes.base import preview_grid
from varlab.probes.log import Group, join, load, save
from varlab.probes.residual_spectrum import SOURCES


def test_a_token_subset_leaves_holes_in_the_maps() -> None:
    mask = torch.arange(15) % 3 == 0
    log, _, _, _ = run(("token-mse", "branch-divergence"), (Keep(mask),))
    for name, variable in (("token-mse", "mse"), ("branch-divergence", "relative_mse")):
        last = values(log[f"{name}/stage-04"], variable)
        seen = np.isfinite(last.reshape(-1, 15)).all(0)
        assert (seen == mask.numpy()).all()


def test_a_split_batch_is_logged_in_order_with_holes() -> None:
    dense, _, _, _ = run(("token-mse", "branch-divergence"))
    split, _, _, _ = run(("token-mse", "branch-divergence"), (Split(),))
    a, b = values(dense["token-mse"], "mse"), values(split["token-mse"], "mse")
    assert np.isnan(b[0, 2:]).all() and np.allclose(a[0, :2], b[0, :2], rtol=1e-4)
    assert np.allclose(a[1, :3], b[1, :3], rtol=1e-4)
    assert np.isfinite(b[1, 3, ..., 0]).all() and np.isnan(b[1, 3, ..., 1]).all()


def test_an_image_that_stops_early_is_compared_with_its_own_last_picture() -> None:
    log, _, _, _ = run(("step-redundancy", "residual-spectrum:preview=full"), (Split(),))
    steps, spectra = log["step-redundancy"], log["residual-spectrum"]
    for image, last in ((0, 1), (1, 3)):
        assert values(steps, "energy_left")[image, last] == 0 and np.isinf(values(steps, "psnr")[image, last])
        assert np.isfinite(values(steps, "energy_left")[image, :last]).all()
        assert np.allclose(values(steps, "ssim")[image, last], 1) and np.isfinite(values(steps, "psnr")[image, 0])
        explained = values(spectra, "explained_share")[image, last]
        assert np.allclose(explained[np.isfinite(explained)], 1, atol=1e-5) and np.isfinite(explained).any()
    for name in ("energy_left", "psnr", "ssim"):
        assert np.isnan(values(steps, name)[0, 2:]).all()
    assert np.isnan(values(spectra, "explained_share")[0, 2:]).all()


class Skip(Accelerator):
    """Leaves out some stages."""

    name = "skip-some"

    def __init__(self, *stages: int) -> None:
        self.skipped = stages

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan("skip") if stage.index in self.skipped else RUN


def test_a_change_is_against_what_was_shown_before() -> None:
    log, seen, _, model = run(("residual-spectrum:preview=full",), (Skip(1),))
    change = model.decode(seen.canvas[2][2]) - model.decode(seen.canvas[0][2])
    expected = high_frequency_share(change, channel_dim=-3)
    share = values(log["residual-spectrum"], "high_frequency_share")
    assert np.allclose(share[:, 2, SOURCES.index("preview change")], expected, atol=1e-4)
    assert np.isnan(share[:, 1]).all()


def test_skipping_everything_logs_nothing_and_joins() -> None:
    names = tuple(PROBES)
    none, _, _, _ = run(names, (Skip(0, 1, 2, 3),))
    dense, _, _, _ = run(names)
    for name in ("mse", "step_mse"):
        assert np.isnan(values(none["token-mse"], name)).all()
    for group in none.values():
        assert all(v.shape[0] == 2 for _, v, _ in group.variables.values())
    assert np.isnan(values(none["step-redundancy"], "energy_left")).all()
    for both in (join([none, dense]), join([dense, none])):
        assert all(len(group.samples) == 4 for group in both.values()) and set(both) == set(dense)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
def test_previews_are_an_eighth_of_the_side_but_32_pixels_where_there_are_as_many(stride: int) -> None:
    for side in range(1, 200):
        found, other = preview_grid((side, 3 * side), stride)
        assert other == preview_grid((3 * side, 1), stride)[0]  # each side for itself
        pixels, whole = found * stride, side * stride
        assert found == side // 8 if whole >= 256 else pixels == min(32, whole)


def test_previews_of_two_latents_are_decoded_and_compared() -> None:
    """The least grid of a stride of 16, by a decoder of that stride: 32 pixels hold SSIM's window."""
    images = BSQConfig(bits=4, channels=8, multipliers=(1, 1, 1, 1, 2), blocks=1, norm_groups=4)
    model = tiny_infinity("odd-tall")
    model = model.with_(tokenizer=BSQTokenizer(images).eval().requires_grad_(False))
    log, _, _, _ = run(tuple(PROBES), model=model)
    steps = log["step-redundancy"]
    assert steps.attrs["preview_pixels"] == [32, 32] and np.isfinite(values(steps, "high_frequency_ssim")).all()
    assert np.isfinite(values(log["residual-spectrum"], "power")[:, -1, 3]).any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("token-msee", "Did you mean token-mse"),
        ("token-mse:previus=true", "Did you mean previous"),
        ("token-mse:previous=maybe", "true or false"),
        ("residual-spectrum:preview=fulll", "Did you mean full"),
        ("residual-spectrum:preview", "has no value"),
    ],
)
def test_mistyped_probes_name_the_near_ones(spec: str, message: str) -> None:
    with pytest.raises(VarlabError, match=message):
        build([spec])


def test_groups_survive_the_disk_and_join_along_prompts(tmp_path) -> None:  # type: ignore[no-untyped-def]
    log, _, _, _ = run(tuple(name for name in PROBES if name != "step-redundancy"))
    save(tmp_path / "part.npz", log)
    again = load(tmp_path / "part.npz")
    both = join([log, again])
    assert log and log.keys() == again.keys() == both.keys()
    for path, group in log.items():
        assert again[path].dataset().identical(group.dataset())
        for name in group.variables:
            assert np.array_equal(values(both[path], name)[2:], values(group, name), equal_nan=True)


def test_previews_of_all_stages_are_decoded_together_once_the_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> tuple[list[int], dict[str, Group]]:
        sizes: list[int] = []
        decode = Infinity.decode

        def counted(self: Infinity, canvas: torch.Tensor) -> torch.Tensor:
            sizes.append(len(canvas))
            return decode(self, canvas)

        monkeypatch.setattr(Infinity, "decode", counted)
        log, _, _, _ = run(("residual-spectrum", "step-redundancy"))
        monkeypatch.setattr(Infinity, "decode", decode)
        return sizes, log

    sizes, together = drawn()
    assert sizes == [2, 8]  # both images, then four previews of each, which the two probes share
    monkeypatch.setattr("varlab.engine.previews.LEAST", 0)  # no more at once than the final images
    sizes, alone = drawn()
    assert sizes == [2, 2, 2, 2, 2]
    for name, (_, found, _) in together["step-redundancy"].variables.items():
        assert np.allclose(found, values(alone["step-redundancy"], name), rtol=1e-5, equal_nan=True)


def test_a_preview_that_a_method_needs_at_once_is_not_decoded_again() -> None:
    decoded: list[torch.Tensor] = []

    class Decoder:
        def resize(self, canvas: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
            return canvas

        def decode(self, canvas: torch.Tensor) -> torch.Tensor:
            decoded.append(canvas)
            return canvas + 1

    previews, first, second = Previews(Decoder()), torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)  # type: ignore[arg-type]
    waits = [previews.later(first, (2, 2)), previews.later(second, (2, 2)), previews.later(second, (2, 2))]
    assert previews.now(second, (2, 2)) is previews.now(second, (2, 2)) and len(decoded) == 1
    previews.draw()
    assert waits[1] is waits[2] and len(decoded) == 2
    assert [float(w.image.mean()) for w in waits if w.image is not None] == [1, 2, 2]

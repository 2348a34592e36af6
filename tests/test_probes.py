"""What probes log against the same quantity computed the plain way from the captured tensors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import features, tiny_infinity
from tests.probe_runs import run, values
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.loop import Run
from varlab.engine.memory import PIECE, Buffers
from varlab.engine.plan import RUN, StagePlan
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.measures.metrics import edge_energy, psnr
from varlab.measures.spectra import high_frequency_share
from varlab.models.guidance import Settings
from varlab.probes import build
from varlab.probes.residual_spectrum import SOURCES
from varlab.probes.token_mse import TokenMSE
from varlab.schedules import square


def test_token_mse_is_the_mean_square_change_of_every_token() -> None:
    log, seen, _, model = run(("token-mse",))
    main = log["token-mse"]
    assert len(seen.blocks) == len(model.schedule) * model.depth
    for (k, b), (x_in, x_out) in seen.blocks.items():
        change = (x_out - x_in).square().mean(-1)  # [4, n]: two conditional, two unconditional rows
        relative = change.mean(-1) / x_in.square().mean((1, 2))
        for image in range(2):
            for branch in range(2):
                row = image + 2 * branch
                place = (image, k, b, 0, branch)
                assert np.isclose(values(main, "mse")[place], change[row].mean(), rtol=1e-4)
                assert np.isclose(values(main, "relative_mse")[place], relative[row], rtol=1e-4)
                map_ = values(log[f"token-mse/stage-{k + 1:02d}"], "mse")[image, b, 0, branch]
                assert np.allclose(map_, change[row].view(model.schedule.grids[k]), rtol=1e-4)
    attention = seen.branches[3, 2, "attention"].square().mean((1, 2))
    assert np.allclose(values(main, "mse")[:, 3, 2, 1].T.flatten(), attention, rtol=1e-4)


def test_edge_correlation_ranks_tokens_against_the_final_image() -> None:
    from scipy.stats import spearmanr

    log, seen, out, model = run(("token-mse",))
    x_in, x_out = seen.blocks[3, 1]
    change = (x_out - x_in).square().mean(-1)
    edges = edge_energy(out.image, model.schedule.grids[3]).flatten(1)
    for image in range(2):
        expected = spearmanr(change[image], edges[image]).statistic
        assert np.isclose(values(log["token-mse"], "edge_correlation")[image, 3, 1, 0, 0], expected, atol=1e-4)
        rows = change[image] + change[image + 2]
        expected = spearmanr(rows, edges[image]).statistic
        assert np.isclose(values(log["token-mse"], "edge_correlation_rows")[image, 3, 1, 0], expected, atol=1e-4)


def test_change_against_the_previous_stage() -> None:
    log, seen, _, model = run(("token-mse",))
    coarse, fine = model.schedule.grids[2], model.schedule.grids[3]
    before = seen.blocks[2, 0][1][:2].mT.unflatten(-1, coarse)
    up = F.interpolate(before, size=fine, mode="nearest").flatten(2).mT
    now = seen.blocks[3, 0][1][:2]
    step = (now - up).square().mean((1, 2))
    assert np.allclose(values(log["token-mse"], "step_mse")[:, 3, 0], step, rtol=1e-4)
    relative = step / now.square().mean((1, 2))
    assert np.allclose(values(log["token-mse"], "relative_step_mse")[:, 3, 0], relative, rtol=1e-4)
    cosine = F.cosine_similarity(now, up, dim=-1).mean(-1)
    assert np.allclose(values(log["token-mse"], "step_cosine")[:, 3, 0], cosine, atol=1e-4)
    assert np.isnan(values(log["token-mse"], "step_mse")[:, 0]).all()


def test_branch_divergence_of_states_and_predictions() -> None:
    log, seen, _, model = run(("branch-divergence",))
    main = log["branch-divergence"]
    assert len(seen.blocks) == len(model.schedule) * model.depth and len(seen.logits) == len(model.schedule)
    for (k, b), (_, x) in seen.blocks.items():
        cond, uncond = x.chunk(2)
        relative = ((cond - uncond).square().sum(-1) / cond.square().sum(-1)).mean(-1)
        assert np.allclose(values(main, "relative_mse")[:, k, b], relative, rtol=1e-3)
        cosine = F.cosine_similarity(cond, uncond, dim=-1).mean(-1)
        assert np.allclose(values(main, "cosine")[:, k, b], cosine, atol=1e-4)
    for k, (cond, other, guided) in seen.logits.items():
        assert other is not None
        uncond = other
        p, q = cond.softmax(-1), uncond.softmax(-1)
        kl = (p * (p / q).log()).sum(-1).mean((1, 2))
        assert np.allclose(values(main, "kl")[:, k], kl, rtol=1e-3)
        flips = (cond.argmax(-1) != uncond.argmax(-1)).float().mean((1, 2))
        assert np.allclose(values(main, "flip_share")[:, k], flips)
        changed = (cond.argmax(-1) != guided.argmax(-1)).float().mean((1, 2))
        assert np.allclose(values(main, "guidance_changes")[:, k], changed)
        # Every flipped bit moves its code by twice its size.
        assert np.allclose(values(main, "guidance_code_change")[:, k], 4 * changed, rtol=1e-4)


@pytest.mark.parametrize("layers", [(-1,), (0, -1)])
def test_guidance_within_the_network_leaves_no_plain_prediction(layers: tuple[int, ...]) -> None:
    log, _, _, _ = run(("branch-divergence",), cfg_layers=layers)
    for name in ("kl", "flip_share", "guidance_changes", "guidance_code_change"):
        assert np.isnan(values(log["branch-divergence"], name)).all()
    assert np.isfinite(values(log["branch-divergence"], "drawn_differs")).all()


def test_outputs_are_kept_only_for_a_later_stage_and_without_the_other_row() -> None:
    model = tiny_infinity("odd-tall")
    probe = TokenMSE()
    held: list[tuple[int, set[int]]] = []

    class Watch(Probe):
        def on_residual(self, stage, codes, before, canvas) -> None:  # type: ignore[no-untyped-def]
            outputs = [x for _, x, _ in probe.outputs.values()]
            held.append((len(outputs), {x.untyped_storage().nbytes() for x in outputs}))

    Run(model, Settings(cfg=2.0), SeededNoise(7), [probe, Watch()]).generate(features(3, 5), (0, 1))
    room = model.depth * 2 * max(model.schedule.lengths[:-1]) * model.width * 4  # both images, one row each
    assert held == [(model.depth, {room})] * 3 + [(0, set())]


def test_a_batch_that_splits_at_once_into_a_small_and_a_large_part_is_logged() -> None:
    class Uneven(Accelerator):
        def plan(self, stage: Stage) -> list[StagePlan]:
            return [RUN if image == 0 else StagePlan(depth=2) for image in stage.samples]

    (probe,) = build(("token-mse",))
    Run(tiny_infinity("odd-tall"), Settings(cfg=2.0), SeededNoise(7), [probe]).generate(
        features(3, 5, 4), (0, 1, 2), [Uneven()]
    )
    steps = values(probe.log()["token-mse"], "step_mse")
    assert np.isfinite(steps[0, 1:]).all() and np.isfinite(steps[1:, 1:, :2]).all()


def test_blocks_of_large_stages_log_the_figures_of_those_reduced_together(monkeypatch: pytest.MonkeyPatch) -> None:
    together, _, _, _ = run(("token-mse", "branch-divergence"))
    monkeypatch.setattr("varlab.engine.norms.SMALL", 0)  # every stage counts as a large one
    monkeypatch.setattr("varlab.engine.memory.PIECE", 100)
    alone, _, _, _ = run(("token-mse", "branch-divergence"))
    assert together and together.keys() == alone.keys()
    for name, group in together.items():
        for variable, (_, found, _) in group.variables.items():
            assert np.allclose(found, alone[name].variables[variable][1], rtol=1e-5, atol=1e-7, equal_nan=True)


def test_a_shelf_cuts_rooms_that_do_not_overlap() -> None:
    buffers = Buffers(torch.device("cpu"))
    rooms = [buffers.empty((3, 5)).fill_(i) for i in range(4)] + [buffers.empty((2 * PIECE,)).fill_(4)]
    other = buffers.empty((7,), torch.bfloat16)
    assert [room.unique().tolist() for room in rooms] == [[0], [1], [2], [3], [4]] and other.dtype == torch.bfloat16
    assert len({room.untyped_storage().data_ptr() for room in rooms}) == 2


def test_a_stage_without_guidance_has_no_divergence_of_predictions() -> None:
    log, _, _, _ = run(("branch-divergence", "token-mse"), cfg=(2.0, 2.0, 2.0, 1.0))
    main = log["branch-divergence"]
    assert np.isnan(values(main, "kl")[:, 3]).all() and np.isfinite(values(main, "kl")[:, 2]).all()
    assert np.isfinite(values(main, "relative_mse")[:, 3]).all()  # both branches still run
    alone, _, _, _ = run(("branch-divergence", "token-mse"), cfg=1.0)
    assert np.isnan(values(alone["branch-divergence"], "relative_mse")).all()
    mse = values(alone["token-mse"], "mse")
    assert np.isfinite(mse[..., 0]).all() and np.isnan(mse[..., 1]).all()


def test_spectra_of_every_source() -> None:
    log, seen, out, model = run(("residual-spectrum:preview=full",))
    main = log["residual-spectrum"]
    share = values(main, "high_frequency_share")
    before = torch.full_like(out.image, 0.5)
    for k, (codes, old, new) in seen.canvas.items():
        preview = model.decode(new)
        maps = dict(zip(SOURCES, (codes, new - old, new, preview, preview - before), strict=True))
        before = preview
        for s, source in enumerate(SOURCES):
            expected = high_frequency_share(maps[source], channel_dim=-3)
            assert np.allclose(share[:, k, s], expected, atol=1e-4, equal_nan=True), (k, source)
        energy = (new - old).square().sum(1)
        assert np.allclose(values(log[f"residual-spectrum/stage-{k + 1:02d}"], "energy"), energy, rtol=1e-4)
    explained = values(main, "explained_share")
    assert np.allclose(explained[:, -1][np.isfinite(explained[:, -1])], 1, atol=1e-5)
    assert np.isnan(share[:, 0, 0]).all()  # one token has no frequency


def test_a_preview_too_small_for_ssim_stops_before_work() -> None:
    with pytest.raises(VarlabError, match="at least 11 pixels"):
        run(("step-redundancy",), model=tiny_infinity().with_(schedule=square((1, 2), "8px")))


def test_step_redundancy_compares_with_the_last_preview() -> None:
    log, seen, out, model = run(("step-redundancy",))
    main = log["step-redundancy"]
    assert np.isinf(values(main, "psnr")[:, -1]).all() and np.allclose(values(main, "ssim")[:, -1], 1)
    first = model.decode(seen.canvas[0][2]).clamp(0, 1)
    assert np.allclose(values(main, "psnr")[:, 0], psnr(first, out.image), rtol=1e-4)
    left = (seen.canvas[3][2] - seen.canvas[1][2]).square().sum((1, 2, 3)) / seen.canvas[3][2].square().sum((1, 2, 3))
    assert np.allclose(values(main, "energy_left")[:, 1], left, rtol=1e-4)

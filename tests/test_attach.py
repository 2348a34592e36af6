"""Samplers of others under the same probes: on the same weights the log is that of our own engine, to the bit."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import varlab as vl
from tests.conftest import features, hart_features, tiny_hart, tiny_infinity, tiny_var
from varlab.attached.standins import hart, infinity, var
from varlab.attached.streams import BlockCall, Snapshots
from varlab.engine.context import Context
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site
from varlab.models.hart_model import Hart
from varlab.models.infinity import TextBatch
from varlab.models.infinity_model import Infinity
from varlab.probes import PROBES
from varlab.probes.token_mse import TokenMSE
from varlab.reports.notebooks import read_notebook
from varlab.resources import shipped

ALL = tuple(PROBES)
ARGMAX = {"top_k": 1, "top_p": 0.0}


def values(log: xr.DataTree) -> dict[tuple[str, str], np.ndarray]:
    """All variables but those of the attachment itself."""
    return {
        (node.path, str(name)): node.to_dataset()[name].values
        for node in log.subtree
        for name in node.data_vars
        if not node.path.startswith("/attached")
    }


def differing(one: xr.DataTree, other: xr.DataTree) -> list[tuple[str, str]]:
    ours, theirs = values(one), values(other)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 40
    return [key for key in ours if not np.array_equal(ours[key], theirs[key], equal_nan=True)]


def draw(own: Infinity, text: TextBatch, model: Any = None, **more: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Of a stand-in: what was attached, and its picture without and with that."""
    model, vae = model or infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    given = infinity.arguments(own, text, vae=vae, **more)
    plain = model.autoregressive_infer_cfg(**given)[2]
    with vl.attach(model, vae=vae) as hooked:
        heard = model.autoregressive_infer_cfg(**given)[2]
    return hooked, plain, heard


# The notebook


@pytest.mark.parametrize("family", ["infinity", *(pytest.param(f, marks=pytest.mark.slow) for f in ("hart", "var"))])
def test_the_notebook_on_forks_shows_every_family(family: str) -> None:
    names: dict[str, Any] = {}
    for cell in read_notebook(shipped("notebooks") / "start" / "fork.ipynb").cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names["family"] = family  # over what the first cell says
    assert names["own"].family == names["log"].attrs["family"] == family
    assert names["log"].attrs["prompts"] == names["prompts"] and len(names["hooked"].images) == 2
    assert names["same"].passed
    plt.close("all")


# What the hooks cost


class Told(TokenMSE):
    """Keeps what it is told of the blocks."""

    def start(self, context: Context) -> None:
        super().start(context)
        self.heard: list[tuple[Tensor, Tensor]] = []

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        super().on_block(site, x_in, x_out)
        self.heard.append((x_in, x_out))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_all_probes_are_told_one_copy_of_a_stream(mode: Callable[[], Any]) -> None:
    """So that they share its norms, and a block that of the block before."""
    second = type("Second", (Told,), {"name": "second"})
    probes, model = [Told(), second()], var.StandIn(tiny_var("square"))
    with mode(), vl.attach(model, probes=probes):
        model.autoregressive_infer_cfg(2, torch.tensor([3, 7]), 0, cfg=2.0, top_k=1)
    one, other = (probe.heard for probe in probes)
    assert all(a is b for pair, twin in zip(one, other, strict=True) for a, b in zip(pair, twin, strict=True))
    within = [k for k in range(1, len(one)) if k % len(model.blocks)]
    assert within and all(one[k][0] is one[k - 1][1] for k in within)


def test_a_stream_that_is_written_over_between_blocks_is_copied_again() -> None:
    class Doubling(var.StandIn):
        def run_blocks(self, x: Tensor, si: int, cond_BD: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x=x, cond_BD=cond_BD, attn_bias=None)
                x *= 2
            return x

    probe, model = Told(), Doubling(tiny_var("square"))
    with torch.inference_mode(), vl.attach(model, probes=[probe]):
        model.autoregressive_infer_cfg(1, torch.tensor([3]), 0, cfg=2.0, top_k=1)
    assert torch.equal(probe.heard[1][0], 2 * probe.heard[0][1])


def test_without_probes_blocks_are_counted_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    own, text = tiny_infinity("square"), features(4)
    with_all, *_ = draw(own, text)

    def read(*_: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Snapshots, "take", read)
    monkeypatch.setattr(BlockCall, "add", read)
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    with vl.attach(model, vae=vae, probes=()) as hooked:
        model.autoregressive_infer_cfg(**infinity.arguments(own, text, vae=vae))
    for name in ("share", "guidance_rows", "blocks"):
        assert np.array_equal(hooked.log["attached"][name], with_all.log["attached"][name])


# The same log


@pytest.mark.parametrize(
    ("schedule", "lengths", "settings"),
    [
        ("odd-tall", (5, 5), {"cfg": 2.0, "tau": 1.0}),
        ("square", (3, 6), {"cfg": (2.0, 1.0, 3.0, 1.5), "tau": (1.0, 0.5, 0.7, 1.0)}),
        ("square", (4,), {"cfg": 2.5, "tau": 0.5, "cfg_layers": (-2,)}),
        ("long", (4,), {"cfg": 1.0, "tau": 1.0}),
    ],
)
@pytest.mark.parametrize("patchify", [False, True])
def test_infinity_logs_what_our_engine_logs(
    schedule: str, lengths: tuple[int, ...], settings: dict[str, Any], patchify: bool
) -> None:
    own, text = tiny_infinity(schedule, patchify=patchify), features(*lengths)
    run = vl.sample(own, text, probes=ALL, batch=2, **settings, **ARGMAX)
    lists = {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}
    hooked, plain, heard = draw(
        own, text, cfg_list=lists["cfg"], tau_list=lists["tau"], cfg_insertion_layer=lists.get("cfg_layers", [0])
    )
    assert torch.equal(plain, heard)
    assert differing(run.log, hooked.log) == []
    assert hooked.log.attrs["unseen"] == []
    ours = [np.array(picture) for picture in run.images]
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(ours, hooked.images, strict=True))
    assert np.array_equal(ours[0][..., ::-1], heard[0].numpy())  # the released sampler returns BGR


@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
def test_the_canvas_grows_by_the_interpolation_of_the_tokenizer(mode: str) -> None:
    own, text = tiny_infinity("odd-tall"), features(4)
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    model.exact, vae.quantizer.z_interplote_up = False, mode  # type: ignore[assignment]
    with vl.attach(model, vae=vae) as hooked:
        model.autoregressive_infer_cfg(**infinity.arguments(own, text, vae=vae))
    assert hooked.log.attrs["unseen"] == []
    run = vl.sample(own, text, probes=ALL, cfg=2.0, tau=1.0, **ARGMAX)
    ours, theirs = values(run.log), values(hooked.log)
    near = [np.allclose(ours[key], theirs[key], rtol=1e-3, atol=1e-4, equal_nan=True) for key in ours]
    assert all(near) == (mode == "trilinear")


def test_forced_codes_are_logged_as_they_are_added() -> None:
    own, text = tiny_infinity("square"), features(4)
    bits = {k: torch.rand(1, 1, h, w, 4, generator=torch.Generator().manual_seed(k)) > 0.5
            for k, (h, w) in enumerate(own.schedule.grids)}  # fmt: skip
    from varlab.engine.loop import Run
    from varlab.probes import build
    from varlab.probes.log import tree

    probes = build(ALL)
    forced = {k: own.labels_of(grid.squeeze(1)) for k, grid in bits.items()}
    Run(own, own.settings, SeededNoise(0), probes, forced=forced, choose=lambda x: x.argmax(-1)).generate(text, [0])
    ours = tree({path: group for probe in probes for path, group in probe.log().items()}, {})
    hooked, *_ = draw(own, text, gt_leak=9, gt_ls_Bl=bits)
    assert differing(ours, hooked.log) == [("/branch-divergence", "drawn_differs")]  # drawn in ours, leaked in theirs


@pytest.mark.parametrize("variant", [{}, {"shared": True}, {"cosine": False}])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_var_logs_what_our_engine_logs(variant: dict[str, bool], mode: Callable[[], Any]) -> None:
    own = tiny_var("square", **variant)
    run = vl.sample(own, ["3", "7"], probes=ALL, batch=2, cfg=2.0, **ARGMAX)
    model = var.StandIn(own)
    with mode(), vl.attach(model) as hooked:
        picture = model.autoregressive_infer_cfg(2, torch.tensor([3, 7]), 0, cfg=2.0, top_k=1)
    assert torch.equal(picture, model.autoregressive_infer_cfg(2, torch.tensor([3, 7]), 0, 2.0, 1))
    assert differing(run.log, hooked.log) == []
    assert hooked.log.attrs["prompts"] == ["3", "7"]
    assert hooked.log.attrs["unseen"] == []


VARIANTS: list[dict[str, Any]] = [
    {},
    {"unit_attention": True},
    {"modulation": "block", "learned_levels": True, "context_norm": False},
    {"modulation": "block", "pooling": "mean"},
]


def hart_call(own: Hart, text: Any, **more: Any) -> dict[str, Any]:
    return {"B": len(text.features), "label_B": text.features, "g_seed": 0, "cfg": 2.0, "top_k": 1,
            "context_position_ids": text.positions, "context_mask": text.mask} | more  # fmt: skip


def hart_standin(own: Hart, images: tuple[int, ...]) -> hart.StandIn:
    """Its diffusion head draws the numbers of our engine."""
    last, n = len(own.schedule) - 1, own.schedule.lengths[-1]
    shape, noise = (n, own.tokenizer.config.latents), SeededNoise(0)
    return hart.StandIn(own, lambda kind, places: noise.normal(kind, last, images, shape)[:, places])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("residual", [True, False])
def test_hart_logs_what_our_engine_logs(variant: dict[str, Any], residual: bool) -> None:
    own, text = tiny_hart(**variant), hart_features(3, 5)
    run = vl.sample(own, text, probes=ALL, batch=2, cfg=2.0, smooth=False, residual=residual, **ARGMAX)
    model = hart_standin(own, (0, 1))
    given = hart_call(own, text, final_stage=0 if residual else 2)
    plain = model.autoregressive_infer_cfg(**given)
    with vl.attach(model) as hooked:
        assert torch.equal(plain, model.autoregressive_infer_cfg(**given))
    assert differing(run.log, hooked.log) == []
    assert hooked.log.attrs["unseen"] == []


def test_last_stage_of_hart_in_passes() -> None:
    own, text = tiny_hart(), hart_features(5)
    run = vl.sample(own, text, probes=ALL, cfg=2.0, smooth=False, passes=3, **ARGMAX)
    model = hart_standin(own, (0,))
    order = SeededNoise(0).uniform("order", len(own.schedule) - 1, (0,), (own.schedule.lengths[-1], 1))
    model.turns = own.passes(len(own.schedule) - 1, run_settings(own, 3), lambda *_: order)[0]  # type: ignore[index]
    with vl.attach(model) as hooked:
        model.autoregressive_infer_cfg(**hart_call(own, text, num_maskgit_iters=3))
    ours, theirs = values(run.log), values(hooked.log)
    assert ours.keys() == theirs.keys()
    for key, wanted in ours.items():
        if "step_" in key[1]:
            wanted, found = wanted[:, :-1], theirs[key][:, :-1]  # a pass is not compared with the stage before
        elif key[1] == "flops":
            continue  # ours sees all passes at once
        else:
            found = theirs[key]
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-5, err_msg=str(key))
    assert np.allclose(hooked.log["attached"].share, 1)


def run_settings(own: Hart, passes: int) -> Any:
    from dataclasses import replace

    return replace(own.settings, passes=passes)


def test_mixtures_of_codes_hide_the_labels_and_nothing_else() -> None:
    own, text = tiny_hart(), hart_features(5)
    model = hart_standin(own, (0,))
    with vl.attach(model) as hooked:
        model.autoregressive_infer_cfg(**hart_call(own, text, more_smooth=True))
    log = hooked.log
    assert log["branch-divergence"].drawn_differs[:, :-1].isnull().all()  # the last stage looks them up for its head
    assert log["branch-divergence"].kl[:, 1:].notnull().all()
    assert log["token-mse"].mse.notnull().all()
    assert any("labels" in fact for fact in log.attrs["unseen"])


def test_random_draws_are_those_of_the_sampler_alone() -> None:
    """From the global generator and from one of the call's own."""
    own = tiny_hart()
    model, text = hart.StandIn(own), hart_features(4)
    torch.manual_seed(5)
    plain = model.autoregressive_infer_cfg(**hart_call(own, text, top_k=0, num_maskgit_iters=2))
    torch.manual_seed(5)
    with vl.attach(model):
        heard = model.autoregressive_infer_cfg(**hart_call(own, text, top_k=0, num_maskgit_iters=2))
    assert torch.equal(plain, heard)

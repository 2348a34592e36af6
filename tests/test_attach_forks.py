"""What forks change between modules, such as skipped scales, fewer rows or tokens: seen, or named as unseen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import varlab as vl
from tests.conftest import features, tiny_infinity, tiny_var
from varlab.attached.standins import infinity, var
from varlab.probes import PROBES

ALL = tuple(PROBES)


class Skips(infinity.StandIn):
    """Leaves out whole scales."""

    def skips(self, si: int) -> bool:
        return si == 2


class OneRow(infinity.StandIn):
    """Drops the unconditional rows from the last stage but one on, keys and values with them."""

    def run_blocks(self, x: Tensor, si: int, B: int, cfg: float, layers: Any, **given: Any) -> Tensor:
        if si >= 2:
            x = x[:B]
            kv, ends, longest = given["ca_kv"]
            given |= {"cond_BD": given["cond_BD"][:B], "ca_kv": (kv[: int(ends[B])], ends[: B + 1], longest)}
            for block in self.unregistered_blocks:
                block.sa.cached = tuple(part[:B] for part in block.sa.cached)
        return super().run_blocks(x, si, B, cfg, layers, **given)


class Prunes(infinity.StandIn):
    """Hands the blocks of the last stage a part of the tokens, and puts the others back as they came."""

    kept: Tensor

    def run_blocks(self, x: Tensor, si: int, B: int, cfg: float, layers: Any, **given: Any) -> Tensor:
        if si < 3:
            return super().run_blocks(x, si, B, cfg, layers, **given)
        out = x.clone()
        out[:, self.kept] = super().run_blocks(x[:, self.kept], si, B, cfg, layers, places=self.kept, **given)
        return out


class MergesWithin(infinity.StandInBlock):
    """As FastVAR: full streams between blocks, but a sublayer inside runs on a part of the tokens."""

    def forward(self, x: Tensor, cond_BD: Tensor, **given: Any) -> Tensor:  # type: ignore[override]
        if x.shape[1] < 15:
            return super().forward(x, cond_BD, **given)
        kept = torch.arange(0, x.shape[1], 2)
        part = super().forward(x[:, kept], cond_BD, places=kept, **given)
        out = x.clone()
        out[:, kept] = part
        return out


def draw(kind: type[infinity.StandIn], change: Callable[[Any], None] = lambda model: None, **more: Any) -> Any:
    """A log of two images, with an unchanged sampler's beside it."""
    own, text = tiny_infinity("odd-tall"), features(4, 4)
    logs = []
    for each in (kind, infinity.StandIn):
        model, vae = each(own), infinity.StandInVAE(own.tokenizer)
        if each is kind:
            change(model)
        with vl.attach(model, vae=vae, **(more if each is kind else {})) as hooked:
            model.autoregressive_infer_cfg(**infinity.arguments(own, text, vae=vae))
        logs.append(hooked.log)
    return logs


def test_a_scale_that_is_left_out_is_missing_and_no_other() -> None:
    log, plain = draw(Skips)
    for name in ("mse", "relative_mse"):
        assert log["token-mse"][name].sel(stage=3).isnull().all()
        assert log["token-mse"][name].sel(stage=[1, 2, 4]).notnull().all()
        np.testing.assert_array_equal(
            log["token-mse"][name].sel(stage=[1, 2]), plain["token-mse"][name].sel(stage=[1, 2])
        )
    assert log["residual-spectrum"].centroid.sel(stage=3).isnull().all()
    assert np.isnan(log["attached"].share.values[0]).tolist() == [False, False, True, False]
    assert "residual-spectrum/stage-03" not in {node.path.strip("/") for node in log.subtree}


def test_rows_that_are_dropped_are_missing() -> None:
    log, plain = draw(OneRow)
    rows = log["token-mse"].mse
    assert rows.sel(stage=[3, 4], guidance_row="unconditional").isnull().all()
    assert rows.sel(stage=[3, 4], guidance_row="conditional").notnull().all()
    np.testing.assert_array_equal(rows.sel(stage=[1, 2]), plain["token-mse"].mse.sel(stage=[1, 2]))
    assert log["attached"].guidance_rows.values[0].tolist() == [2, 2, 1, 1]
    assert log["branch-divergence"].relative_mse.sel(stage=[3, 4]).isnull().all()
    assert log["step-redundancy"].flops.values[0, 2] < 0.6 * plain["step-redundancy"].flops.values[0, 2]


KEPT = torch.tensor([0, 3, 4, 7, 9, 14])


def keep(model: Any) -> None:
    model.kept = KEPT


def test_tokens_that_are_left_out_have_no_place_unless_the_fork_tells() -> None:
    log, plain = draw(Prunes, keep)
    assert any("places of tokens" in fact and fact.startswith("stage 4") for fact in log.attrs["unseen"])
    assert log["token-mse"].mse.sel(stage=4).notnull().all()  # the mean over the tokens that were handed
    assert log["token-mse"].edge_correlation.sel(stage=4).isnull().all()
    assert log["token-mse/stage-04"].mse.isnull().all()
    assert log["branch-divergence"].cosine.sel(stage=4).isnull().all()
    assert log["attached"].share.values[0].tolist() == pytest.approx([1, 1, 1, 6 / 15])
    np.testing.assert_array_equal(log["token-mse"].mse.sel(stage=3), plain["token-mse"].mse.sel(stage=3))


@pytest.mark.parametrize("form", ["index", "mask", "rows"])
def test_tokens_lie_where_the_fork_tells(form: str) -> None:
    mask = torch.zeros(15, dtype=torch.bool)
    mask[KEPT] = True
    told = {"index": KEPT, "mask": mask.numpy(), "rows": KEPT.expand(4, -1)}[form]
    log, _ = draw(Prunes, keep, places=lambda stage, block: told)
    maps = log["token-mse/stage-04"].mse.values  # [prompt, block, sublayer, row, y, x]
    assert (np.isfinite(maps).reshape(-1, 15) == mask.numpy()).all()
    assert (log["attached/stage-04"].kept.values.reshape(2, 15) == mask.numpy()).all()
    assert not any("places of tokens" in fact for fact in log.attrs["unseen"])


def test_rows_with_other_tokens_are_not_compared() -> None:
    rows = torch.stack([KEPT, KEPT, KEPT + 0, KEPT])
    rows[2, 0] = 1
    log, _ = draw(Prunes, keep, places=lambda stage, block: rows)
    assert log["branch-divergence"].relative_mse.sel(stage=4).isnull().all()
    assert log["token-mse"].mse.sel(stage=4).notnull().all()


def test_sublayers_on_other_tokens_than_their_block_are_named() -> None:
    def merge(model: Any) -> None:
        for block in model.unregistered_blocks:
            block.__class__ = MergesWithin

    log, plain = draw(infinity.StandIn, merge)
    assert any(fact.startswith("stage 4: sublayers") for fact in log.attrs["unseen"])
    mse = log["token-mse"].mse
    assert mse.sel(stage=4, sublayer="block").notnull().all()
    assert mse.sel(stage=4, sublayer=["attention", "cross", "ffn"]).isnull().all()
    np.testing.assert_array_equal(mse.sel(stage=3), plain["token-mse"].mse.sel(stage=3))


class Louder(infinity.StandInBlock):
    """Adds something that no sublayer returns."""

    def forward(self, x: Tensor, **given: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x, **given) + 0.3 * x


def test_sublayers_that_do_not_add_up_to_their_block_are_left_out() -> None:
    def louder(model: Any) -> None:
        model.unregistered_blocks[1].__class__ = Louder

    log, _ = draw(infinity.StandIn, louder)
    assert any("whose sum is not" in fact for fact in log.attrs["unseen"])
    assert log["token-mse"].mse.sel(sublayer="ffn").isnull().all()
    assert log["token-mse"].mse.sel(sublayer="block").notnull().all()


def test_a_canvas_that_codes_do_not_add_up_to_is_not_logged() -> None:
    own, text = tiny_infinity("odd-tall"), features(4)
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    enlarge = model.resize
    # The loop's own arithmetic:
    model.resize = lambda latent, size, mode: 1.5 * enlarge(latent, size, mode)  # type: ignore[method-assign]
    with vl.attach(model, vae=vae) as hooked:
        model.autoregressive_infer_cfg(**infinity.arguments(own, text, vae=vae))
    log = hooked.log
    assert {"token-mse", "branch-divergence", "attached"} == set(log.children)
    assert any("not the sum of the codes" in fact for fact in log.attrs["unseen"])


class Stops(var.StandIn):
    """Leaves blocks out as an early exit does."""

    def run_blocks(self, x: Tensor, si: int, cond_BD: Tensor) -> Tensor:
        for block in list(self.blocks)[: 4 - si]:
            x = block(x, cond_BD, None)  # by position, as a fork may
        return x


def test_blocks_that_did_not_run_are_missing() -> None:
    own = tiny_var()
    model = Stops(own)
    with vl.attach(model) as hooked:
        model.autoregressive_infer_cfg(B=2, label_B=3, cfg=2.0, top_k=1)
    log = hooked.log
    ran = log["token-mse"].mse.sel(sublayer="block", guidance_row="conditional").notnull().values[0]
    assert ran.sum(1).tolist() == [4, 3, 2, 1]
    assert log["attached"].blocks.values[0].tolist() == [4, 3, 2, 1]
    assert log.attrs["unseen"] == []
    assert log.attrs["prompts"] == ["3", "3"]


def test_blocks_may_be_module_lists_or_chunks_alone() -> None:
    own, text = tiny_infinity("odd-tall"), features(4)
    for change in ("list", "chunks"):
        model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
        blocks = model.unregistered_blocks
        if change == "list":
            model.unregistered_blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        else:
            del model.unregistered_blocks
            object.__setattr__(model, "unregistered_blocks", tuple(blocks))
        with vl.attach(model, vae=vae) as hooked:
            model.autoregressive_infer_cfg(**infinity.arguments(own, text, vae=vae))
        assert hooked.log.attrs["unseen"] == []


def test_a_sampler_of_the_forks_own() -> None:
    """No released entry: the prompts tell the batch, the keywords how it guides."""
    own, text = tiny_infinity("odd-tall"), features(4, 4)
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    sampler = infinity.StandIn.autoregressive_infer_cfg
    given = infinity.arguments(own, text, vae=vae)
    with vl.attach(model, vae=vae, cfg=2.0, tau=1.0) as hooked:
        for _ in range(2):
            assert hooked.prompt(["a", "b"])
            sampler(model, **given)  # not through the attribute that is wrapped
    with vl.attach(model, vae=vae) as known:
        model.autoregressive_infer_cfg(**given)
    assert hooked.log.attrs["prompts"] == ["a", "b", "a", "b"]
    np.testing.assert_array_equal(hooked.log["branch-divergence"].kl[:2], known.log["branch-divergence"].kl)
    np.testing.assert_array_equal(hooked.log["token-mse"].mse[2:], known.log["token-mse"].mse)


def test_without_its_guidance_nothing_is_said_of_predictions() -> None:
    own, text = tiny_infinity("odd-tall"), features(4)
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    with vl.attach(model, vae=vae) as hooked:
        hooked.prompt("a")
        infinity.StandIn.autoregressive_infer_cfg(model, **infinity.arguments(own, text, vae=vae))
    assert hooked.log["branch-divergence"].kl.isnull().all()
    assert hooked.log["token-mse"].mse.notnull().all()
    assert any("cfg and tau" in fact for fact in hooked.log.attrs["unseen"])


def test_a_previews_decode_is_not_the_picture() -> None:
    own, text = tiny_infinity("odd-tall"), features(4)
    model, vae = infinity.StandIn(own), infinity.StandInVAE(own.tokenizer)
    enlarge = model.resize

    def preview(latent: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
        vae.decode(torch.zeros(1, 4, 2, 2))
        return enlarge(latent, size, mode)

    model.resize = preview  # type: ignore[method-assign]
    with vl.attach(model, vae=vae) as hooked:
        model.autoregressive_infer_cfg(**infinity.arguments(own, text, vae=vae))
    assert hooked.images[0].size == (12, 20)
    assert hooked.log.attrs["unseen"] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast_of_the_loop_does_not_reach_the_probes(dtype: torch.dtype) -> None:
    own = tiny_var()
    model = var.StandIn(own)
    with torch.autocast("cpu", dtype):
        plain = model.autoregressive_infer_cfg(2, 3, 0, 2.0, 1)
        with vl.attach(model) as hooked:
            heard = model.autoregressive_infer_cfg(2, 3, 0, 2.0, 1)
    assert torch.equal(plain, heard)
    log = hooked.log
    assert log["token-mse"].mse.notnull().all()
    share = log["token-mse"].mse.sel(sublayer=["attention", "ffn"]).sum("sublayer")
    assert (share > 0).all()

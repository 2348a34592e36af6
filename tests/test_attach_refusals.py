"""What an attachment refuses: each with a clear message, the hooks removed and nothing of the module changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import varlab as vl
from tests.conftest import features, tiny_infinity, tiny_var
from tests.minis import refused
from varlab.attached.standins import infinity, var


def state(module: nn.Module) -> dict[str, Any]:
    """Everything that an attachment may touch; the keys that an interrupted loop keeps are its own."""
    parts, own = list(module.modules()), {"caching", "cached"}
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks), sorted(set(vars(part)) - own)) for part in parts]
    return {"hooks": hooks, "tensors": {name: tensor.clone() for name, tensor in module.state_dict().items()}}


def unchanged(before: dict[str, Any], module: nn.Module) -> bool:
    after = state(module)
    same = all(torch.equal(after["tensors"][name], tensor) for name, tensor in before["tensors"].items())
    return same and before["hooks"] == after["hooks"]


def parts() -> tuple[infinity.StandIn, infinity.StandInVAE, dict[str, Any]]:
    own, text = tiny_infinity("odd-tall"), features(4)
    vae = infinity.StandInVAE(own.tokenizer)
    return infinity.StandIn(own), vae, infinity.arguments(own, text, vae=vae)


# Before anything is placed


def test_a_module_of_no_known_structure() -> None:
    text = refused(lambda: vl.attach(nn.Sequential(nn.Linear(2, 2))), "Looked for", "get_logits", "Found: 0")
    assert "infinity" in text and "hart" in text


def test_what_is_no_module_of_others() -> None:
    refused(lambda: vl.attach("infinity"), "the model itself")  # type: ignore[arg-type]
    refused(lambda: vl.attach(tiny_infinity()), "vl.log")  # type: ignore[arg-type]


def test_compiled_sharded_empty_and_training_modules() -> None:
    model, _, _ = parts()
    model.train()
    refused(lambda: vl.attach(model), "training mode", "model.eval()")
    model.eval()
    block = model.unregistered_blocks[0]
    block.ffn = torch.compile(block.ffn)  # type: ignore[assignment]
    refused(lambda: vl.attach(model), "torch.compile", "ffn")
    sharded = type("FullyShardedDataParallel", (nn.Module,), {})()
    sharded.module = parts()[0]
    refused(lambda: vl.attach(sharded), "FullyShardedDataParallel", "plain model")
    refused(lambda: vl.attach(parts()[0].to("meta")), "no weights")


@pytest.mark.parametrize("place", ["blocks.1.forward", "run_blocks"])
def test_compiled_methods_in_the_way_of_the_hooks(place: str) -> None:
    model = var.StandIn(tiny_var())
    owner: Any = model.blocks[1] if place.endswith("forward") else model
    name = place.rpartition(".")[2]
    setattr(owner, name, torch.compile(getattr(owner, name)))
    refused(lambda: vl.attach(model), f"{place} is compiled", "before it is compiled")


def test_a_compiled_read_out_is_heard_from_outside() -> None:
    model = var.StandIn(tiny_var())
    model.get_logits = torch.compile(model.get_logits, backend="eager")  # type: ignore[method-assign]
    assert vl.attach(model).structure.family == "var"


def test_wrappers_around_the_whole_are_taken_off() -> None:
    model, vae, given = parts()
    for wrapped in (torch.compile(model), nn.DataParallel(model)):
        with vl.attach(wrapped, vae=vae) as hooked:
            model.autoregressive_infer_cfg(**given)
        assert hooked.log.attrs["module"]["class"].endswith("StandIn")


def test_blocks_of_another_signature_and_two_lists_of_blocks() -> None:
    model, _, _ = parts()
    model.unregistered_blocks = model.unregistered_blocks[:2]
    refused(lambda: vl.attach(model), "2 blocks", "others")
    other = var.StandIn(tiny_var())
    other.blocks[0].forward = lambda hidden: hidden  # type: ignore[method-assign]
    refused(lambda: vl.attach(other), "takes hidden")


def test_probes_settings_and_tokenizers_that_do_not_fit() -> None:
    model, vae, _ = parts()
    refused(lambda: vl.attach(model, vae=vae, probes=["token-mass"]), "token-mse")
    refused(lambda: vl.attach(model, vae=vae, guidance=3), "guidance", "cfg")
    refused(lambda: vl.attach(model, vae=vae, seed=-1), "seed")
    refused(lambda: vl.attach(var.StandIn(tiny_var()), vae=vae), "leave vae= out")
    before = state(model)

    def enter() -> None:
        with vl.attach(model, vae=nn.Linear(2, 2)):
            pass

    refused(enter, "quantizer.lfq.indices_to_codes")
    assert unchanged(before, model)


# While it listens


def attempt(action: Callable[[infinity.StandIn, infinity.StandInVAE, dict[str, Any], Any], Any], *words: str) -> str:
    """The message of what ``action`` raises while attached; afterwards all is as before and a run goes well."""
    model, vae, given = parts()
    before, other = state(model), state(vae)

    def run() -> None:
        with vl.attach(model, vae=vae) as hooked:
            action(model, vae, given, hooked)

    text = refused(run, *words)
    assert unchanged(before, model)
    assert unchanged(other, vae)
    with vl.attach(model, vae=vae) as hooked:
        model.autoregressive_infer_cfg(**given)
    assert len(hooked.images) == 1
    return text


def test_a_tokenizer_that_two_models_share() -> None:
    model, vae, _ = parts()
    with vl.attach(model, vae=vae):
        refused(lambda: vl.attach(parts()[0], vae=vae).__enter__(), "This tokenizer is attached already")


def test_two_attachments_at_once() -> None:
    def twice(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        with vl.attach(model, vae=vae):
            pass

    attempt(twice, "attached already")


def test_blocks_outside_of_sampling() -> None:
    def with_gradients(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        model.requires_grad_(True)
        try:
            infinity.StandIn.autoregressive_infer_cfg.__wrapped__(model, **given)  # type: ignore[attr-defined]
        finally:
            model.requires_grad_(False)

    attempt(with_gradients, "with gradients", "torch.no_grad()")

    def training(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        model.unregistered_blocks[0].train()
        try:
            model.autoregressive_infer_cfg(**given)
        finally:
            model.eval()

    attempt(training, "training mode")


def test_blocks_that_run_twice() -> None:
    def again(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        run = model.run_blocks

        def twice(x: Tensor, *args: Any, **more: Any) -> Tensor:
            run(x, *args, **more)
            return run(x, *args, **more)

        model.run_blocks = twice
        try:
            model.autoregressive_infer_cfg(**given)
        finally:
            del model.run_blocks

    attempt(again, "more than once", "gradient checkpointing")


def test_a_loop_that_ends_early() -> None:
    def early(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        """No picture is decoded with this tokenizer."""
        twin = infinity.StandInVAE(tiny_infinity("odd-tall").tokenizer)
        twin.quantizer = vae.quantizer
        hooked.prompt("a")
        infinity.StandIn.autoregressive_infer_cfg(model, **given | {"vae": twin})

    attempt(early, "after stage 4 of 4", "no picture")


def test_an_error_of_the_loop_is_the_loops_own() -> None:
    model, vae, given = parts()
    before = state(model)
    run = model.run_blocks

    def broken(x: Tensor, si: int, *args: Any, **more: Any) -> Tensor:
        if si == 2:
            raise RuntimeError("out of luck")
        return run(x, si, *args, **more)

    model.run_blocks = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of luck"), vl.attach(model, vae=vae):
        model.autoregressive_infer_cfg(**given)
    del model.run_blocks
    assert unchanged(before, model)
    with vl.attach(model, vae=vae) as hooked:  # one that failed is not counted, and the next goes on
        model.run_blocks = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError):
            model.autoregressive_infer_cfg(**given)
        del model.run_blocks
        model.autoregressive_infer_cfg(**given)
    assert len(hooked.images) == hooked.log.attrs["n"] == 1


def test_other_schedules() -> None:
    def video(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        scales = [(k + 1, h, w) for k, (_, h, w) in enumerate(given["scale_schedule"])]
        model.autoregressive_infer_cfg(**given | {"scale_schedule": scales})

    attempt(video, "frame")

    def change(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        model.autoregressive_infer_cfg(**given)
        shorter = given["scale_schedule"][:-1]
        model.rope2d_freqs_grid[str(tuple(shorter))] = next(iter(model.rope2d_freqs_grid.values()))
        try:
            model.autoregressive_infer_cfg(**given | {"scale_schedule": shorter})
        finally:
            del model.rope2d_freqs_grid[str(tuple(shorter))]

    attempt(change, "one schedule")


def test_sides_that_change_between_two_calls() -> None:
    model = var.StandIn(tiny_var("square"))
    before, sides = state(model), model.patch_nums

    def change() -> None:
        with vl.attach(model):
            model.autoregressive_infer_cfg(1, torch.tensor([3]), 0, cfg=2.0, top_k=1)
            model.patch_nums = sides[:-1]
            model.autoregressive_infer_cfg(1, torch.tensor([3]), 0, cfg=2.0, top_k=1)

    refused(change, "one schedule", f"{len(sides) - 1} stages")
    model.patch_nums = sides
    assert unchanged(before, model)


def test_places_that_are_none() -> None:
    model, vae, given = parts()
    run = model.run_blocks

    def pruned(x: Tensor, si: int, *args: Any, **more: Any) -> Tensor:
        if si < 3:
            return run(x, si, *args, **more)
        kept = torch.arange(4)
        x[:, kept] = run(x[:, kept], si, *args, places=kept, **more)
        return x

    model.run_blocks = pruned  # type: ignore[method-assign]
    for told in (torch.arange(5), torch.tensor([0, 1, 2, 99]), torch.tensor([0, 1, 1, 2])):

        def draw(told: Tensor = told) -> None:
            with vl.attach(model, vae=vae, places=lambda stage, block: told):
                model.autoregressive_infer_cfg(**given)

        refused(draw, "places(3, 0)", "4 of the 15 tokens")


def test_prompts_and_batches_that_do_not_fit() -> None:
    def many(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        hooked.prompt(["a", "b"])
        model.autoregressive_infer_cfg(**given)

    attempt(many, "2 prompts", "1 image")

    def unknown(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        infinity.StandIn.autoregressive_infer_cfg(model, **given)

    attempt(unknown, "hooked.prompt")


def test_the_tokenizer_may_come_with_the_call_and_must_be_known() -> None:
    model, _, given = parts()
    with vl.attach(model) as hooked:
        model.autoregressive_infer_cfg(**given)
    assert hooked.log.attrs["weights_content"].keys() == {"transformer", "tokenizer"}

    def other(model: Any, vae: Any, given: Any, hooked: Any) -> None:
        twin = infinity.StandInVAE(tiny_infinity("odd-tall").tokenizer)
        model.autoregressive_infer_cfg(**given | {"vae": twin})

    attempt(other, "another vae")

    def none() -> None:
        with vl.attach(model) as hooked:
            hooked.prompt("a")
            infinity.StandIn.autoregressive_infer_cfg(model, **given)

    refused(none, "tokenizer is not known")


def test_nothing_drawn_is_no_log() -> None:
    model, vae, _ = parts()
    with vl.attach(model, vae=vae) as hooked:
        pass
    refused(lambda: hooked.log, "Nothing was generated")
    assert "listening" in repr(hooked)

"""The hooks of an attachment, family by family, by the released names and call order."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from varlab.attached.arguments import bound
from varlab.attached.call import Call
from varlab.attached.faces import to_image
from varlab.attached.patches import Patches
from varlab.attached.streams import copied
from varlab.attached.structure import ENTRY, Structure
from varlab.errors import VarlabError


class Listener(Protocol):
    """Who owns the calls."""

    call: Call | None

    def begin(self, arguments: dict[str, Any]) -> None: ...
    def returned(self) -> None: ...
    def failed(self) -> None: ...
    def call_for(self, block: int, x: Tensor, given: dict[str, Any]) -> Call: ...
    def pictured(self) -> None: ...


class Ears:
    """Places the hooks. While one of them is at work the others are deaf, so that nothing hears itself.

    Parameters
    ----------
    structure
        The module.
    vae
        Infinity's tokenizer; None until a call names it.
    listener
        Who is told.
    inside
        Whether what happens in the blocks is listened to; else their tokens and rows are counted and nothing is read.
    """

    def __init__(self, structure: Structure, vae: nn.Module | None, listener: Listener, inside: bool) -> None:
        self.structure, self.vae, self.listener = structure, vae, listener
        self.patches = Patches()
        self.inside = inside
        self.deaf = False
        self.picture_of: Callable[..., Any] = nn.Identity()  # the decoder, once it is known
        self.aside, self.kind = Aside(self), "cpu"
        self.surroundings = (False, torch.float32, False)  # autocast, its type, inference mode of the loop

    # Placing

    def place(self) -> None:
        module, blocks = self.structure.module, self.structure.blocks
        if callable(getattr(module, ENTRY, None)):
            self.patches.method(module, ENTRY, self._entry)
        for b, block in enumerate(blocks):
            names = list(inspect.signature(block.forward).parameters)
            self.patches.before(block, partial(self._enter, b, names))
            if self.inside and isinstance(projection := getattr(block, "ada_lin", None), nn.Module):
                self.patches.after(projection, partial(self._leave, "leave_projection", (b,)))
            for ours, theirs in self.structure.sublayers.items():
                self.patches.after(getattr(block, theirs), partial(self._leave, "leave_sublayer", (b, ours)))
            self.patches.after(block, partial(self._leave, "leave_block", (b,)))
        self.patches.method(module, "get_logits", self._logits)
        if self.structure.family != "infinity":
            self._place_quantised(module)
        elif self.vae is not None:
            self.place_vae(self.vae)

    def place_vae(self, vae: nn.Module) -> None:
        """Infinity's tokenizer, given with the module or with a call."""
        lfq = getattr(getattr(vae, "quantizer", None), "lfq", None)
        missing = [n for n, part in (("decode", vae), ("quantizer.lfq.indices_to_codes", lfq))
                   if not callable(getattr(part, n.rpartition(".")[2], None))]  # fmt: skip
        if missing:
            raise VarlabError(
                f"vae={type(vae).__name__} has no {' and no '.join(missing)}: give Infinity's tokenizer, as it is "
                f"given to {ENTRY}."
            )
        self.vae = vae
        self.patches.method(lfq, "indices_to_codes", self._bits)
        self.picture_of = self.patches.method(vae, "decode", self._decode)

    def _place_quantised(self, module: Any) -> None:
        quantizer, vae = module.vae_quant_proxy[0], module.vae_proxy[0]
        self.vae = vae
        self.patches.method(quantizer, "get_next_autoregressive_input", self._grow)
        self.picture_of = self.patches.method(vae, "fhat_to_img", self._decode)
        if isinstance(table := getattr(quantizer, "embedding", None), nn.Module):
            self.patches.after(table, self._look_up)
        if callable(getattr(getattr(module, "diffloss", None), "sample", None)):
            self.patches.method(module.diffloss, "sample", self._residual)

    # Listening

    def _look_around(self, kind: str) -> None:
        """What the loop runs in, on this kind of device: a module may be moved after it is attached."""
        self.kind = kind
        cast, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        self.surroundings = (cast, dtype, torch.is_inference_mode_enabled())

    def picture(self, canvas: Tensor) -> Tensor:
        """The module's own decoder as the loop would call it: canvas [B, b, h, w] -> images in [-1, 1]."""
        cast, dtype, inference = self.surroundings
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast(canvas.device.type, dtype, enabled=cast):
            out: Tensor = self.picture_of(canvas.clone())
        return out if out.ndim == 4 else out.squeeze(2)

    def _entry(self, original: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        self.listener.begin(bound(original, args, given))
        try:
            out = original(*args, **given)
        except BaseException:
            self.listener.failed()
            raise
        self.listener.returned()
        return out

    def _enter(self, b: int, names: list[str], _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        if self.deaf:
            return
        named = dict(zip(names, args, strict=False)) | given if args else given
        x, block = named.get("x"), self.structure.blocks[b]
        if not isinstance(x, Tensor) or x.ndim != 3:
            raise VarlabError(f"Block {b + 1} is called without its tokens x [rows, tokens, width].")
        if block.training or (torch.is_grad_enabled() and next(block.parameters()).requires_grad):
            raise VarlabError(
                f"Block {b + 1} runs {'in training mode' if block.training else 'with gradients'}, outside of sampling "
                "(or under gradient checkpointing). While attached, call the sampler alone, under torch.no_grad()."
            )
        if self.listener.call is None:
            self._look_around(x.device.type)
        with self.aside:
            self.listener.call_for(b, x, named).enter_block(b, x, named)

    def _leave(self, event: str, where: tuple[Any, ...], _: nn.Module, args: Any, given: Any, out: Any) -> None:
        if self.deaf or self.listener.call is None:
            return
        if self.inside:
            with self.aside:
                getattr(self.listener.call, event)(*where, out)
        else:
            getattr(self.listener.call, event)(*where, out)

    def _logits(self, original: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        out = original(*args, **given)
        self._tell("see_logits", out)
        return out

    def _look_up(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> None:
        self._tell("see_labels", args[0] if args else next(iter(given.values())))

    def _residual(self, original: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        out = original(*args, **given)
        if not self.deaf and self.listener.call is not None:
            self.listener.call.residuals.append(out.detach().clone())
        return out

    def _tell(self, event: str, *what: Any) -> None:
        if not self.deaf and self.listener.call is not None:
            with self.aside:
                getattr(self.listener.call, event)(*what)

    def _bits(self, original: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        out = original(*args, **given)
        call = self.listener.call
        if not self.deaf and call is not None:
            with self.aside:
                bits = args[0] if args else next(iter(given.values()))
                codes, face = copied(out if out.ndim == 4 else out.squeeze(2)), call.face
                mode = getattr(getattr(self.vae, "quantizer", None), "z_interplote_up", "trilinear")
                latent = bits.squeeze(1) if bits.ndim == 5 else bits  # [B, h, w, b]
                labels = face.labels_of(latent) if latent.ndim == 4 else None  # type: ignore[union-attr]
                call.see_codes(None, codes, partial(_enlarged, call, mode), labels)
        return out

    def _grow(self, original: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        call = self.listener.call
        if self.deaf or call is None:
            return original(*args, **given)
        named = bound(original, args, given)
        before, codes = copied(named["f_hat"]), copied(named["h_BChw"])
        out = original(*args, **given)
        with self.aside:
            call.canvas = before
            call.see_codes(int(named["si"]), codes, lambda k, codes: copied(out[0]), None)
        return out

    def _decode(self, original: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        call = self.listener.call
        latent = args[0] if args else next(iter(given.values()), None)
        if self.deaf or call is None or not isinstance(latent, Tensor):
            return original(*args, **given)
        self._look_around(latent.device.type)
        kept = copied(latent if latent.ndim == 4 else latent.squeeze(2))
        out = original(*args, **given)
        if kept.shape[-2:] == call.canvas.shape[-2:]:  # else a preview of the fork's own
            with self.aside:
                call.see_picture(kept, to_image(out if out.ndim == 4 else out.squeeze(2)))
            self.listener.pictured()
        return out


class Aside:
    """Computing beside the loop, or after it: without its autocast, without gradients, its listener deaf; may be
    entered once more within. Entering it is all that a hook of a small model costs, so it enters no more than it must.
    """

    def __init__(self, ears: Ears) -> None:
        self.ears, self.held = ears, list[ExitStack | None]()

    def __enter__(self) -> None:
        stack, cast = None, torch.is_autocast_enabled(self.ears.kind)
        if cast or not torch.is_inference_mode_enabled():
            stack = ExitStack()
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.autocast(self.ears.kind, enabled=False) if cast else nullcontext())
        self.held.append(stack)
        self.ears.deaf = True

    def __exit__(self, *error: Any) -> None:
        stack = self.held.pop()
        self.ears.deaf = bool(self.held)
        if stack is not None:
            stack.close()


def _enlarged(call: Call, mode: str, k: int, codes: Tensor) -> Tensor:
    """The canvas with a stage's codes [B, b, h, w] added, by the tokenizer's own interpolation."""
    size = call.canvas.shape[-2:]
    if mode == "trilinear" or codes.shape[-2:] == size:
        return call.face.accumulate(k, call.canvas, codes)
    grown = torch.nn.functional.interpolate(codes.unsqueeze(2), size=(1, *size), mode=mode)
    return call.canvas + grown.squeeze(2)

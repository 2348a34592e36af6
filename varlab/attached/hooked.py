"""Listening to samplers of others with varlab's own probes: ``vl.attach``."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import xarray as xr
from PIL import Image
from torch import Tensor, nn

from varlab.attached import arguments
from varlab.attached.call import Call
from varlab.attached.configs import sides_of
from varlab.attached.ears import Ears
from varlab.attached.faces import face_of
from varlab.attached.hearing import INSIDE, Face, listens
from varlab.attached.keeping import Keeping, plain
from varlab.attached.places import Places
from varlab.attached.record import contents_of, hashes, model_name, provenance, weights_label
from varlab.attached.structure import ENTRY, structure_of
from varlab.engine.memory import keep_freed_pages
from varlab.errors import VarlabError
from varlab.machine import now
from varlab.markup import count, summary
from varlab.models.guidance import Settings
from varlab.probes import LoggingProbe
from varlab.probes import log as logs
from varlab.runs.inputs import check_prompts
from varlab.runs.origins import plugin_options
from varlab.runs.run import to_pil
from varlab.schedules import square
from varlab.specs import spec_of

_LISTENED: "WeakSet[nn.Module]" = WeakSet()  # modules that have hooks at this moment


class Attached:
    """What ``attach`` gives: a context in which a module's samplers are listened to, or a decorator.

    Attributes
    ----------
    log : the log of all calls so far, as ``vl.log`` makes it
    images : their pictures, in the order of the calls
    seconds : of each call, until the device was done, probes included
    unseen : what could not be seen, in words
    """

    def __init__(
        self,
        model: nn.Module,
        vae: nn.Module | None,
        probes: Sequence[LoggingProbe],
        places: Places | None,
        folder: Path | None,
        seed: int | None,
        name: str | None,
        settings: dict[str, Any],
    ) -> None:
        self.structure, self.vae = structure_of(model), vae
        own = None if self.structure.family == "infinity" else self.structure.module.vae_proxy[0]  # type: ignore[index]
        if vae is not None and own is not None and vae is not own:
            raise VarlabError(f"A {self.structure.family} decodes with its own vae_proxy[0]: leave vae= out.")
        if vae is not None and not isinstance(vae, nn.Module):
            raise VarlabError(f"vae= takes the tokenizer itself, a torch module, not {type(vae).__name__}.")
        self.probes, self.places, self.seed, self.name, self.given = probes, places, seed, name, settings
        self.keeping = None if folder is None else Keeping(folder)
        self.ears: Ears | None = None
        self.call: Call | None = None
        self.face: Face | None = None
        self.content: dict[str, str] = {}
        self.named: list[str] = []  # prompts of the next call
        self._forget_call()
        self.parts: list[logs.Log] = []
        self.pictures: list[Image.Image] = []
        self.seconds: list[float] = []
        self.prompts: list[str] = []
        self.seeds: list[int | None] = []
        self.unseen: dict[str, None] = {}
        self.settings: Settings | None = None  # of the last call, as far as seen
        self.given_last: dict[str, Any] = {}  # to its sampler

    # The context

    def __enter__(self) -> Self:
        parts = [part for part in (self.structure.module, self.vae) if part is not None]
        if any(part in _LISTENED for part in parts):
            what = "model" if self.structure.module in _LISTENED else "tokenizer"
            raise VarlabError(f"This {what} is attached already. Leave that attachment first: one listens at a time.")
        self.content = hashes(self.structure, self.vae or self._own_vae())
        if self._device.type == "cpu":  # else a copy of each stream is cleared memory, as much work as the probes' own
            keep_freed_pages()
        self.ears = Ears(self.structure, self.vae, self, inside=any(listens(probe, INSIDE) for probe in self.probes))
        try:
            if self.keeping is not None:
                self.keeping.open(self._asked())
            self.ears.place()
        except BaseException:
            self._leave()
            raise
        _LISTENED.update(parts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
                if self.keeping is not None:
                    self.keeping.complete()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Undo every hook; what was heard stays."""
        if self.ears is not None:
            self.ears.patches.close()
        if self.keeping is not None:
            self.keeping.close()
        self.ears = None
        self._forget_call()
        for part in (self.structure.module, self.vae):
            if part is not None:
                _LISTENED.discard(part)

    def _own_vae(self) -> nn.Module | None:
        proxy = getattr(self.structure.module, "vae_proxy", None)
        return None if proxy is None else proxy[0]  # type: ignore[no-any-return]

    def _forget_call(self) -> None:
        self.call, self.arguments = None, dict[str, Any]()
        self.depth, self.ended, self.began, self.spent = 0, False, 0.0, 0.0

    # Prompts

    def prompt(self, texts: str | Sequence[str]) -> bool:
        """Say what the next call draws: one text, or one for each image of its batch.

        Returns
        -------
        bool
            Whether it is still to be drawn: False where the run folder holds it already, so that a loop goes on where
            it was interrupted: ``if hooked.prompt(text): generate(text)``.
        """
        self._finish()
        listed = check_prompts(texts)
        if self.keeping is not None and self.keeping.holds(len(self.prompts), listed):
            first = len(self.prompts)
            self.prompts += listed
            self.seeds += self.keeping.found["seeds"][first : len(self.prompts)]
            return False
        self.named = listed
        return True

    def __call__(self, generate: Callable[..., Any]) -> Callable[..., "Attached"]:
        """A decorator around ``generate(prompt, ...)``: the new function takes one prompt or a list of them, attaches,
        draws those that the run folder does not hold, and returns this object with ``log`` and ``images``."""

        @wraps(generate)
        def over(prompts: str | Sequence[str], *args: Any, **more: Any) -> "Attached":
            with self:
                for text in check_prompts(prompts):
                    if self.prompt(text):
                        generate(text, *args, **more)
            return self

        return over

    # What the hooks tell

    def begin(self, given: dict[str, Any]) -> None:
        """A sampler is called; one that calls another counts once."""
        self.depth += 1
        if self.depth > 1:
            return
        self._finish()
        self.depth, self.arguments, self.given_last = 1, given, given
        vae = given.get("vae")
        if self.structure.family == "infinity" and self.ears is not None and isinstance(vae, nn.Module):
            if self.ears.vae is None:
                self.ears.place_vae(vae)
                self.content = hashes(self.structure, vae)
            elif self.ears.vae is not vae:
                raise VarlabError("The sampler is given another vae than vl.attach. Give the same to both.")
        self.began = now(self._device)

    def returned(self) -> None:
        self.depth -= 1
        if self.depth == 0 and self.call is not None:
            self.ended, self.spent = True, now(self._device) - self.began
            if self.call.image is not None:
                self._finish()

    def failed(self) -> None:
        """The sampler raised: what was heard of this call is dropped."""
        self._forget_call()

    def pictured(self) -> None:
        if self.call is not None and self.depth == 0:
            self.spent = self.spent or now(self._device) - self.began
            if self.ended:
                self._finish()

    def call_for(self, block: int, x: Tensor, given: dict[str, Any]) -> Call:
        """The call that a block runs in: that at hand, or a new one where a sampler of the fork's own begins again."""
        if self.call is not None and self.depth == 0 and self.call.image is not None:
            self._finish()
        if self.call is None:
            self.call = self._new_call(x, given)
        return self.call

    @property
    def _device(self) -> Any:
        return next(self.structure.module.parameters()).device

    def _new_call(self, x: Tensor, given: dict[str, Any]) -> Call:
        assert self.ears is not None
        family = self.structure.family
        if family != "infinity":
            schedule = square(sides_of(self.structure.module), "attached")
        else:
            scales = given.get("scale_schedule") or self.arguments.get("scale_schedule")
            if scales is None:
                raise VarlabError("Neither the sampler nor its blocks are given a scale_schedule.")
            schedule = arguments.schedule_of(scales)
            if self.ears.vae is None:
                raise VarlabError(
                    f"The tokenizer is not known. Give it: vl.attach(model, vae=vae), or to {ENTRY}(vae=)."
                )
        if self.face is None:
            self.face = face_of(self.structure, self.ears.vae, schedule, x.shape[1], self.ears.picture)
        elif schedule.grids != self.face.schedule.grids:
            raise VarlabError(
                f"This call draws in {len(schedule)} stages up to {schedule.final}, earlier ones in "
                f"{len(self.face.schedule)} up to {self.face.schedule.final}: a log has one schedule. Attach once for "
                "each."
            )
        if not self.began:
            self.began = now(self._device)
        batch = arguments.batch_of(self.arguments) or len(self.named) or (len(x) // 2 if family != "infinity" else 0)
        if not batch:
            raise VarlabError(
                f"How many images this call draws is not said: no {ENTRY}(B=) was called. Name the prompts first: "
                'hooked.prompt(["...", "..."]).'
            )
        if self.named and len(self.named) != batch:
            raise VarlabError(f"{count(len(self.named), 'prompt')} named for a call of {count(batch, 'image')}.")
        self.settings = self._settings(len(self.face.schedule))
        return Call(self.structure, self.face, self.probes, batch, len(self.prompts), self.settings, self.places)

    def _settings(self, stages: int) -> Settings | None:
        """Those given to ``attach`` over those of the call."""
        told = dict(self.arguments)
        renamed = {"cfg": "cfg_list", "tau": "tau_list", "cfg_layers": "cfg_insertion_layer"}
        infinity = self.structure.family == "infinity"
        told |= {renamed.get(name, name) if infinity else name: value for name, value in self.given.items()}
        if infinity and "cfg_list" in told:
            told.setdefault("cfg_insertion_layer", [0])
        return arguments.settings_of(self.structure.family, told, stages)

    # The end of a call

    def _finish(self) -> None:
        """Log the call at hand, if there is one."""
        call = self.call
        if call is None:
            return
        if call.image is None:
            stage, stages = call.k + 1, len(call.face.schedule)
            self._forget_call()
            raise VarlabError(
                f"The call ended after stage {stage} of {stages} and no picture was decoded: nothing of it is logged. "
                "Hooks are on the decoder of the attached model: was another one used, or the loop left early?"
            )
        assert self.ears is not None
        with self.ears.aside:
            log = call.log(self.spent)
        prompts = self.named or arguments.classes_of(self.arguments)
        first = len(self.prompts)
        self.prompts += (
            prompts if len(prompts) == call.batch else [f"image {i} (no prompt named)" for i in call.samples]
        )
        self.seeds += [arguments.seed_of(self.arguments)] * call.batch
        pictures = to_pil(call.image)
        self.seconds.append(self.spent)
        self.unseen |= dict.fromkeys(call.unseen.words)
        if self.keeping is None:
            self.parts.append(log)
            self.pictures += pictures
        else:
            self.keeping.add(self.record, first, pictures, log)
        self.named = []
        self._forget_call()

    def _asked(self) -> dict[str, Any]:
        """What must agree with a run that a folder holds, as far as it is known before the first call."""
        asked = {
            "model": model_name(self.structure, self.name),
            "probes": [spec_of(probe) for probe in self.probes],
            "options": plugin_options(self.probes, ()),
            "log_version": logs.LOG_VERSION,
        }
        if self.seed is not None:
            asked["seed"] = self.seed
        if self.structure.family != "infinity" or self.vae is not None:
            asked |= {"weights": weights_label(self.content), "contents": contents_of(self.content)}
        return plain(asked)

    @property
    def record(self) -> dict[str, Any]:
        """The provenance of all calls so far."""
        if self.face is None:
            raise VarlabError("Nothing was generated while attached. Call the sampler within the context.")
        found = provenance(self.structure, self.face, self.probes, self.settings, self.content, self.name)
        seen = next((seed for seed in self.seeds if seed is not None), None)
        seed = self.seed if self.seed is not None else seen
        earlier = [] if self.keeping is None else self.keeping.found.get("unseen", [])
        unseen = list(dict.fromkeys([*earlier, *self.unseen]))
        drawn = {"n": len(self.prompts), "prompts": self.prompts, "seed": seed, "seeds": self.seeds, "unseen": unseen}
        return plain(found | drawn)

    @property
    def images(self) -> list[Image.Image]:
        self._finish()
        return self.pictures if self.keeping is None else self.keeping.images()

    @property
    def log(self) -> xr.DataTree:
        """Of all calls so far. Raises VarlabError where there was none."""
        self._finish()
        if self.keeping is not None:
            return self.keeping.log()
        return logs.tree(logs.join(self.parts), self.record)

    def __repr__(self) -> str:
        return summary(
            f"Attached to {type(self.structure.module).__name__} ({self.structure.family})",
            listening="yes" if self.ears is not None else "no",
            images=str(len(self.prompts)),
            probes=", ".join(probe.name for probe in self.probes) or "none",
            unseen="; ".join(self.unseen) or "nothing",
        )

"""Stages of a call of a sampler of others: what its modules do comes in, and probes are told what ours would tell.

The loop itself cannot be seen. A stage is known by its number where a block is given one, else by its tokens and the
order of calls; what does not fit is noted, never guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from varlab.attached.account import Work
from varlab.attached.faces import SeenHart, SeenInfinity, SeenVAR
from varlab.attached.notes import Unseen
from varlab.attached.places import Places, placed
from varlab.attached.streams import BlockCall, Snapshots, Sums, copied, stream_of
from varlab.attached.stretch import Stretch, same_tokens, whole
from varlab.attached.structure import Structure
from varlab.engine.context import Context
from varlab.engine.hooks import Probe, overrides
from varlab.engine.ledger import Ledger
from varlab.engine.plan import RUN, Selection, StagePlan
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError
from varlab.models.guidance import Guidance, Settings
from varlab.probes import LoggingProbe

Face = SeenInfinity | SeenVAR | SeenHart
INSIDE = ("on_stage", "on_sublayer", "on_block")  # what is heard of the blocks


def listens(probe: LoggingProbe, verbs: Sequence[str]) -> bool:
    """Whether a probe does something at any of these verbs."""
    return any(overrides(probe, verb, Probe) for verb in verbs)


class Hearing:
    """From the first block of a call to the codes of its last stage.

    Parameters
    ----------
    face
        Of the module.
    batch, first
        How many images the call makes, and the number of the first.
    settings
        How it guides; None where that was not seen, and then nothing is said of predictions.
    """

    def __init__(
        self,
        structure: Structure,
        face: Face,
        probes: Sequence[LoggingProbe],
        batch: int,
        first: int,
        settings: Settings | None,
        places: Places | None,
    ) -> None:
        self.structure, self.face, self.probes, self.places = structure, face, probes, places
        self.samples, self.settings = tuple(range(first, first + batch)), settings
        self.context = Context(face, settings or face.settings, SeededNoise(0), Ledger.of(len(face.schedule)))  # type: ignore[arg-type]
        self.unseen, self.snapshots, self.sums = Unseen(), Snapshots(), Sums()
        self.inside = any(listens(probe, INSIDE) for probe in probes)
        self.predicted = [probe for probe in probes if listens(probe, ("on_logits",))]
        self.now: Stretch | None = None
        self.stage: Stage | None = None  # of the block calls at hand
        self.block: BlockCall | None = None
        self.canvas = face.new_canvas(batch)
        self.image: Tensor | None = None
        self.latent: Tensor | None = None  # what the picture was decoded from
        self.residuals: list[Tensor] = []  # of HART's diffusion head, pass by pass
        self.work = Work(self.context)
        for probe in probes:
            probe.start(self.context)

    @property
    def batch(self) -> int:
        return len(self.samples)

    # Blocks

    def enter_block(self, b: int, x: Tensor, given: Mapping[str, Any]) -> None:
        k = self.stage_index(b, x, given)
        if self.now is None or k != self.now.index or self.now.closed:
            self._open(k, x)
        assert self.now is not None
        if b in self.now.called:
            self._again(k)
        self.block = None
        stage = self._stage(b, x, given)
        if stage is None:
            return
        if stage is not self.stage:
            self.settle()
            self.stage = stage
        stream = self.snapshots.take(x) if self.inside else x
        self.block = BlockCall(self.structure.blocks[b], b, stream, given, list(self.structure.sublayers))
        if not self.now.called:
            tokens = self._grid(self.block.x)
            for probe in self.probes:
                probe.on_stage(stage, tokens)

    def leave_projection(self, b: int, out: Any) -> None:
        """Of a block's own modulation, which its gates are a part of."""
        if self.inside and self.block is not None and self.block.index == b and isinstance(out, Tensor):
            self.block.modulation = out.clone()

    def leave_sublayer(self, b: int, name: str, out: Any) -> None:
        if self.block is None or self.block.index != b or self.stage is None:
            return
        raw = stream_of(out)
        if raw is not None:
            self.block.tokens[name] = raw.shape[1]
        if not self.inside:
            return
        seen = self.block.add(name, raw)
        if seen is None:
            self.unseen.note("sublayers that ran on other tokens, in another order or behind a hidden gate", self.k)
            return
        site, before, added = Site(self.stage, b, name), self._grid(seen[0]), self._grid(seen[1])
        for probe in self.probes:
            probe.on_sublayer(site, before, added)

    def leave_block(self, b: int, out: Any) -> None:
        block, self.block = self.block, None
        assert self.now is not None
        self.now.called.add(b)
        if block is None or block.index != b or self.stage is None:
            return
        raw = stream_of(out)
        if raw is None or raw.shape != block.x.shape:
            self.unseen.note("blocks that return other tokens than they were given", self.k)
            return
        if self.inside:
            self._tell_block(b, block, raw)
        known = None if (self.k, b) in self.unseen.unplaced else self.stage
        if not self.work.count(self.k, block, known):
            self.unseen.no_work = True
            self.unseen.note("work (the number of text tokens)", self.k)

    def _tell_block(self, b: int, block: BlockCall, raw: Tensor) -> None:
        assert self.stage is not None
        x_out = self.snapshots.take(raw)
        if raw.dtype == torch.float32:
            self.sums.add(block, x_out)
        site, x_in, x_out = Site(self.stage, b), self._grid(block.x), self._grid(x_out)
        for probe in self.probes:
            probe.on_block(site, x_in, x_out)

    # Stages

    @property
    def k(self) -> int:
        assert self.now is not None
        return self.now.index

    def stage_index(self, b: int, x: Tensor, given: Mapping[str, Any]) -> int:
        """From the call's own number, else from the number of tokens and the order of calls."""
        lengths, n, now = self.face.schedule.lengths, x.shape[1], self.now
        told = given.get("scale_ind", given.get("si"))
        if told is not None:
            if not 0 <= int(told) < len(lengths):
                raise VarlabError(
                    f"A block is called for stage {int(told) + 1} of a schedule of {len(lengths)} stages."
                )
            return int(told)
        if now is None:
            return 0
        if not now.closed and b not in now.called:
            return now.index
        later = [k for k in range(now.index + 1, len(lengths)) if lengths[k] == n]
        if later:
            return later[0]
        if not now.closed:
            return now.index
        if now.index + 1 < len(lengths) and n < lengths[now.index + 1]:
            return now.index + 1
        raise VarlabError(
            f"Block {b + 1} is called with {n} tokens after stage {now.index + 1}, and no later stage of the schedule "
            f"({', '.join(map(str, lengths))} tokens) has so many. Is it another schedule than the module's own?"
        )

    def _open(self, k: int, x: Tensor | None, guided: bool = False) -> None:
        if self.now is not None and k < self.now.index:
            raise VarlabError(f"Stage {k + 1} follows stage {self.now.index + 1}: one call makes all stages in order.")
        self.settle()
        if self.now is not None and not self.now.closed:
            self.unseen.note("codes and predictions", self.now.index)
        guided = x.shape[0] == 2 * self.batch if x is not None else guided
        self.now = Stretch(k, Stage(k, self.face.schedule, self.samples, RUN, self._guidance(k, guided), guided))
        self.stage = None

    def _guidance(self, k: int, guided: bool) -> Guidance:
        if self.settings is None:
            return Guidance(1.0, 1.0, True)
        return self.face.guidance(k, self.settings, guided)  # type: ignore[arg-type]

    def _again(self, k: int) -> None:
        """A block that runs once more in a stage: the next pass of HART's last, else more than can be told apart."""
        assert self.now is not None
        if not (self.structure.family == "hart" and k == len(self.face.schedule) - 1):
            raise VarlabError(
                f"The blocks run more than once in stage {k + 1}, which only the last stage of HART does: whether by "
                "gradient checkpointing or for the guidance rows one by one, the log cannot tell their calls apart."
            )
        self.settle()
        self.now.called, self.stage = set(), None

    def _stage(self, b: int, x: Tensor, given: Mapping[str, Any]) -> Stage | None:
        """The stage as this block sees it: its rows and its tokens; None where they are none of the run's."""
        assert self.now is not None
        rows, n, length = x.shape[0], x.shape[1] - self.face.prefix(self.k), self.face.schedule.lengths[self.k]
        if rows not in (self.batch, 2 * self.batch) or not 0 < n <= length:
            self.unseen.note(f"blocks on {rows} rows of {x.shape[1]} tokens", self.k)
            return None
        guided = rows == 2 * self.batch
        index = None
        if n < length:
            index = placed(self.places, self.k, b, n, length, self.batch, rows, given.get("m_maskgit"))
            if index is None:
                self.unseen.note("places of tokens in blocks that ran on a part of the grid (give places=)", self.k)
                self.unseen.unplaced.add((self.k, b))
                index = torch.arange(n)
            index = index.to(x.device)
        for known in (self.stage, self.now.base):
            if known is not None and known.guided == guided and same_tokens(known.plan.selection, index):
                return known
        plan = RUN if index is None else StagePlan(selection=Selection(index, length))
        return Stage(self.k, self.face.schedule, self.samples, plan, self._guidance(self.k, guided), guided)

    def settle(self) -> None:
        """Reduce what probes still hold of the block calls so far, which had the same tokens."""
        if self.stage is None:
            return
        for probe in self.probes:
            probe.reduce(self.stage)

    def _grid(self, x: Tensor) -> Tensor:
        """The tensor itself where it is all grid: probes that are told the same one share what they take of it."""
        prefix = self.face.prefix(self.k)
        return x[:, prefix:] if prefix else x

    # Predictions and codes

    def see_logits(self, out: Any) -> None:
        """Of a pass: [rows, prefix + n, V]."""
        if self.now is not None and not self.now.closed and isinstance(out, Tensor) and out.ndim == 3:
            selection = None if self.stage is None else self.stage.plan.selection
            kept = copied(self._grid(out)) if self.predicted else self._grid(out)
            self.now.logits.append((kept, None if selection is None else selection.index))

    def see_labels(self, index: Tensor) -> None:
        """Entries of a codebook that were looked up [B, n]."""
        if self.now is None or self.now.closed or index.ndim != 2 or len(index) != self.batch:
            return
        held = self.now.labels
        if not (held and held[-1].shape == index.shape and torch.equal(held[-1], index)):  # one may be looked up twice
            held.append(index.clone())

    def see_codes(
        self, k: int | None, codes: Tensor, grow: Callable[[int, Tensor], Tensor], labels: Tensor | None
    ) -> None:
        """The residual map of a stage [B, b, h, w]; ``grow(k, codes)`` gives the canvas after it."""
        if self.now is None:
            return
        if self.now.closed:
            grids, size = self.face.schedule.grids, tuple(codes.shape[-2:])
            later = range(self.now.index + 1, len(grids))
            found = [j for j in later if self.face.latent_grid(grids[j]) == size]
            if (k is None and not found) or (k is not None and k <= self.now.index):
                self.unseen.note("codes that were added once more", self.now.index)
                return
            self._open(found[0] if k is None else k, None)  # no block ran in this stage
        if k is not None and k != self.k:
            raise VarlabError(f"Tokens that came as stage {self.k + 1} by their number are added as stage {k + 1}.")
        self._predictions(labels)
        self.settle()
        before, self.canvas = self.canvas, grow(self.k, codes)
        for probe in self.probes:
            probe.on_residual(self.now.base, codes, before, self.canvas)
        self.now.closed, self.now.logits, self.now.labels = True, [], []
        self.stage = None

    def _predictions(self, labels: Tensor | None) -> None:
        """Tell what was predicted. ``labels`` [B, n, d], else those of the codebook that were looked up."""
        assert self.now is not None
        logits = whole(self.now.logits, self.face.schedule.lengths[self.k])
        if logits is None or self.settings is None or len(logits) not in (self.batch, 2 * self.batch):
            words = "predictions" if self.settings is not None else "predictions (cfg and tau were not seen)"
            return self.unseen.note(words, self.k)
        values = logits.unflatten(-1, (-1, 2)) if self.structure.family == "infinity" else logits.unsqueeze(2)
        base, guided = self.now.base, len(logits) == 2 * self.batch
        guidance = self._guidance(self.k, guided)
        both = guided and guidance.on_logits and guidance.scale != 1
        cond, uncond = values[: self.batch], values[self.batch :] if both else None
        if labels is None and len(self.now.labels) == len(self.now.logits):
            looked_up = [
                (index[..., None], at) for index, (_, at) in zip(self.now.labels, self.now.logits, strict=True)
            ]
            labels = whole(looked_up, self.face.schedule.lengths[self.k])
        if labels is None or labels.shape != cond.shape[:3]:
            labels = None
            self.unseen.note("labels that were drawn", self.k)
        if self.predicted:
            guided_logits = guidance.mix(cond, uncond)
            for probe in self.predicted:
                probe.on_logits(base, cond, uncond, guided_logits, labels)
        self.work.count_readout(self.k, cond.shape[1], self.batch, 2 if both else 1)

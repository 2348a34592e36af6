"""One call of a sampler of others: its stages, its picture, and what the probes log of it."""

import torch
from torch import Tensor

from varlab.attached.hearing import Hearing
from varlab.errors import VarlabError
from varlab.probes.log import Log

FOLLOWED = 0.05  # relative error up to which a block's output counts as the sum of its sublayers
ADDED = 0.01  # and a picture's latent as the sum of the codes


class Call(Hearing):
    """From the first block of a call to its log."""

    def see_picture(self, latent: Tensor, image: Tensor) -> None:
        """A canvas [B, b, H, W] and its picture [B, 3, h, w] in [0, 1]; the last one of a call counts."""
        if len(image) != self.batch:
            raise VarlabError(f"{len(image)} pictures are decoded in a call of {self.batch} images.")
        self.latent, self.image = latent, image

    def end(self) -> None:
        """HART's last stage ends with the picture; and every canvas is held against what the picture was made of."""
        assert self.latent is not None and self.now is not None
        hart, last = self.structure.family == "hart", len(self.face.schedule) - 1
        if hart and self.now.index == last and not self.now.closed:
            latent = self.latent
            self.see_codes(last, self._last_codes(latent - self.canvas), lambda k, codes: latent, None)
        self.settle()
        if not self.now.closed:
            self.unseen.note("codes and predictions", self.k)
        gap, size = (self.latent - self.canvas).abs().max(), self.canvas.abs().max()
        if not float(gap) <= ADDED * float(size):
            self.unseen.no_canvas = True
            self.unseen.note("the canvas: what was decoded is not the sum of the codes that were seen", self.k)
        if self.sums.errors and not float(torch.stack(self.sums.errors).max()) <= FOLLOWED:
            self.unseen.no_sublayers = True
            self.unseen.note("sublayers, whose sum is not what their blocks return", 0)

    def _last_codes(self, difference: Tensor) -> Tensor:
        """Code plus residual, where both were seen and are exactly what the canvas grew by, else that difference."""
        assert self.now is not None
        labels = self.now.labels
        if len(labels) == 1 and len(self.now.logits) == 1 and labels[0].shape[1] == self.face.schedule.lengths[-1]:
            codes = self.face.codes(self.k, labels[0].unsqueeze(-1))
            if len(self.residuals) == 1:
                codes = codes + self.residuals[0].float()[: codes.shape[0] * codes.shape[1]].view_as(codes)
            codes = self.face.code_map(self.k, codes)
            if self.latent is not None and torch.equal(self.canvas + codes, self.latent):
                return codes
        self.unseen.note("the codes themselves (they are the difference of two canvases, off by rounding)", self.k)
        return difference

    def log(self, seconds: float) -> Log:
        """What the probes log, less what was not seen, and what the blocks were handed; the picture must be there."""
        assert self.image is not None
        self.end()
        for work in self.context.ledger.stages:
            work.images = self.batch
        log: Log = {}
        for probe in self.probes:
            probe.on_image(self.samples, self.image)
            log |= probe.log()
        return self.unseen.clean(log) | self.work.log(self.samples, seconds, self.unseen.words)

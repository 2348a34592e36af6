"""fp16 ends at 65504. Where a run passes that, hidden states are infinite or no number, and its pictures look like
pictures all the same: bits drawn from no number are zeros. So it is noticed, on the device and without waiting for it,
and refused at the run's end."""

import torch
from torch import Tensor

from varlab.errors import VarlabError


class Overflow:
    """Watches the tensors of a run."""

    def __init__(self) -> None:
        self.finite: dict[str, list[Tensor]] = {}  # where -> whether all was, on the device

    def watch(self, where: str, x: Tensor) -> None:
        self.finite.setdefault(where, []).append(torch.isfinite(x).all())

    def refuse(self, model: str) -> None:
        """Raises VarlabError where something was not finite; waits for the device once."""
        flags = torch.stack([torch.stack(flags).all() for flags in self.finite.values()])
        if flags.is_meta or bool(flags.all()):
            return
        where = next(where for where, fine in zip(self.finite, flags.tolist(), strict=True) if not fine)
        raise VarlabError(f"{model} passes the largest number of fp16, 65504, in {where}: take precision bf16 or fp32.")

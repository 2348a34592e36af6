"""What test_parity_accelerators.py and test_parity_accelerators_shapes.py share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden_files import written
from varlab.accelerators.baselines import Truncate
from varlab.accelerators.fastvar import FastVAR, distances
from varlab.engine.stage import Site
from varlab.parity import fastvar
from varlab.parity.golden import Golden
from varlab.parity.infinity_setup import Setup, setup
from varlab.parity.run import CacheWatch, Outcome, generate

TOLERANCES = {"decoded_abs": 5e-5, "uint8_abs": 1}


VAE = {"base_ch": 24, "ch_mult": [1, 1], "nres": 1, "patch": 2}


BASE = {"seed": 7, "depth": 3, "dim": 64, "heads": 4, "chunks": 1, "Ct5": 128, "bits": 4, "lens": [3],
        "text_maxlen": 12, "table": "custom", "vae": VAE}  # fmt: skip


WIDTHS = [[1, 1, 1], [1, 1, 4], [1, 2, 24], [1, 2, 32], [1, 2, 40], [1, 2, 48], [1, 2, 64]]


FAST_CONFIG = BASE | {"schedule": WIDTHS, "depth": 5, "cfg": 2.5, "gt_leak": 2}


class Recorded(FastVAR):
    """Keeps its own masks and gaps under the names of a golden."""

    name = "fastvar-recorded"

    def start(self, context: Any) -> None:
        super().start(context)
        self.arrays: dict[str, np.ndarray] = {}
        self.gaps: dict[str, float] = {}

    def choose(self, site: Site, x: Tensor, count: int) -> Tensor:
        keep, scores, place = super().choose(site, x, count), distances(x), fastvar.place_of(site)
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, keep, True)
        order = scores.sort(-1).values.flip(-1)
        self.arrays[f"keep_{place}"] = np.packbits(mask.numpy(), axis=1)
        self.arrays[f"score_{place}"] = scores.numpy()
        self.gaps[place] = float((1 - order[:, count] / order[:, count - 1]).min())
        return keep


def own_fastvar(tmp_path: Path, config: dict[str, Any]) -> tuple[Path, Outcome[Setup]]:
    bare = Golden(tmp_path / "own.npz", "fastvar_infinity", config, {}, {})
    rebuilt, watch = setup(bare), CacheWatch()
    ratios, drop = fastvar.released(rebuilt.model.schedule)
    method = Recorded(ratios, drop) if config["depth"] > 3 else Truncate(drop)
    forced = rebuilt.forced(bare)
    outcome, dense = generate(rebuilt, forced, [method, watch]), generate(rebuilt, forced, [Truncate(drop)])
    ran, final = len(outcome.capture.canvas), outcome.capture.final
    arrays: dict[str, Any] = {
        "kind": "fastvar_infinity",
        "config_json": json.dumps(config),
        "tolerances_json": json.dumps({"logits_rel": 1e-6} | TOLERANCES),
        "kv_len_per_stage_block": [[tokens for _, _, tokens, _ in blocks] for blocks in watch.shapes],
        "logit_stride": [2, 1],
        f"logits_final_{ran - 2}": final[-2][:, ::2].numpy(),
        f"logits_final_{ran - 1}": final[-1].numpy(),
        "decoded_sub3": (outcome.generation.image * 2 - 1)[..., ::3, ::3].numpy(),
        "image_uint8_bgr": outcome.image.numpy(),
    }
    for prefix, run, start in (("", outcome, 0), ("dense_", dense, 3)):
        for k in range(start, ran):
            arrays[f"{prefix}bits_used_{k}"] = np.packbits((run.capture.codes[k].movedim(1, -1) > 0).numpy())
    if isinstance(method, Recorded):
        arrays |= method.arrays | {"cut_gaps_json": json.dumps(method.gaps)}
    return written(bare.path, arrays), outcome

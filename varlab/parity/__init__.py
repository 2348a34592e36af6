"""The parity room: golden files of the official codes against models and scorers here, one small module a family.

`KINDS` says which function compares a kind of golden. Above each such function stand its rules, which name the
tolerance of every array (`Kind`); the function rebuilds what the golden describes, from its ``config`` and from
numbers that follow from names and a seed (``weights``), and hands the arrays over by the golden's names. To add a
kind, write such a function, list it here, and put a golden of it into ``tests/goldens``.
"""

from pathlib import Path

import torch

from varlab.context import fixed_context
from varlab.errors import unknown
from varlab.parity import (
    adm,
    dpg,
    fastvar,
    fastvar_hart,
    freqexit,
    freqexit_losses,
    geneval,
    hart,
    hart_tables,
    hart_vae,
    infinity,
    infinity_tables,
    infinity_vae,
    preference,
    skipvar,
    skipvar_tables,
    var,
)
from varlab.parity.comparison import Comparison, Kind
from varlab.parity.golden import Golden, load
from varlab.parity.report import ArrayCheck, Report

__all__ = ["KINDS", "ArrayCheck", "Golden", "Report", "check", "load"]

KINDS: dict[str, Kind] = {
    "infinity": infinity.compare,
    "infinity_vae": infinity_vae.compare,
    "infinity_sampling": infinity_tables.compare_sampling,
    "infinity_rope": infinity_tables.compare_rope,
    "hart": hart.compare,
    "hart_sampling": hart_tables.compare_sampling,
    "hart_vae": hart_vae.compare,
    "skipvar": skipvar.compare,
    "skipvar_decision": skipvar_tables.compare_decision,
    "skipvar_features": skipvar_tables.compare_features,
    "fastvar_infinity": fastvar.compare,
    "fastvar_hart": fastvar_hart.compare,
    "var": var.compare,
    "var_sampling": var.compare_sampling,
    "freqexit_model": freqexit.compare,
    "freqexit_losses": freqexit_losses.compare,
    "freqexit_fgsr_legacy": freqexit_losses.compare_legacy,
    "geneval": geneval.compare,
    "geneval_crops": geneval.compare_crops,
    "dpg": dpg.compare,
    "hps_preprocess": preference.compare_hps,
    "imagereward": preference.compare_imagereward,
    "adm": adm.compare,
}
GRADIENTS = {"freqexit_losses", "freqexit_fgsr_legacy"}


@fixed_context()
def check(source: Golden | str | Path) -> Report:
    """Run what a golden, or the file of one, describes and compare every array that it holds.

    An unreadable file, an incomplete one and a kind that nobody checks are errors; a difference is not:
    then the report has not ``passed``.
    """
    golden = source if isinstance(source, Golden) else load(source)
    if golden.kind not in KINDS:
        raise unknown("kind of golden", golden.kind, KINDS)
    comparison = Comparison(golden, KINDS[golden.kind].rules)
    with torch.inference_mode(golden.kind not in GRADIENTS):
        KINDS[golden.kind].compute(comparison)
    return comparison.finish()

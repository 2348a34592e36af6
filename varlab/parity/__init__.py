"""The parity room: golden files of the official codes against the models here, one small module a family."""

from collections.abc import Callable
from pathlib import Path

from varlab.context import fixed_context
from varlab.errors import unknown
from varlab.parity import (
    fastvar,
    fastvar_hart,
    freqexit,
    freqexit_losses,
    hart,
    hart_tables,
    hart_vae,
    infinity,
    infinity_tables,
    infinity_vae,
    skipvar,
    skipvar_tables,
    var,
)
from varlab.parity.golden import Golden, load
from varlab.parity.report import ArrayCheck, Report

__all__ = ["KINDS", "ArrayCheck", "Golden", "Report", "check", "load"]

KINDS: dict[str, Callable[[Golden], Report]] = {
    "infinity": infinity.check,
    "infinity_vae": infinity_vae.check,
    "infinity_sampling": infinity_tables.check_sampling,
    "infinity_rope": infinity_tables.check_rope,
    "hart": hart.check,
    "hart_sampling": hart_tables.check_sampling,
    "hart_vae": hart_vae.check,
    "skipvar": skipvar.check,
    "skipvar_decision": skipvar_tables.check_decision,
    "skipvar_features": skipvar_tables.check_features,
    "fastvar_infinity": fastvar.check,
    "fastvar_hart": fastvar_hart.check,
    "var": var.check,
    "var_sampling": var.check_sampling,
    "freqexit_model": freqexit.check,
    "freqexit_losses": freqexit_losses.check,
    "freqexit_fgsr_legacy": freqexit_losses.check_legacy,
}


@fixed_context()
def check(source: Golden | str | Path) -> Report:
    """Run what a golden, or the file of one, describes and compare every array that it holds.

    An unreadable file, an incomplete one and a kind that nobody checks are errors; a difference is not:
    it makes the report's verdict False.
    """
    golden = source if isinstance(source, Golden) else load(source)
    if golden.kind not in KINDS:
        raise unknown("kind of golden", golden.kind, KINDS)
    return KINDS[golden.kind](golden)

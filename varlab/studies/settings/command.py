"""What ``varlab evidence`` does."""

from collections.abc import Callable, Sequence
from pathlib import Path

from varlab.analysis.settings_table import SettingsTable
from varlab.errors import VarlabError, unknown
from varlab.models.base import NextScaleModel
from varlab.runs import Progress
from varlab.studies.settings.draw import SEED, draw_study
from varlab.studies.settings.plans import STUDIES

OF_FAMILY = {"infinity": ("methods", "sparsevar"), "hart": ("methods", "sparsevar"), "var": ("exits",)}


def check_studies(studies: Sequence[str], family: str, full: bool) -> list[str]:
    """The studies asked for, by default all of the family.

    Raises
    ------
    VarlabError: one that does not exist or that this family cannot run, and ``full`` without ``sparsevar``.
    """
    for study in studies:
        if study not in STUDIES:
            raise unknown("study", study, STUDIES)
        if study not in OF_FAMILY[family]:
            raise VarlabError(f"{study} is no study of {family} models, but {', '.join(OF_FAMILY[family])}.")
    chosen = list(dict.fromkeys(studies or OF_FAMILY[family]))
    if full and "sparsevar" not in chosen:
        raise VarlabError("--full is for the study sparsevar; leave it out.")
    return chosen


def evidence_command(
    model: NextScaleModel, studies: Sequence[str], out: Path, n: int | None, seed: int = SEED, full: bool = False,
    overwrite: bool = False, progress: Progress | None = None, say: Callable[[str], None] = lambda _: None,
) -> list[SettingsTable]:  # fmt: skip
    """Draw the studies of a model into its folder of ``out``."""
    found = []
    for study in studies:
        wanted = full and study == "sparsevar"
        words = ["varlab evidence", model.name, study, f"--seed {seed}"]
        words += ([] if n is None else [f"--n {n}"]) + (["--full"] if wanted else [])
        table = draw_study(
            model, study, out / model.name, n=n, seed=seed, full=wanted, command=" ".join(words), overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
        found.append(table)
        say(f"{study}: {len(table.specs)} settings, n {table.n}, digest {table.digest}: {out / model.name / study}.csv")
        for spec, reason in table.facts["left_out"].items():
            say(f"  left out: {spec}: {reason}")
    return found

"""Commands on published numbers: ``evidence``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from varlab.cli.options import Model, Overwrite, image_bar, load_model, resumable, say, with_loading

app = typer.Typer()


@app.command()
@with_loading
def evidence(
    model: Model,
    study: Annotated[
        list[str] | None, typer.Argument(help="methods, sparsevar, exits; default: all that the model can run.")
    ] = None,
    n: Annotated[
        int | None, typer.Option(help="Prompts; intervals narrow with its root. Default: 32, 16 and 48.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")] = 7,
    full: Annotated[
        bool, typer.Option("--full", help="sparsevar: every combination of tau, alpha, stage and block (thousands).")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the tables; default: that of the ledger, data/claims/runs.")
    ] = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Draw the ablations of the papers, which the verdicts on published numbers rest on.

    Ctrl-C keeps what is done; the same command goes on.
    """
    from varlab.resources import refuse_shipped, shipped
    from varlab.runs.inputs import at_least, check_writable
    from varlab.studies.settings.command import check_studies, evidence_command
    from varlab.weights.registry import find

    at_least(1, n=n)
    at_least(0, seed=seed)
    chosen = check_studies(study or (), find(model).family, full)
    place = shipped("data") / "claims" / "runs" if out is None else out
    refuse_shipped(place)
    check_writable(place)
    loaded = load_model(model, **options)
    with resumable(), image_bar() as progress:
        evidence_command(loaded, chosen, place, n, seed, full, overwrite, progress, say)

"""Commands on what papers claim: ``claims``, ``evidence`` and ``verdicts``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from varlab.cli.options import (
    Model,
    Overwrite,
    as_table,
    check_folder,
    console,
    image_bar,
    load_model,
    resumable,
    say,
    with_options,
)
from varlab.errors import VarlabError

app = typer.Typer()


@app.command()
def claims(
    claim: Annotated[str | None, typer.Argument(help="An id, or a part that only one has: explain it.")] = None,
    paper: Annotated[str | None, typer.Option(help="Only this paper: a part of its number, or sparsevar, ...")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind of source: paper, poster, code, third party, inferred.")
    ] = None,
    outcome: Annotated[str | None, typer.Option(help='Only this verdict, e.g. "does not hold".')] = None,
    method: Annotated[str | None, typer.Option(help="Only this method.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model, of the claim or of the verdict.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Derive every verdict again; fail where one differs, and print the counts.")
    ] = False,
    documents: Annotated[
        Path | None, typer.Option(help="With --check: a folder of the papers' texts; fail where a number has no row.")
    ] = None,
    derive: Annotated[bool, typer.Option("--derive", help="Write the verdicts anew from the stored runs.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Another ledger than the shipped one.")] = None,
) -> None:
    """List the published numbers with their verdicts, explain one, or check all.

    Examples: `varlab claims --paper sparsevar --outcome partly`, `varlab claims hart-25-percent`.
    """
    from varlab.claims.command import checked, explained, listed
    from varlab.claims.derive import write_verdicts
    from varlab.claims.ledger import claims_folder
    from varlab.resources import refuse_shipped

    if documents is not None and not check:
        raise VarlabError("--documents goes with --check.")
    filters = (paper, kind, outcome, method, model)
    if sum([claim is not None, check, derive, any(filters)]) > 1:
        raise VarlabError("Give one of a claim, filters, --check and --derive.")
    if derive:
        refuse_shipped(folder or claims_folder())
        say(f"written to {write_verdicts(folder)}")
    elif check:
        for line in checked(folder, documents):
            say(line)
    elif claim is not None:
        for line in explained(folder, claim):
            say(line)
    else:
        found = listed(folder, outcome, model, paper=paper, source_kind=kind, method=method)
        console.print(as_table(found))
        say(f"{len(found)} verdicts; varlab claims ID explains one")


@app.command()
@with_options
def evidence(
    model: Model,
    study: Annotated[
        list[str] | None, typer.Argument(help="methods, sparsevar, exits; default: all that the model can run.")
    ] = None,
    n: Annotated[
        int | None, typer.Option(help="Prompts; intervals narrow with its root. Default: 32, 32 and 48.")
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

    Ctrl-C keeps what is done; the same command goes on. Afterwards: `varlab claims --derive`.
    """
    from varlab.resources import refuse_shipped, shipped
    from varlab.runs.inputs import at_least, check_counts
    from varlab.studies.settings.command import check_studies, evidence_command
    from varlab.weights.registry import find
    from varlab.writing import check_writable

    check_counts(n=n)
    at_least(0, seed=seed)
    chosen = check_studies(study or (), find(model).family, full)
    place = shipped("data") / "claims" / "runs" if out is None else out
    refuse_shipped(place)
    check_writable(place)
    loaded = load_model(model, **options)
    with resumable(), image_bar() as progress:
        evidence_command(loaded, chosen, place, n, seed, full, overwrite, progress, say)


@app.command()
def verdicts(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs of `varlab log` with all probes, one a model.")],
    out: Annotated[Path | None, typer.Option(help="Folder for motivation.csv and motivation.json.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Check the claims that the methods start from (reports 01 to 04) on several runs, side by side.

    Example: `varlab log mini-hart --n 32 --out runs/flat`, the same of another model, then
    `varlab verdicts runs/flat runs/textured`.
    """
    from varlab.claims.motivation import TABLE, side_by_side
    from varlab.outputs import with_facts
    from varlab.runs.folders import open_log

    check_folder(out, overwrite, *with_facts(f"{TABLE}.csv"))
    found = side_by_side([open_log(run) for run in runs])
    shown = ["model", "claim", "verdict", "number", "estimate", "low", "high", "values"]
    console.print(as_table(found.table[shown]))
    if out is not None:
        say(f"written to {found.save(out, TABLE)}")

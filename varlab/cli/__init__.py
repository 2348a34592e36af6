"""The command line: thin, every command one call into the package."""

from typing import Annotated

import typer

from varlab.cli import (
    bench,
    benchmarks,
    claims,
    comparisons,
    estimate,
    files,
    folders,
    methods,
    pages,
    run,
    sweeps,
    train,
)
from varlab.cli.boundary import DEBUG, guarded
from varlab.cli.names import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Analysis workbench for next-scale visual autoregressive image models (Infinity, HART and VAR).",
)
for room in (run, methods, comparisons, benchmarks, claims, pages, train, files, bench, estimate, sweeps):
    app.add_typer(room.app)
app.add_typer(folders.app, name="runs")
app.add_typer(comparisons.settings, name="settings")


@app.callback()
def everywhere(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """``--debug`` is read in ``boundary``, wherever it stands; here it is listed."""


def main() -> None:
    """Entry point: mistakes become one line and exit code 2, Ctrl-C one line and 130, never a traceback."""
    guarded(lambda arguments: app(args=arguments, prog_name="varlab"))

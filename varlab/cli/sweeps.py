"""The command that turns a file into a study: ``sweep``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn

from varlab.cli.options import NoWait, as_table, bars, console, resumable, say
from varlab.errors import VarlabError

app = typer.Typer()


@app.command()
def sweep(
    file: Annotated[
        Path, typer.Argument(help="YAML: models, specs, settings, prompts, seeds, shard; see the page on sweeps.")
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder that all workers see, or a URL of fsspec. Default: runs/sweep-FILE.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes of one torch thread each; memory grows with them. 0: this process.")
    ] = 0,
    cluster: Annotated[str | None, typer.Option(help="Address of a dask scheduler in place of own workers.")] = None,
    dense: Annotated[str | None, typer.Option(help="Store of dense images that several sweeps share.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file; print shards, work and time.")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Take new rows into a sweep that is there.")] = False,
    no_wait: NoWait = False,
) -> None:
    """Run models x specs x settings x prompts x seeds in shards, and merge them into one table.

    The same command goes on where it was stopped, by Ctrl-C or by a lost machine. The exit code is 1 when a shard
    failed three times; the rest is there. Latency is not measured: `varlab compare` does that.

    Example: `varlab sweep study.yaml --workers 2`
    """
    from varlab.sweeps import Tally, forecast, read_plan
    from varlab.sweeps import sweep as run

    if workers and cluster:
        raise VarlabError("--workers makes a cluster, --cluster takes one that is there: give one of them.")
    plan = read_plan(file)
    if dry_run:
        expected = forecast(plan, workers)
        console.print(as_table(expected.table))
        say(expected.line())
        return
    with resumable(), bars(MofNCompleteColumn(), "tasks") as move:
        failed = 0

        def progress(tally: Tally) -> None:
            nonlocal failed
            move("tasks", tally.done + len(tally.failures), tally.total)
            for failure in tally.failures[failed:]:
                say((f"failed: {failure.task.shards[0].label}: {failure.error}", "red"))
            failed = len(tally.failures)

        made = run(
            file, out or f"runs/sweep-{file.stem}", workers=workers, cluster=cluster, dense=dense, extend=extend,
            wait=not no_wait, progress=progress, tell=say,
        )  # fmt: skip
    shown: Any = made.table
    if len(shown):
        console.print(
            as_table(shown[["model", "settings", "seed", "method", "n", "work_ratio", "ssim", "ssim_low", "ssim_high"]])
        )
    say(f"written to {made.place}: table.csv, prompts.csv")
    if made.failures:
        say((f"{len(made.failures)} tasks failed three times; the same command tries them again", "red"))
        raise typer.Exit(1)

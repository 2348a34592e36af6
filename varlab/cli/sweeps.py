"""The command that turns a file into a study: ``sweep``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn

from varlab.cli.options import Dense, Model, NoWait, Seed, as_table, bars, console, resumable, say
from varlab.errors import VarlabError

if TYPE_CHECKING:
    from varlab.sweeps import Tally

app = typer.Typer()


Out = Annotated[
    str | None, typer.Option(help="Folder that all workers see, or a URL of fsspec. Default: runs/sweep-FILE.")
]
Workers = Annotated[
    int, typer.Option(help="Processes of one torch thread each; memory grows with them. 0: this process.")
]
Cluster = Annotated[str | None, typer.Option(help="Address of a dask scheduler in place of own workers.")]


@contextmanager
def watching() -> Iterator[Callable[["Tally"], None]]:
    """A bar of tasks, and a line for each that failed for good."""
    from varlab.sweeps.scheduler import followed

    with bars(MofNCompleteColumn(), "tasks") as move:
        yield followed(move, lambda line: say((line, "red")))


def one_of(workers: int, cluster: str | None) -> None:
    if workers and cluster:
        raise VarlabError("--workers makes a cluster, --cluster takes one that is there: give one of them.")


@app.command()
def sweep(
    file: Annotated[
        Path, typer.Argument(help="YAML: models, specs, settings, prompts, seeds, shard; see the page on sweeps.")
    ],
    out: Out = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    dense: Dense = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file; print shards, work and time.")] = False,
    rehearsed: Annotated[
        bool, typer.Option("--rehearse", help="Run its shards without pictures; print what each costs beside them.")
    ] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Take new rows into a sweep that is there.")] = False,
    no_wait: NoWait = False,
) -> None:
    """Run models x specs x settings x prompts x seeds in shards, and merge them into one table.

    The same command goes on where it was stopped, by Ctrl-C or by a lost machine. The exit code is 1 when a shard
    failed three times; the rest is there. Latency is not measured: `varlab compare` does that.

    Example: `varlab sweep study.yaml --workers 2`
    """
    from varlab.sweeps import forecast, read_plan, rehearse
    from varlab.sweeps import sweep as run

    one_of(workers, cluster)
    plan = read_plan(file)
    if dry_run:
        expected = forecast(plan, workers)
        console.print(as_table(expected.table))
        say(expected.line())
        return
    if rehearsed:
        with watching() as progress:
            say(rehearse(file, workers=workers, cluster=cluster, progress=progress, tell=say).line())
        return
    with resumable(), watching() as progress:
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


@app.command()
def tune(
    model: Model,
    prompts: Annotated[
        str | None, typer.Option(help="A prompt set or file; default: one that the model reads.")
    ] = None,
    n: Annotated[int, typer.Option(help="Prompts: half to choose on, half to report. Time grows with it.")] = 64,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder; the same command resumes it. Default: runs/tune-MODEL.")
    ] = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    no_wait: NoWait = False,
) -> None:
    """Search settings and compositions that keep more than the baselines at the same work.

    Candidates are halved again and again on one half of the prompts; the other half reports, with intervals. Writes
    front.csv, answers.csv, front.png and, on how they were made, tuned.json.

    Example: `varlab tune mini-infinity --n 64 --workers 2`
    """
    from varlab.cli.options import require_known
    from varlab.figures.tuning import front
    from varlab.outputs import in_picture
    from varlab.studies.tuning import tune as run

    one_of(workers, cluster)
    require_known(model)
    place = out or Path(f"runs/tune-{model}")
    with resumable(), watching() as progress:
        made = run(
            model, place, prompt_set=prompts, n=n, seed=seed, workers=workers, cluster=cluster, wait=not no_wait,
            progress=progress, tell=say,
        )  # fmt: skip
    console.print(as_table(made.answers))
    figure = front(made.table, made.facts).get_figure(root=True)
    assert figure is not None
    figure.savefig(place / "front.png", dpi=200, metadata=in_picture(made.facts))
    told = made.recommended or "none: no difference to the baselines has an interval above zero"
    say((f"recommended: {told}", "bold"))
    say(f"written to {place}: front.csv, answers.csv, front.png, tuned.json")
